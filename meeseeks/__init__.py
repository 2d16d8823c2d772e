"""A mesh that runs jobs. This module is the whole public API, together with `meeseeks.config` for configurations.

`import meeseeks` is cheap: `Client` and `Job`, which bring ZeroMQ with them, are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from .errors import (
    AuthenticationFailed,
    ClientClosed,
    ConfigError,
    InvalidRequest,
    MeeseeksError,
    NodeUnreachable,
    ProtocolError,
    RequestFailed,
    RequestTimeout,
)

if TYPE_CHECKING:
    from .client.client import Client as Client
    from .client.job import Job as Job

__all__ = [
    "AuthenticationFailed",
    "Client",
    "ClientClosed",
    "ConfigError",
    "InvalidRequest",
    "Job",
    "MeeseeksError",
    "NodeUnreachable",
    "ProtocolError",
    "RequestFailed",
    "RequestTimeout",
    "__version__",
]

__version__ = "0.1.0"

_LAZY = {"Client": "meeseeks.client.client", "Job": "meeseeks.client.job"}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module 'meeseeks' has no attribute {name!r}")
    value: object = getattr(import_module(_LAZY[name]), name)
    globals()[name] = value  # the next use finds it without coming here
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
