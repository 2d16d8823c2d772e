"""Why a job has not started yet, in words for people. It only reads, and decides nothing.

An answer about many jobs costs each of them little: what holds for all jobs of a pool is looked at once a turn, and
the places in a line are counted for the whole line at once, and then again a second later at the earliest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime

from .ledger import Ledger
from .lifecycle import Phase, is_over, phase_of
from .mesh import Mesh
from .owner import Owner
from .placement import CONFIG_POOL, Candidate, Waiting, has_room
from .record import END_STATES, Record

__all__ = ["Reasons"]

_RECOUNT_AFTER = 1.0
"""Seconds for which places in line are taken for still true."""
_NAMED = 12
"""Pools or nodes that are named in one sentence."""

_HAS_ROOM = "it is being assigned"

Line = tuple[object, ...]
"""What a line is known by: a group of waiting jobs, or a pool of this node."""


class Reasons:
    """What one node can say of jobs that wait, by its table, and by what it hears of the others."""

    def __init__(
        self,
        ledger: Ledger,
        mesh: Mesh,
        owner: Owner,
        waiting: Waiting,
        delayed: Mapping[str, int],
        candidates: Callable[[str], Iterable[Candidate]],
    ) -> None:
        """`waiting`, `delayed` (resubmitted jobs that wait for their time) and `candidates` are the submitter's."""
        self._ledger = ledger
        self._mesh = mesh
        self._owner = owner
        self._waiting = waiting
        self._delayed = delayed
        self._candidates = candidates
        self._moment: tuple[float, int] = (0.0, -1)  # (time, seq) that the next two are of
        self._told: dict[tuple[str, str | None], str] = {}  # (pool, wished node) -> why it gets no job
        self._held: dict[str, set[str]] = {}  # pool -> nodes on which it is on hold
        self._lines: dict[Line, tuple[float, dict[str, int]]] = {}  # line -> when it was counted, job -> place

    def why(self, record: Record) -> str | None:
        """Why a job has not started yet; None if it has, or has ended. Times in it are UTC, in ISO 8601."""
        spec, status = record.spec, record.status
        phase, fresh = phase_of(status), spec.generation > status.generation
        if not fresh and (status.state in END_STATES or phase is Phase.RUNNING):
            return None
        if phase is not Phase.UNASSIGNED and not fresh:
            return self._why_there(record, phase)
        if not self._is_online(spec.submit_node):
            return f"submit node {spec.submit_node!r} is offline{self._since(spec.submit_node)}"
        if fresh and not is_over(record):
            return f"its earlier run has not ended yet on node {status.node!r}"
        if spec.id in self._delayed:
            return "it is resubmitted, or was adopted, and waits for a moment"
        return self._why_unassigned(record)

    # --- no node has it

    def _why_unassigned(self, record: Record) -> str:
        spec = record.spec
        self._look_anew()
        asked = (spec.pool, spec.node)
        why = self._told.get(asked)
        if why is None:
            why = self._told[asked] = self._why_no_room(*asked)
        if why is _HAS_ROOM:
            mine = spec.submit_node == self._ledger.name
            return why if mine else f"submit node {spec.submit_node!r} has not assigned it yet"
        if why.endswith("taken") and spec.id in self._waiting:
            group = self._waiting.group_of(spec.id)
            place = self._place(group, spec.id, lambda: self._waiting.line(group))
            return f"{why}, {_ordinal(place)} in line"
        return why

    def _why_no_room(self, pool: str, wish: str | None) -> str:
        """Why no job of this pool, with this wish for a node, is assigned now."""
        have = list(self._candidates(pool))
        fitting = [one for one in have if wish in (None, one.node)]
        if not fitting:
            return self._why_nowhere(pool) if wish is None else self._why_not_on(wish, pool)
        taking = [one for one in fitting if not one.pool.drain]
        if not taking:
            names = [one.node for one in fitting]
            nodes = f"node {names[0]!r} is" if len(names) == 1 else f"nodes {_listed(names)} are"
            return f"{nodes} draining pool {pool!r}"
        if any(has_room(one, self._ledger.loads.jobs[one.node, pool]) for one in taking):
            return _HAS_ROOM
        slots = sum(one.pool.slots for one in taking)
        where = f"{pool!r}" if wish is None else f"{pool!r} on node {wish!r}"
        return f"the only slot of {where} is taken" if slots == 1 else f"all {slots} slots of {where} are taken"

    def _why_nowhere(self, pool: str) -> str:
        pools = set(self._owner.pools)
        for peer in self._mesh.peers.values():
            if peer.beat is not None and self._mesh.is_alive(peer.name, self._ledger.now):
                if pool in peer.beat.pools and (deaf := self._why_deaf(peer.name)):
                    return deaf
                pools.update(peer.beat.pools)
        return f"no online node has pool {pool!r} (pools are: {_listed(pools)})"

    def _why_deaf(self, node: str) -> str | None:
        peer = self._mesh.peers.get(node)
        if peer is None or peer.hears(self._ledger.name, self._mesh.incarnation):
            return None
        return (
            f"node {node!r} does not hear node {self._ledger.name!r}: "
            "can it reach that one's `listen.advertise`, and both of its ports?"
        )

    def _why_not_on(self, node: str, pool: str) -> str:
        if node == self._ledger.name:
            pools = list(self._owner.pools)
        elif node not in self._mesh.peers:
            online = [self._ledger.name, *(name for name in self._mesh.peers if self._is_online(name))]
            return f"there is no node {node!r} (nodes are: {_listed(online)})"
        elif not self._is_online(node):
            return f"node {node!r} is offline{self._since(node)}"
        else:
            beat = self._mesh.peers[node].beat
            pools = list(beat.pools) if beat is not None else []
        if pool == CONFIG_POOL or pool in pools:
            return self._why_deaf(node) or f"node {node!r} does not answer, or is stopping"
        return f"node {node!r} has no pool {pool!r} (its pools are: {_listed(pools)})"

    # --- a node has it

    def _why_there(self, record: Record, phase: Phase) -> str:
        spec, status, node = record.spec, record.status, record.status.node
        assert node is not None
        if not self._is_online(node):
            return f"node {node!r}, to which it is assigned, is offline{self._since(node)}"
        if phase is Phase.ASSIGNED and self._owner.is_delayed(spec.id):
            return f"submit node {spec.submit_node!r} is to say first whether it has ended long ago"
        if phase is Phase.ASSIGNED:
            deaf = self._why_deaf(node) if spec.submit_node == self._ledger.name else None
            return deaf or f"assigned to node {node!r}"
        if spec.hold:
            return "held"
        lessor = status.epoch[1]
        if status.leased and not self._is_online(lessor):
            return f"its submit node {lessor!r}, without which it may not start, is offline{self._since(lessor)}"
        self._look_anew()
        held = self._held.get(spec.pool)
        if held is None:
            held = self._held[spec.pool] = {one.node for one in self._candidates(spec.pool) if one.pool.hold}
        if node in held:
            return f"pool {spec.pool!r} of node {node!r} is on hold"
        where = f"in line for a slot of pool {spec.pool!r} on node {node!r}"
        own = self._owner.pools.get(spec.pool) if node == self._ledger.name else None
        if own is None:
            return where
        if spec.id in own.ready:
            place = self._place((node, spec.pool), spec.id, lambda: own.ready)
            return f"{_ordinal(place)} {where}"
        return "it starts again after a short delay" if status.start_count else where

    # --- inside

    def _look_anew(self) -> None:
        """Keep what holds for all jobs of a pool for this moment only."""
        moment = (self._ledger.now, self._ledger.table.seq)
        if moment != self._moment:
            self._moment = moment
            self._told.clear()
            self._held.clear()

    def _place(self, line: Line, jid: str, members: Callable[[], Iterable[str]]) -> int:
        """The place, from 1 on, of a job that is one of the members of a line."""
        now = self._ledger.now
        counted_at, places = self._lines.get(line, (float("-inf"), {}))
        if now - counted_at >= _RECOUNT_AFTER:
            for other, (at, _) in list(self._lines.items()):
                if now - at >= _RECOUNT_AFTER:
                    del self._lines[other]
            places = {one: at for at, one in enumerate(members(), 1)}
            self._lines[line] = (now, places)
        return places.setdefault(jid, len(places) + 1)  # it came after the count

    def _is_online(self, node: str) -> bool:
        return node == self._ledger.name or self._mesh.is_online(node, self._ledger.now)

    def _since(self, node: str) -> str:
        """Since when a node is not heard, for the end of a sentence; nothing if it never was."""
        quiet = self._mesh.quiet(node, self._ledger.now)
        if quiet == float("inf"):
            return ""
        return f" since {datetime.fromtimestamp(self._ledger.wall - quiet, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _listed(names: Iterable[str]) -> str:
    """Names of pools or nodes, for people."""
    known = sorted(set(names) - {CONFIG_POOL})
    return ", ".join(known[:_NAMED]) + (", …" if len(known) > _NAMED else "") or "none"


def _ordinal(place: int) -> str:
    if place % 100 in (11, 12, 13):
        return f"{place}th"
    return f"{place}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(place % 10, 'th') }"
