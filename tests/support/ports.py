"""Ports for what is started again on the port that it had: nobody else may be given it meanwhile.

The kernel gives away ports of its own range to any socket at any time, so they are taken from below that; each worker
of pytest-xdist has a part of them, and takes one after the other. Other runs of the suite on this machine see which are
taken by a name that only one process can have, until it ends.
"""

from __future__ import annotations

import os
import random
import re
import socket
from collections.abc import Iterator

__all__ = ["free_port", "free_ports"]

_FIRST, _WORKERS, _EACH = 14_000, 9, 2_000  # below 32768, where the kernel's begin


def _ports() -> Iterator[int]:
    worker = re.search(r"\d+$", os.environ.get("PYTEST_XDIST_WORKER", ""))
    first = _FIRST + _EACH * ((int(worker[0]) % (_WORKERS - 1) + 1) if worker else 0)
    at = random.randrange(_EACH)  # two runs of the suite at once begin at different ones
    while True:
        port, at = first + at % _EACH, at + 1
        if port not in (23_699, 23_700):  # of a node that was given no port
            yield port


_next = _ports()


def free_port() -> int:
    """A port that is free on all of the loopback network, and is given to nobody else for a long while."""
    for port in _next:
        with socket.socket() as probe, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as taken:
            try:
                taken.bind(f"\0meeseeks-test-port-{port}")
                probe.bind(("0.0.0.0", port))
            except OSError:
                continue
            taken.detach()
        return port
    raise AssertionError("there is always a next port")


def free_ports(count: int) -> list[int]:
    """Several of them."""
    return [free_port() for _ in range(count)]
