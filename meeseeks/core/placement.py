"""Which node gets a job: what the submit node knows of the load, who waits, and the choice (DESIGN section 5).

Jobs wait in groups of those that may go to the same nodes, so that a turn costs what it assigns, not what waits.
"""

from __future__ import annotations

import heapq
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator
from itertools import count
from typing import NamedTuple

from .effects import PoolStatus
from .record import END_STATES, RUNNING, Record, is_lost

__all__ = ["CONFIG_POOL", "Candidate", "Group", "Loads", "Waiting", "fits", "has_room", "place"]

CONFIG_POOL = "__config"
"""A job for this pool is no command: its args are configuration, for its node to apply."""

Group = tuple[str, str | None, bool]
"""Jobs that may go to the same nodes: pool, wished node, held."""

_UNLIMITED = 1_000_000_000


class Candidate(NamedTuple):
    """A node that may get jobs of a pool."""

    node: str
    pool: PoolStatus
    loadavg: float
    is_here: bool = False
    """It is the submit node itself: the nearest, where all else is equal."""


def fits(record: Record, node: str) -> bool:
    """Whether the spec lets the job run on this node."""
    return record.spec.node is None or record.spec.node == node


class Loads:
    """How many live jobs each node has in each pool, by this node's table; and which ones they are."""

    def __init__(self) -> None:
        self.jobs: Counter[tuple[str, str]] = Counter()
        """Per (node, pool), without those on hold: they take no slot."""
        self._by_node: dict[str, dict[str, None]] = {}

    def note(self, before: Record | None, after: Record | None) -> None:
        """A record changed."""
        was, now = _assignment(before), _assignment(after)
        if was == now:
            return
        if was is not None and before is not None:
            node, pool, held = was
            if not held:
                self.jobs[node, pool] -= 1
                if not self.jobs[node, pool]:
                    del self.jobs[node, pool]
            if now is None or now[0] != node:
                jobs = self._by_node[node]
                del jobs[before.spec.id]
                if not jobs:
                    del self._by_node[node]
        if now is not None and after is not None:
            node, pool, held = now
            if not held:
                self.jobs[node, pool] += 1
            self._by_node.setdefault(node, {})[after.spec.id] = None

    def on(self, node: str) -> list[str]:
        """The live jobs that are assigned to a node."""
        return list(self._by_node.get(node, ()))

    def nodes(self) -> list[str]:
        """The nodes that have live jobs."""
        return list(self._by_node)


def _assignment(record: Record | None) -> tuple[str, str, bool] | None:
    if record is None or record.status.node is None or record.status.state in END_STATES or is_lost(record):
        return None
    is_held = record.spec.hold and record.status.state != RUNNING  # a hold doesn't take the slot from what runs
    return record.status.node, record.spec.pool, is_held


class Waiting:
    """The unassigned jobs of a submit node, oldest first, in groups (pool, wished node, held)."""

    def __init__(self) -> None:
        # OrderedDict, since taking the first out of a plain dict again and again costs ever more
        self._groups: dict[Group, OrderedDict[str, int]] = {}
        self._group_of: dict[str, Group] = {}
        self._numbers = count()

    def __len__(self) -> int:
        return len(self._group_of)

    def __contains__(self, jid: object) -> bool:
        return jid in self._group_of

    def add(self, record: Record) -> None:
        """Line a job up, or move it to the group that it belongs to now."""
        spec = record.spec
        group = (spec.pool, spec.node, spec.hold)
        if self._group_of.get(spec.id) == group:
            return
        self.remove(spec.id)
        self._group_of[spec.id] = group
        self._groups.setdefault(group, OrderedDict())[spec.id] = next(self._numbers)

    def remove(self, jid: str) -> None:
        """It waits no longer."""
        group = self._group_of.pop(jid, None)
        if group is not None:
            del self._groups[group][jid]
            if not self._groups[group]:
                del self._groups[group]

    def groups(self) -> Iterator[Group]:
        """The groups that have jobs."""
        return iter(list(self._groups))

    def first(self, group: Group) -> str | None:
        """The oldest job of a group."""
        return next(iter(self._groups.get(group, ())), None)

    def since(self, group: Group) -> int:
        """How long its oldest job has waited: of two groups, the one with the lower number has the older job."""
        return next(iter(self._groups[group].values()))

    def group_of(self, jid: str) -> Group:
        """The group of a job that waits."""
        return self._group_of[jid]

    def line(self, group: Group) -> Iterable[str]:
        """The jobs of a group, oldest first."""
        return self._groups.get(group, ())


def place(
    waiting: Waiting,
    group: Group,
    candidates: Iterable[Candidate],
    loads: Loads,
    *,
    use_loadavg: bool,
) -> Iterator[tuple[str, str]]:
    """Pairs (job, node) for a group, as long as there is room. The caller assigns each job before it takes the next.

    Several groups may be placed by turns: loads count as they are when a job is placed.

    Nodes with free slots come first, most free slots before fewer; then those whose slots are so short-lived that they
    want a job in advance; full ones only where they said so (`wait_in_pool`). A held job takes no slot: any node does.
    """
    pool, wish, held = group
    heap: list[tuple[tuple[float, ...], str, int, Candidate]] = []
    for candidate in candidates:
        if candidate.pool.drain or (wish is not None and wish != candidate.node):
            continue
        load = loads.jobs[candidate.node, pool]
        if held or has_room(candidate, load):
            heap.append((_rank(candidate, load, use_loadavg), candidate.node, load, candidate))
    heapq.heapify(heap)
    while heap and (jid := waiting.first(group)) is not None:
        _, node, load, candidate = heap[0]
        now = loads.jobs[node, pool]
        if now == load:
            yield jid, node
            now += not held
        if held or has_room(candidate, now):
            heapq.heapreplace(heap, (_rank(candidate, now, use_loadavg), node, now, candidate))
        else:
            heapq.heappop(heap)


def _free(candidate: Candidate, load: int) -> int:
    return (candidate.pool.slots or _UNLIMITED) - load


def has_room(candidate: Candidate, load: int) -> bool:
    """Whether a node with so many jobs of the pool takes one more."""
    return _free(candidate, load) + candidate.pool.prefetch > 0 or candidate.pool.wait


def _rank(candidate: Candidate, load: int, use_loadavg: bool) -> tuple[float, ...]:
    """Less is better."""
    free = _free(candidate, load)
    rank: tuple[float, ...] = (candidate.pool.hold, free <= 0)
    best = (candidate.loadavg, -free) if use_loadavg else (-free,)
    return (*rank, *best, not candidate.is_here)
