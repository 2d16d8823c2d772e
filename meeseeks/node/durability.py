"""What of a turn must be on disk before anything of it leaves the node, and what is refused while that is impossible.

The requests of a turn are stored first, in a commit of their own: if that fails, they are undone, nobody has been told
of them, and their askers hear why. All else that a turn changes is stored before its broadcasts and orders go out; what
can't be stored, for want of room, is kept in memory, and the executor keeps the ends until they are on disk.

With `state.sync=memory` there is no store, and nothing in here does anything.
"""

from __future__ import annotations

import uuid

from meeseeks.config import NodeConfig
from meeseeks.core.effects import Ack, Effects, Kill, Order, Start
from meeseeks.core.node_state import NodeState
from meeseeks.errors import RequestFailed
from meeseeks.executor.spool import Spool
from meeseeks.wire.messages import ErrorInfo, Reply

from .folder import StateFolder
from .store import STORE_NAME, Row, Store

__all__ = ["Durability"]

_STORED = frozenset(("submit", "submit_many", "kill", "adopt"))
"""Requests whose answer says that something is on disk."""

_TELLS = _STORED | {"query", "ls", "sync", "output", "follow", "input"}
"""Requests whose answer may know of what others have asked for in the same turn."""

Answer = tuple[list[bytes], Reply]


class Durability:
    """The node's store, or none."""

    def __init__(self, config: NodeConfig, folder: StateFolder) -> None:
        """Open the store. ConfigError, in one sentence, where it can't be used."""
        self._name = config.name
        self._store: Store | None = None
        self.incarnation, self.boot = uuid.uuid4().hex, 0
        self._held: list[Order] = []
        self._promised = range(0)  # the answers of this turn that wait for `settle`
        if config.state.sync != "memory":
            self._store = Store(folder.path / STORE_NAME, config.state.sync)
            self.incarnation, self.boot = self._store.incarnation, self._store.boot

    @property
    def outlives(self) -> bool:
        """Whether jobs may go on while no node is there: the next one knows them by its store."""
        return self._store is not None

    @property
    def trouble(self) -> str | None:
        """Why nothing can be stored just now."""
        return self._store.trouble if self._store is not None else None

    def restore(self, state: NodeState, spool: Spool) -> None:
        """Hand the jobs of an earlier life to the core, and delete captured output that belongs to none of them.

        Not that of jobs that the store does not know any more: it is all that is left of them.
        """
        if self._store is None:
            return
        if self._store.boot or self._store.rows:
            state.restore(self._store.rows, self._store.seq)
        self._store.rows = []
        self._store.begin(state.table.seq)
        if self._store.is_whole:
            spool.prune(record.spec.id for record in state.table)

    # --- requests

    def check(self, kind: str) -> None:
        """RequestFailed where a request would have to be stored, and can't be."""
        if self.trouble is not None and kind in _STORED:
            raise RequestFailed(self._refusal())

    def watch(self, state: NodeState) -> None:
        """The requests of this turn begin."""
        if self._store is not None:
            state.ledger.watch()

    def save_asked(self, state: NodeState, replies: list[Answer], first: int) -> None:
        """They are all read; their replies stand in `replies` from number `first` on. Store what they changed.

        If that fails it is undone, and whoever was to hear of it hears why instead: a peer would keep what it is told.
        """
        if self._store is None:
            return
        watched = state.ledger.unwatch()
        rows: list[Row] = [
            (state.table.seq_of(jid), record) for jid in watched if (record := state.table.get(jid)) is not None
        ]
        asked = range(first, len(replies))
        if not rows or self._store.save_asked(rows, state.table.seq, state.ledger.now):
            self._promised = asked
            return
        state.ledger.undo(watched)
        _refuse(replies, asked, _TELLS, self._refusal())

    def settle(self, replies: list[Answer], now: float) -> None:
        """The orders of the turn are out; its answers are not. Now force to the disk what they promise."""
        promised, self._promised = self._promised, range(0)
        if self._store is not None and not self._store.settle(now):
            text = f"node {self._name!r} can't force jobs to the disk: {self._store.trouble}; "
            _refuse(replies, promised, _STORED, f"{text}the request was carried out, but a power cut may undo it")

    # --- the rest of a turn

    def save(self, state: NodeState, effects: Effects) -> None:
        """Store what the turn changed, before anything of it leaves."""
        if self._store is None or not (effects.records or state.expired):
            return
        rows = [(state.table.seq_of(record.spec.id), record) for record in effects.records]
        self._store.save(rows, state.expired, state.table.seq, state.ledger.now)

    def release(self, orders: list[Order]) -> list[Order]:
        """The orders that may go out. What starts, and what the executor may forget, has to be on disk."""
        if self._store is None:
            return orders
        if self._store.trouble is None:
            held, self._held = self._held, []
            return [*held, *orders]
        waiting = {order.key for order in self._held if isinstance(order, Start)}
        released: list[Order] = []
        for order in orders:
            if isinstance(order, Start):
                waiting.add(order.key)
            # A kill must not overtake the start that it is about.
            elif not isinstance(order, Ack) and not (isinstance(order, Kill) and order.key in waiting):
                released.append(order)
                continue
            self._held.append(order)
        return released

    def executor_died(self) -> None:
        """What it was to be told is void."""
        self._held.clear()

    def tick(self, now: float) -> None:
        """A few times a second: force what is due to the disk, and try again what failed."""
        if self._store is not None:
            self._store.tick(now)

    def close(self) -> None:
        """Store the rest, and close."""
        if self._store is not None:
            self._store.close()

    def _refusal(self) -> str:
        assert self._store is not None
        return (
            f"node {self._name!r} can't store jobs: {self._store.trouble} ({self._store.path}); nothing was changed: "
            "ask another node, or again when that is mended"
        )


def _refuse(replies: list[Answer], which: range, kinds: frozenset[str], text: str) -> None:
    """Replace the answers of these kinds by an error."""
    for at in which:
        envelope, reply = replies[at]
        if reply.response is not None and not kinds.isdisjoint(reply.response):
            replies[at] = envelope, Reply(id=reply.id, node=reply.node, error=ErrorInfo(RequestFailed.code, text))
