"""How the cost of a job grows with the mesh: real cores, linked to each other, that carry a load of short jobs.

Nothing fails here, and no message is late by more than a turn. What a node publishes is encoded as it would be, and
counted for each that has subscribed to it: the bytes are those of MessagePack, without what ZeroMQ and CURVE put
around them. Nodes take their turns one after the other every `turn_s`, and hear in one turn what the others said in
the turn before. The last node has no pool and no users: what it does, it does for the others' jobs.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from meeseeks.core import peer as core_peer
from meeseeks.core.effects import Adopted, Effects, Link, SyncWanted, Unlink, Update
from meeseeks.core.node_state import Endpoints, NodeState
from meeseeks.core.settings import PoolSettings, Settings
from meeseeks.wire import codec
from meeseeks.wire.messages import SYNC_BATCH, Reply, Request, SyncRequest
from tests.bench.sample import rss_mb

from .counts import Counts
from .slots import Slots

__all__ = ["Growth", "Load", "measure", "run"]

_WALL = 1_800_000_000.0
_MEET_S = 3.0
_END_WITHIN_S = 600.0
"""Simulated seconds that the last jobs may take after the last submit."""


@dataclass(frozen=True)
class Load:
    """What is played. Times are simulated seconds."""

    nodes: int
    jobs: int
    rate: float = 1000.0
    """Submits a second, of the whole mesh."""
    entrances: int = 0
    """How many nodes the jobs are submitted at, in turn; 0 is all but the last."""
    turn_s: float = 0.1
    job_s: float = 0.05
    slots: int = 16
    """Of each node but the last."""
    watched: bool = False
    """A client with a cache follows the first node."""
    expire_s: float = 86_400.0
    own_copies: bool = False
    """Each node decodes each message for itself: right for memory, and so much slower."""
    tail: int = core_peer.TAIL_LENGTH
    """How many changes of each peer a node remembers (`meeseeks.core.peer.TAIL_LENGTH`)."""


def _refuse_to_drop(why: str) -> None:
    raise AssertionError(why)


class _Node:
    """A core, its executor, who listens to it, and what comes in with its next turn."""

    def __init__(self, index: int, load: Load) -> None:
        name, is_last = f"n{index:03d}", index == load.nodes - 1
        pools = {} if is_last else {"p": PoolSettings(slots=load.slots)}
        self.name = name
        # As those of a store are made; but the same in each run.
        self.state = NodeState(
            Settings(name=name, expire=load.expire_s, pools=pools),
            f"{index:032x}",
            0.0,
            _WALL,
            endpoints=Endpoints(address="", port=13700, pub_port=23700, version="1.0.0"),
        )
        self.state.wanted_topics = set()
        self.slots = Slots(load.slots, load.job_s)
        self.subscribers: dict[str, str] = {}
        self.watchers = 0
        announced = partial(self.state.on_executor, [Adopted()])
        self.inbox: list[Callable[[], object]] = [announced]
        self.cpu_ns = 0
        self.ended = 0

    def want_topics(self) -> None:
        """Somebody came, or went."""
        self.state.wanted_topics = {*self.subscribers.values(), *(["all"] if self.watchers else [])}
        self.state.on_subscribed()


class Growth:
    """A mesh under a load. `play` runs it; `counts` has what the jobs cost, `idle` what no jobs cost."""

    def __init__(self, load: Load, say: Callable[[str], None] = lambda text: None) -> None:
        self.load = load
        self.now = 0.0
        self.counts = self.idle = Counts(load.nodes)
        self.longest_table = 0
        self.memory_mb = 0.0
        """By how much this process has grown with the jobs."""
        self._say = say
        self._next: list[tuple[_Node, Callable[[], object]]] = []
        self._submitted = 0
        core_peer.TAIL_LENGTH = load.tail
        self.nodes = [_Node(index, load) for index in range(load.nodes)]
        self._by_name = {node.name: node for node in self.nodes}

    def play(self) -> None:
        """Meet, be idle for a while, and then carry the load to its end."""
        self._meet()
        self.idle = Counts(self.load.nodes)
        self.counts = self.idle
        self._run_until(self.now + 10.0)
        self.idle.take_cpu(self._take_cpu(), 10.0)
        self.counts = Counts(self.load.nodes)
        begun_at, due, before_mb = self.now, 0.0, rss_mb(os.getpid())
        while self._submitted < self.load.jobs:
            due = min(due + self.load.rate * self.load.turn_s, self.load.jobs)
            self._submit(int(due) - self._submitted)
            self._turns()
            self._progress()
        last_at = self.now
        while self.ended < self.load.jobs or self._is_behind():
            assert self.now < last_at + _END_WITHIN_S, f"{self.ended} of {self.load.jobs} jobs have ended"
            self._turns()
        self.counts.take_cpu(self._take_cpu(), self.now - begun_at)
        self.memory_mb = rss_mb(os.getpid()) - before_mb

    @property
    def ended(self) -> int:
        """How many jobs have come to their end."""
        return sum(node.ended for node in self.nodes)

    def differing(self) -> list[str]:
        """Nodes whose table is not the first one's, where nothing has expired: none."""
        first = {record.spec.id: record for record in self.nodes[0].state.table}
        return [node.name for node in self.nodes if {r.spec.id: r for r in node.state.table} != first]

    # --- the load

    def _meet(self) -> None:
        for node in self.nodes:
            for other in self.nodes:
                if other is not node:
                    node.state.on_met(other.name, other.state.incarnation, "10.0.0.1", 13700, 23700)
        if self.load.watched:
            self.nodes[0].watchers = 1
        self._run_until(_MEET_S)
        for node in self.nodes:
            assert len(node.subscribers) == self.load.nodes - 1, node.name
            assert set(node.subscribers.values()) == {"own"}, "a mesh of which each node hears each other one"

    def _submit(self, count: int) -> None:
        entrances = self.load.entrances or max(1, self.load.nodes - 1)
        for node, specs in zip(self.nodes, self._specs(count, entrances), strict=False):
            if specs:
                node.inbox.append(partial(node.state.requests.submit_many, specs))

    def _specs(self, count: int, entrances: int) -> Iterator[list[dict[str, Any]]]:
        first, self._submitted = self._submitted, self._submitted + count
        for at in range(entrances):
            numbers = range(first + (at - first) % entrances, first + count, entrances)
            yield [{"id": f"{number:032x}", "pool": "p", "args": ["/bin/true"]} for number in numbers]

    def _is_behind(self) -> bool:
        return any(node.state.table.select({"state": state}) for node in self.nodes for state in ("new", "running"))

    def _progress(self) -> None:
        size = len(self.nodes[-1].state.table)
        self.longest_table = max(self.longest_table, size)
        part, before = self.load.jobs // 20, self._submitted - self.load.rate * self.load.turn_s
        if part >= 5000 and self._submitted // part > before // part:
            self._say(f"{self._submitted:,} submitted, {self.ended:,} ended, {size:,} in a table")

    # --- turns

    def _run_until(self, end: float) -> None:
        while self.now < end:
            self._turns()

    def _turns(self) -> None:
        self.now += self.load.turn_s
        for node in self.nodes:
            self._turn(node)
        for node, event in self._next:
            node.inbox.append(event)
        self._next.clear()

    def _turn(self, node: _Node) -> None:
        inbox, node.inbox = node.inbox, []
        state = node.state
        events = node.slots.events(self.now, _WALL)
        begun_ns = time.thread_time_ns()
        state.begin(self.now, _WALL + self.now)
        for event in inbox:
            event()
        if events:
            state.on_executor(events)
        effects = state.finish()
        node.cpu_ns += time.thread_time_ns() - begun_ns
        state.expired.clear()
        node.ended += len(effects.ended)
        node.slots.obey(effects.orders, self.now)
        self._carry_out(node, effects)

    def _carry_out(self, node: _Node, effects: Effects) -> None:
        for update in effects.updates:
            self._publish(node, update)
        for link in effects.links:
            if isinstance(link, Link):
                other = self._by_name[link.peer]
                other.subscribers[node.name] = link.topic
                other.want_topics()
            elif isinstance(link, Unlink):
                self._by_name[link.peer].subscribers.pop(node.name, None)
        for sync in effects.syncs:
            self._ask(node, sync)

    def _publish(self, node: _Node, update: Update) -> None:
        frame, spent_ns = _timed(partial(codec.encode, update))
        node.cpu_ns += spent_ns
        listeners = [self._by_name[name] for name, topic in node.subscribers.items() if topic == update.topic]
        if update.topic == "all":
            self.counts.watched(update, len(frame), node.watchers)
        if not listeners:
            return
        self.counts.published(self.nodes.index(node), update, len(frame), len(listeners))
        shared, spent_ns = _timed(partial(codec.decode_update, frame, _refuse_to_drop))
        for listener in listeners:
            if self.load.own_copies:
                shared = codec.decode_update(frame, _refuse_to_drop)
            listener.cpu_ns += spent_ns  # each of them decodes it, and once is enough to know how long that takes
            self._next.append((listener, partial(listener.state.on_update, shared)))

    def _ask(self, node: _Node, sync: SyncWanted) -> None:
        other = self._by_name[sync.peer]
        request = SyncRequest(incarnation=sync.incarnation, since=sync.since, origin=sync.origin)
        self.counts.synced(codec.encode(Request(id=1, request={"sync": request})))

        def answer() -> None:
            snapshot = other.state.sync(sync.incarnation, sync.since, sync.origin, SYNC_BATCH)
            self.counts.synced(codec.encode(Reply(id=1, response={"sync": snapshot})), len(snapshot.records))
            self._next.append((node, partial(node.state.on_snapshot, snapshot)))

        self._next.append((other, answer))

    def _take_cpu(self) -> list[float]:
        spent = [node.cpu_ns / 1e9 for node in self.nodes]
        for node in self.nodes:
            node.cpu_ns = 0
        return spent


def _timed(action: Callable[[], Any]) -> tuple[Any, int]:
    begun_ns = time.thread_time_ns()
    return action(), time.thread_time_ns() - begun_ns


def run(load: Load, say: Callable[[str], None] = lambda text: None) -> Growth:
    """Play it. An AssertionError if a job was lost on the way, or the tables differ at the end."""
    growth = Growth(load, say)
    growth.play()
    assert growth.ended == load.jobs, f"{growth.ended} ends of {load.jobs} jobs"
    if load.expire_s > growth.now:
        assert not growth.differing(), f"the tables differ: {growth.differing()}"
    return growth


def measure(load: Load, say: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """Play it, and say what was found. For a process of its own: it turns the search for cycles off."""
    # One table is little to search for cycles again and again, as a node does; a hundred in one process is not.
    gc.disable()
    begun_at = time.monotonic()
    growth = run(load, say)
    records = len(growth.nodes[-1].state.table) * load.nodes
    return {
        **asdict(load),
        "a job": growth.counts.a_job(load.jobs),
        "idle, a second": growth.idle.a_second(),
        "longest table": growth.longest_table,
        "memory of a job in a table, bytes": 1e6 * growth.memory_mb / records if load.own_copies else None,
        "simulated s": growth.counts.seconds,
        "took s": time.monotonic() - begun_at,
        "rss, MB": rss_mb(os.getpid()),
    }
