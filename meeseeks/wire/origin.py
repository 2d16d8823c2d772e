"""Addresses of hosts: what a text is, and who is at the other end of a connection, also where TLS is in between."""

from __future__ import annotations

import os
import socket

__all__ = ["host_of", "ip_version", "tunnel_name"]

_MARK = "\0meeseeks-tls"


def ip_version(host: str) -> int:
    """4 or 6 if the text is an address of that kind, 0 if it is a name."""
    # What ipaddress would say; importing that takes longer than a request.
    for version, family, text in ((4, socket.AF_INET, host), (6, socket.AF_INET6, host.partition("%")[0])):
        try:
            socket.inet_pton(family, text)
        except (OSError, ValueError):
            continue
        return version
    return 0


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
