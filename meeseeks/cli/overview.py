"""The mesh at one moment, in numbers: what `mks stat` prints once and `mks top` keeps up to date. No I/O, no screen."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

__all__ = ["STATES", "Branch", "PoolTotal", "branches", "nodes_linked", "pool_totals"]

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


class Branch(NamedTuple):
    """A node in the picture of a mesh, below the one from which it is reached first."""

    name: str
    parent: str | None
    """None: the node that was asked, or one that no link leads to."""
    one_way: bool
    """Only one of the two follows the other, so far."""
    also: list[str]
    """The others that it is linked with and that stand elsewhere in the picture."""
    below: list[Branch]


def nodes_linked(nodes: Mapping[str, Info]) -> dict[str, list[tuple[str, bool]]]:
    """For each node that is online: those that it is linked with, and whether both of them say so."""
    says = {name: set(status.get("links", ())) for name, status in nodes.items() if status["online"]}
    return {
        name: [(other, other in says[name] and name in says[other]) for other in _linked(name, says)]
        for name in sorted(says)
    }


def _linked(name: str, says: Mapping[str, set[str]]) -> list[str]:
    return sorted(other for other in says if other != name and (other in says[name] or name in says[other]))


def branches(links: Mapping[str, Sequence[tuple[str, bool]]], first: str) -> list[Branch]:
    """The mesh as a tree: from `first` to each other node on the shortest way, with the links beside it as `also`."""
    found: dict[str, Branch] = {}
    roots: list[Branch] = []
    for root in [first, *links]:
        if root in found or root not in links:
            continue
        roots.append(found.setdefault(root, Branch(root, None, one_way=False, also=[], below=[])))
        queue = deque([root])
        while queue:
            name = queue.popleft()
            for other, mutual in links[name]:
                if other not in found:
                    found[other] = Branch(other, name, one_way=not mutual, also=[], below=[])
                    found[name].below.append(found[other])
                    queue.append(other)
    for name, branch in found.items():
        near = {branch.parent, *(child.name for child in branch.below)}
        branch.also.extend(other for other, _ in links[name] if other not in near)
    return roots
