"""Room for connections: libzmq ends the process where it can't open a file, so newcomers are turned away before."""

from __future__ import annotations

import resource
import socket

__all__ = ["connections_max", "hang_up", "why_full"]

_OTHERS = 1024


def connections_max() -> int:
    """How many connections others may have with this process at once: its files, less what it needs for all else."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 2**31 if soft == resource.RLIM_INFINITY else max(soft // 2, soft - _OTHERS)


def why_full() -> str:
    """Why a newcomer is turned away then, for the log."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return f"too many connections are open for the {soft} files that this node may open ('ulimit -n')"


def hang_up(fd: int) -> None:
    """End a connection that libzmq has: it finds it closed, and closes it. Nothing, if it is closed already."""
    try:
        with socket.socket(fileno=socket.dup(fd)) as connection:
            connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return
