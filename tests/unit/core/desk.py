"""A node's core on a desk: turns by hand, an executor that does what the test says, a clock that the test moves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from meeseeks.core.effects import Adopted, Beat, Effects, Event, Exited, Kill, PoolStatus, Start, Started, Update
from meeseeks.core.node_state import NodeState
from meeseeks.core.record import Record
from meeseeks.core.settings import PoolSettings, Settings

__all__ = ["Desk"]


class Desk:
    """One NodeState named `a` with a pool `p`; peers are spoken for by `hear`."""

    def __init__(self, name: str = "a", **settings: Any) -> None:
        settings.setdefault("pools", {"p": PoolSettings(slots=2)})
        self.now, self.wall = 1000.0, 5000.0
        told = Settings(name=name, timeout=15.0, lost_after=60.0, **settings)
        self.state = NodeState(told, "life", self.now, self.wall)
        self.effects = Effects()
        self.orders: list[Any] = []
        self._numbers: dict[str, int] = {}
        self.turn(lambda: self.state.on_executor([Adopted()]))

    def turn(self, call: Callable[[], Any] | None = None, after: float = 0.001) -> Any:
        """A turn in which one thing happens; its effects are kept, orders pile up."""
        self.now += after
        self.wall += after
        self.state.begin(self.now, self.wall)
        result = call() if call is not None else None
        self.effects = self.state.finish()
        self.orders += self.effects.orders
        return result

    def settle(self) -> None:
        """The turns that follow at once, where there is more to look at than one has time for."""
        while self.state.next_turn_at <= self.now:
            self.turn()

    def wait(self, seconds: float) -> None:
        """Let time pass, a turn each heartbeat."""
        end = self.now + seconds
        while self.now < end:
            self.turn(after=min(1.0, end - self.now))

    def submit(self, **spec: Any) -> dict[str, Any]:
        """Submit or change a job in a turn of its own; its jobinfo after that turn."""
        spec = {"pool": "p", "args": ["true"], **spec} if spec.get("id") not in self.state.table else spec
        infos = self.turn(lambda: self.state.requests.submit(spec))
        return self.info(next(iter(infos)))

    def kill(self, jid: str) -> Any:
        """Kill a job."""
        return self.turn(lambda: self.state.requests.kill(jid))

    def info(self, jid: str) -> dict[str, Any]:
        """What a client sees now."""
        return self.state.table.info(jid)

    def record(self, jid: str) -> Record:
        """The record."""
        record = self.state.table.get(jid)
        assert record is not None
        return record

    def events(self, *events: Event) -> None:
        """The executor tells something."""
        self.turn(lambda: self.state.on_executor(list(events)))

    def starts(self) -> list[Start]:
        """The orders to start that came since the last look."""
        found = [order for order in self.orders if isinstance(order, Start)]
        self.orders = [order for order in self.orders if not isinstance(order, Start)]
        return found

    def kills(self) -> list[Kill]:
        """The orders to kill that came since the last look."""
        found = [order for order in self.orders if isinstance(order, Kill)]
        self.orders = [order for order in self.orders if not isinstance(order, Kill)]
        return found

    def run(self, start: Start) -> None:
        """The process runs."""
        self.events(Started(start.key, 42, self.wall))

    def end(self, start: Start, rc: int | None = 0, error: str | None = None) -> None:
        """The process is gone."""
        self.events(Exited(key=start.key, rc=rc, error=error, start_ts=self.wall, end_ts=self.wall))

    def meet(self, *names: str) -> None:
        """Peers that are linked, in step, and have a pool `p`."""
        for name in names:
            self.turn(lambda name=name: self.state.on_met(name, f"life-{name}", "host", 1, 2))
            self.hear(name)

    def hear(self, name: str, records: list[Record] | None = None, *, ack: bool = True, **beat: Any) -> None:
        """A broadcast of a peer, in step with what was heard of it before."""
        peer = self.state.mesh.peers[name]
        peer.synced = True
        number = self._numbers[name] = self._numbers.get(name, 0) + 1
        acks = {self.state.settings.name: ("life", self.state.mesh.number)} if ack else {}
        beat.setdefault("pools", {"p": PoolStatus(slots=2)})
        told = Beat(
            node=name, incarnation=f"life-{name}", number=number, acks=acks, timeout=15.0, lost_after=60.0, **beat
        )
        update = Update(
            node=name,
            incarnation=f"life-{name}",
            topic=peer.topic,
            prev=peer.applied,
            seq=peer.applied + len(records or []),
            records=records or [],
            beats=[told],
        )
        self.turn(lambda: self.state.on_update(update))
