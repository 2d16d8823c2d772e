"""The mesh at one moment, in numbers: what `mks stat` prints once and `mks top` keeps up to date. No I/O, no screen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

__all__ = ["STATES", "PoolTotal", "nodes_linked", "pool_totals"]

STATES = ("new", "running", "done", "failed", "killed")

Info = Mapping[str, Any]


class PoolTotal(NamedTuple):
    """A pool on all nodes that are online."""

    slots: int | None
    """None: no limit."""
    running: int
    waiting: int
    """Jobs that have not started, wherever they wait."""
    nodes: list[str]
    hold: bool
    """No node of it starts any."""
    drain: bool
    """No node of it takes any."""


def pool_totals(nodes: Mapping[str, Info], running: Counter[str], waiting: Mapping[str, int]) -> dict[str, PoolTotal]:
    """Each pool of the nodes that are online, by name. `running` and `waiting` count jobs by pool."""
    places: dict[str, list[tuple[str, Info]]] = {}
    for name, status in sorted(nodes.items()):
        for pool, of in status["pools"].items() if status["online"] else ():
            if not pool.startswith("__"):
                places.setdefault(pool, []).append((name, of))
    return {
        pool: PoolTotal(
            None if any(not of["slots"] for _, of in at) else sum(of["slots"] for _, of in at),
            running[pool],
            waiting.get(pool, 0),
            [name for name, _ in at],
            all(of["hold"] for _, of in at),
            all(of["drain"] for _, of in at),
        )
        for pool, at in sorted(places.items())
    }


def nodes_linked(nodes: Mapping[str, Info]) -> dict[str, list[tuple[str, bool]]]:
    """For each node that is online: the others that it hears, and whether they hear it as well."""
    sees = {name: set(status["sees"]) for name, status in nodes.items() if status["online"]}
    return {name: [(other, name in sees.get(other, ())) for other in sorted(seen)] for name, seen in _sorted(sees)}


def _sorted(sees: Mapping[str, set[str]]) -> Iterable[tuple[str, set[str]]]:
    return sorted(sees.items())
