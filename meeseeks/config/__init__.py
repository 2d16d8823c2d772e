"""The configuration of a node: `load` it from files and arguments, `change` it while it runs, `explain` it."""

from __future__ import annotations

from .check import Setting
from .node_config import (
    Listen,
    Logging,
    NodeConfig,
    Peer,
    Pool,
    Security,
    State,
    change,
    explain,
    load,
    to_dict,
    without_secrets,
)

__all__ = [
    "Listen",
    "Logging",
    "NodeConfig",
    "Peer",
    "Pool",
    "Security",
    "Setting",
    "State",
    "change",
    "explain",
    "load",
    "to_dict",
    "without_secrets",
]
