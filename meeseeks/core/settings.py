"""What the core needs to know of a node's configuration. `config.py` declares the rest, and makes these."""

from __future__ import annotations

import msgspec

__all__ = ["PoolSettings", "Settings"]


class PoolSettings(msgspec.Struct, frozen=True, kw_only=True):
    """A pool of this node."""

    slots: int = 0
    """How many jobs run at once; 0 is no limit."""
    hold: bool = False
    """Take jobs, start none."""
    drain: bool = False
    """Take no new jobs."""
    runtime: float | None = None
    """The longest a job may run, in seconds, that names no runtime of its own."""
    grace: float = 5.0
    """Seconds between SIGTERM and SIGKILL."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """A node. Times are in seconds."""

    name: str
    heartbeat: float = 1.0
    timeout: float = 15.0
    """A node silent for so long is offline."""
    lost_after: float = 300.0
    """A node silent for so long is lost: its jobs are judged. At least twice `timeout`."""
    expire: float = 86400.0
    """An ended job is forgotten so long after its last change."""
    use_loadavg: bool = False
    wait_in_pool: bool = False
    discover: bool = True
    pools: dict[str, PoolSettings] = {}
