"""Who is at the other end of a connection, by its file descriptor: also where TLS is in between."""

from __future__ import annotations

import os
import socket

__all__ = ["host_of", "tunnel_name"]

_MARK = "\0meeseeks-tls"


def tunnel_name(number: int, host: str) -> str:
    """The name that the end of a TLS tunnel gives its socket towards the node: it says from where it comes."""
    return f"{_MARK}/{os.getpid()}/{number}/{host}"


def host_of(fd: int) -> str:
    """The host at the other end; blank if it is not known, or the connection was closed meanwhile."""
    try:
        with socket.socket(fileno=socket.dup(fd)) as connection:
            name = connection.getpeername()
    except OSError:
        return ""
    if isinstance(name, tuple):
        return str(name[0])
    text = name.decode(errors="replace") if isinstance(name, bytes) else str(name)
    return text.rpartition("/")[2] if text.startswith(_MARK) else ""
