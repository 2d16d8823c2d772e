"""One simulated node: the shell around a `NodeState` that is the very one of production, and its machine's clocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from meeseeks.core.effects import Dial, Effects, Event, Exited, Link, Start, Started, SyncWanted, Unlink
from meeseeks.core.lifecycle import Event as JobEvent
from meeseeks.core.node_state import Endpoints, NodeState
from meeseeks.core.placement import CONFIG_POOL
from meeseeks.core.record import Record, is_lost
from meeseeks.core.settings import Settings
from meeseeks.errors import InvalidRequest

from .disk import Disk, Write
from .executor import SimExecutor

if TYPE_CHECKING:
    from .world import World

__all__ = ["SimNode"]

_GREET_EVERY = 1.0
_FORGET_DIAL_AFTER = 10.0
_STOP_WITHIN = 8.0


class SimNode:
    """A machine with a node and its executor."""

    def __init__(self, world: World, index: int, settings: Settings) -> None:
        noise = world.noise
        self.world = world
        self.index = index
        self.name = settings.name
        self.settings = settings
        self.life = 0
        self.disk = Disk()
        self.state: NodeState | None = None
        self.executor: SimExecutor | None = None
        self.frozen_until: float | None = None
        self.frozen_at = -1.0
        """When it was frozen last."""
        self.gone = False
        self.subscribers: dict[int, str] = {}
        self._rate = 1.0 + 0.002 * (noise(1, index) - 0.5)
        self._offset = 1000.0 * noise(2, index)
        self._skew = 20.0 * (noise(3, index) - 0.5)
        self._lives = 0
        self._clear()

    def _clear(self) -> None:
        self.inbox: list[tuple[str, Any]] = []
        self.links: dict[str, str] = {}
        self.dials: dict[int, float] = {}
        self._greeted: dict[int, float] = {}
        self._held: list[Callable[[], None]] | None = None
        self._turn_at: float | None = None
        self._tick_at = 0.0
        self._stopping_at: float | None = None
        self.trap: str | None = None

    # --- clocks

    def mono(self) -> float:
        """The machine's monotonic clock."""
        return self._offset + self.world.now * self._rate

    def true_time(self, mono: float) -> float:
        """When that clock shows `mono`."""
        return (mono - self._offset) / self._rate

    def wall(self) -> float:
        """The machine's idea of the time of day."""
        return 1_700_000_000.0 + self.world.now + self._skew

    def set_clock(self, by: float) -> None:
        """Somebody sets the wall clock."""
        self._skew += by

    # --- life

    @property
    def is_up(self) -> bool:
        """Whether its process is there (it may be frozen)."""
        return self.state is not None

    @property
    def is_frozen(self) -> bool:
        """Whether its process is stopped just now."""
        return self.frozen_until is not None

    def boot(self) -> None:
        """Start the node, and an executor if none is left."""
        if self.state is not None or self.gone:
            return
        self.life += 1
        self._clear()
        self.subscribers = {}
        memory = self.world.plan.memory
        self._lives += 1
        incarnation = f"{self.name}.{self._lives if memory else 0}"
        self.settings = msgspec.structs.replace(self.settings)
        self.state = NodeState(
            self.settings,
            incarnation,
            self.mono(),
            self.wall(),
            endpoints=Endpoints(address=self.name, port=self.index, pub_port=self.index),
            boot=self.disk.boots,
        )
        self.state.wanted_topics = set()
        if not memory:
            if self.disk.boots:
                self.state.restore(self.disk.read(), self.disk.seq)
            self.disk.boots += 1
        self._watch(self.state)
        self.world.checks.on_boot(self)
        self._start_executor()
        self.wake(0.0)

    def _watch(self, state: NodeState) -> None:
        """Have the checks see what a turn may hide: jobs that are taken back, and given away again at once."""
        advance = state.ledger.advance

        def watched(record: Record, event: JobEvent, **facts: Any) -> Record:
            after = advance(record, event, **facts)
            if event is JobEvent.TAKE_BACK:
                self.world.checks.on_taken_back(self, record, after)
            elif event is JobEvent.RERUN and is_lost(record):
                self.world.checks.job(record.spec.id).risky.add(record.spec.generation)
            elif event is JobEvent.BOUNCE:
                self.world.checks.job(record.spec.id).given_back.add(record.status.key[:2])
            return after

        state.ledger.advance = watched  # type: ignore[method-assign]

    def crash(self, how: str, luck: float) -> None:
        """`process`: the node dies; `both`: and its executor; `power`: the machine loses what was not on disk."""
        if self.state is None:
            return
        if self.world.plan.memory:
            self.world.checks.on_memory_lost(self)
        self.state = None
        self.frozen_until = None
        self.life += 1
        self._clear()
        executor = self.executor
        if how != "process" and executor is not None and executor.alive:
            executor.die()
        if self.world.plan.memory:
            self.executor, self.disk = None, Disk()
        elif how == "power":
            lost = self.disk.power_cut(self.world.now, luck)
            self.world.checks.on_power_cut(self, executor, lost)
            self.executor = None
            self._offset = 1000.0 * self.world.noise(2, self.index, self.life)
        else:
            self.disk.sync()

    def freeze(self, span: float) -> None:
        """SIGSTOP for a while."""
        if self.state is None:
            return
        self.frozen_at = self.world.now
        self.frozen_until = max(self.frozen_until or 0.0, self.world.now + span)
        self.world.at(self.frozen_until, self._thaw, self.life)

    def _thaw(self, life: int) -> None:
        if life != self.life or self.frozen_until is None or self.world.now < self.frozen_until - 1e-9:
            return
        self.frozen_until = None
        held, self._held = self._held, None
        for act in held or ():
            act()
        self._turn_at = None
        self.wake(0.0)

    def stop(self) -> None:
        """SIGTERM."""
        if self.state is not None and self._stopping_at is None:
            self._stopping_at = self.world.now + _STOP_WITHIN
            self.inbox.append(("stop", None))
            self.wake(0.0)

    @property
    def is_stopping(self) -> bool:
        """Whether it was told to stop."""
        return self._stopping_at is not None

    # --- its executor

    def _start_executor(self) -> None:
        old = self.executor
        if old is None or not old.alive:
            self.executor = SimExecutor(self)
            if old is not None:
                self.executor.inherit(old)
        assert self.executor is not None
        self.receive("executor", self.executor.announce())

    def from_executor(self, executor: SimExecutor, events: list[Event]) -> None:
        """The executor has something to tell."""
        if self.state is not None and executor is self.executor:
            self.world.after(0.001, self._hear_executor, self.life, executor, events)

    def _hear_executor(self, life: int, executor: SimExecutor, events: list[Event]) -> None:
        if life == self.life and executor is self.executor and executor.alive:
            self.receive("executor", events)

    def kill_executor(self) -> None:
        """The executor alone is killed."""
        if self.executor is not None and self.executor.alive:
            self.executor.die()
            if self.state is not None:
                self.receive("executor_gone", self.executor)

    # --- turns

    def receive(self, kind: str, what: Any) -> None:
        """Something for the next turn."""
        self.inbox.append((kind, what))
        # Usually a node is idle and wakes at once; now and then it is busy, and finds several things to do.
        busy = self.world.noise(4, self.index, int(self.world.now * 50))
        self.wake(0.0005 if busy < 0.8 else 0.02 if busy < 0.97 else 0.4)

    def wake(self, delay: float) -> None:
        """Have a turn, no later than in `delay` seconds."""
        at = self.world.now + delay
        if self.state is None or (self._turn_at is not None and self._turn_at <= at):
            return
        self._turn_at = at
        self.world.at(at, self._turn, self.life, at)

    def _turn(self, life: int, at: float) -> None:
        if life != self.life or self._turn_at != at or self.frozen_until is not None or self.state is None:
            return
        self._turn_at = None
        state, now = self.state, self.world.now
        state.begin(self.mono(), self.wall())
        leaving: list[Callable[[], None]] = []
        inbox, self.inbox = self.inbox, []
        force = False
        for kind, what in inbox:
            if kind == "request":
                force |= what(self, state, leaving)
            else:
                _HANDLERS[kind](self, state, what, leaving)
        if now >= self._tick_at:
            self._tick_at = now + _GREET_EVERY
            self._tick(leaving)
        effects = state.finish()
        self.world.checks.on_turn(self, effects)
        self._store(state, effects, force=force)
        if self.trap == "crash":
            self.world.faults.crash_trapped(self.index)
            return
        self._leave(effects, leaving)
        if self._stopping_at is not None and (state.is_idle or now >= self._stopping_at):
            self._shut_down()
            return
        self._wake_at(state.next_turn_at)

    def _leave(self, effects: Effects, leaving: list[Callable[[], None]]) -> None:
        acts: list[Callable[[], None]] = [lambda: self._carry_out(effects), *leaving]
        if self.trap is not None and self.trap.startswith("freeze"):
            span, self.trap = float(self.trap[6:]), None
            self._held = acts
            self.freeze(span)
            return
        for act in acts:
            act()

    def _store(self, state: NodeState, effects: Effects, *, force: bool) -> None:
        if not self.world.plan.memory and (effects.records or state.expired):
            rows = [(state.table.seq_of(record.spec.id), record) for record in effects.records]
            self.disk.write(Write(rows, list(state.expired), state.table.seq), self.world.now, force=force)
        self.world.checks.on_expired(self, state.expired)
        state.expired.clear()

    def _wake_at(self, mono: float) -> None:
        self.wake(max(0.0005, self.true_time(mono) - self.world.now + 1e-6))

    def _shut_down(self) -> None:
        executor = self.executor
        if executor is not None and executor.alive:
            executor.die()
        if self.world.plan.memory:
            self.world.checks.on_memory_lost(self)
        self.state = None
        self.life += 1
        self.disk.sync()
        self._clear()

    # --- effects

    def _carry_out(self, effects: Effects) -> None:
        orders = [order for order in effects.orders if not self._is_config_order(order)]
        if orders and self.executor is not None and self.executor.alive:
            self.world.after(0.0005, self.executor.obey, orders)
        for update in effects.updates:
            for subscriber, topic in list(self.subscribers.items()):
                if topic == update.topic:
                    self.world.publish(self.index, subscriber, update)
        for link in effects.links:
            self._link(link)
        for sync in effects.syncs:
            self._ask(sync)

    def _is_config_order(self, order: Any) -> bool:
        if not isinstance(order, Start) or order.pool != CONFIG_POOL:
            return False
        now = self.wall()
        exited = Exited(key=order.key, rc=0, start_ts=now, end_ts=now)
        self.receive("executor", [Started(order.key, 1, now), exited])
        return True

    def _link(self, effect: Link | Unlink | Dial) -> None:
        if isinstance(effect, Dial):
            if effect.port not in self.dials and effect.peer not in self.links:
                self.dials[effect.port] = self.world.now
        elif isinstance(effect, Unlink):
            self.links.pop(effect.peer, None)
            self.world.nodes[self.world.index_of[effect.peer]].subscribers.pop(self.index, None)
        else:
            self.links[effect.peer] = effect.topic
            self.dials.pop(effect.port, None)
            self._subscribe(effect.peer)

    def _subscribe(self, peer: str) -> None:
        if peer not in self.links:
            return
        self.world.send(self.index, self.world.index_of[peer], "subscribe", (self.index, self.links[peer]))

    def _ask(self, sync: SyncWanted) -> None:
        if sync.peer in self.links:
            self.world.send(self.index, self.world.index_of[sync.peer], "sync", (self.index, sync))

    # --- meeting

    def _tick(self, leaving: list[Callable[[], None]]) -> None:
        """What `node.peers` does once in a while: dial, greet, reconnect."""
        assert self.state is not None
        now, world, peers = self.world.now, self.world, self.state.mesh.peers
        for index in world.fixed[self.index]:
            if world.plan.names[index] not in self.links:
                self.dials.setdefault(index, now)
        for index, since in list(self.dials.items()):
            leaving.append(lambda index=index: self._greet(index))
            if index not in world.fixed[self.index] and now - since > _FORGET_DIAL_AFTER:
                del self.dials[index]
        for name, topic in self.links.items():
            index, peer = world.index_of[name], peers.get(name)
            if peer is None or peer.beat is None or self.name not in peer.beat.sees:
                leaving.append(lambda index=index: self._greet(index))
            # A SUB reconnects by itself, and subscribes again.
            if world.nodes[index].subscribers.get(self.index) != topic:
                leaving.append(lambda name=name: self._subscribe(name))

    def _greet(self, index: int) -> None:
        if self.state is not None:
            self.world.send(self.index, index, "hello", (self.index, self.name, self.state.incarnation, True))

    def _on_hello(self, state: NodeState, what: Any, leaving: list[Callable[[], None]]) -> None:
        index, name, incarnation, answer = what
        try:
            state.on_met(name, incarnation, name, index, index)
        except InvalidRequest:
            return  # as in the shell: the other side is told, and tries again
        if answer:
            reply = (self.index, self.name, state.incarnation, False)
            leaving.append(lambda: self.world.send(self.index, index, "hello", reply))

    def _on_subscribe(self, state: NodeState, what: Any, _: Any) -> None:
        index, topic = what
        if self.subscribers.get(index) == topic:
            return
        self.subscribers[index] = topic
        state.wanted_topics = set(self.subscribers.values())
        state.on_subscribed()

    def _on_sync(self, state: NodeState, what: Any, leaving: list[Callable[[], None]]) -> None:
        index, sync = what
        snapshot = state.sync(sync.incarnation, sync.since, sync.origin, self.world.plan.sync_limit)
        leaving.append(lambda: self.world.send(self.index, index, "snapshot", snapshot))

    def _on_executor_gone(self, state: NodeState, executor: Any, _: Any) -> None:
        if executor is self.executor:
            state.on_executor_gone()
            self.world.after(0.1, self._restart_executor, self.life)

    def _restart_executor(self, life: int) -> None:
        if life == self.life and self.state is not None and self._stopping_at is None:
            self._start_executor()


_HANDLERS: dict[str, Callable[[SimNode, NodeState, Any, list[Callable[[], None]]], None]] = {
    "update": lambda node, state, update, _: state.on_update(update),
    "snapshot": lambda node, state, snapshot, _: state.on_snapshot(snapshot),
    "executor": lambda node, state, events, _: state.on_executor(events),
    "stop": lambda node, state, what, _: state.stop(),
    "executor_gone": SimNode._on_executor_gone,
    "hello": SimNode._on_hello,
    "subscribe": SimNode._on_subscribe,
    "sync": SimNode._on_sync,
}
