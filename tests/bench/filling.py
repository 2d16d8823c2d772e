"""Filling the table of a node with ended jobs, fast."""

from __future__ import annotations

import time

from meeseeks import Client
from tests.support.nodes import NodeProcess

from .place import CALM_S, true_job
from .programs import CHUNK

__all__ = ["HOW", "held_and_killed", "inside", "ran"]

HOW = (
    "the first tenth of the jobs really ran /bin/true; the others were submitted with hold and then killed: ended "
    "as well, of the same size but for pid and times of start and end, in a tenth of the time"
)

_TOLD_WITHIN_S = 0.5
"""The loop brings its own figures up to date a few times a second."""


def ran(client: Client, n: int) -> None:
    """Run so many jobs of /bin/true to their end."""
    for first in range(0, n, CHUNK):
        size = min(CHUNK, n - first)
        jids = list(client.submit_many([true_job()] * size))
        client.wait_for(jids, 10 * CALM_S)


def held_and_killed(client: Client, n: int) -> None:
    """Submit so many held jobs, and kill them: each ends without a process."""
    for first in range(0, n, CHUNK):
        jids = list(client.submit_many([true_job(hold=True)] * min(CHUNK, n - first)))
        client.kill(jids)
        client.wait_for(jids, 10 * CALM_S)


def inside(client: Client, node: NodeProcess, key: str) -> float:
    """What the node's loop says of itself, by now: `jobs` in its table, `turn_ms_max` since it was started."""
    time.sleep(_TOLD_WITHIN_S)
    return float(client.nodes()[node.name]["info"][key])
