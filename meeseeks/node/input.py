"""A job's stdin, piece by piece from a request to the task's pipe, which the executor of the job's node holds.

Where the job is elsewhere, a piece is passed on to the next node on the way there, as output is on its way back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import count

import msgspec

from meeseeks.core.effects import TaskKey
from meeseeks.core.node_state import NodeState
from meeseeks.core.record import RUNNING
from meeseeks.errors import InvalidRequest, RequestFailed
from meeseeks.executor.handle import ExecutorHandle
from meeseeks.executor.inputs import PIPED
from meeseeks.wire.messages import MAX_INPUT_BYTES, Fed, Feed, InputPiece, InputTaken, Run

from .output import has_ended, run_of
from .relay import ANSWER_WITHIN, Relay

__all__ = ["InputWriter"]

_HELD_MAX = 8 * 1024 * 1024
"""Bytes of all pieces that wait for an answer. Whoever is told to ask again does so: `mks run` within half a second."""

Done = Callable[[InputTaken | Exception], None]


class InputWriter:
    """Gives jobs their input. `done` is called once: at once, or when the executor or another node has answered."""

    def __init__(self, state: NodeState, relay: Relay, executor: ExecutorHandle) -> None:
        self._state = state
        self._relay = relay
        self._executor = executor
        # Not from 1: answers to the node before us may still come, from an executor that outlived it.
        self._numbers = count(time.monotonic_ns())
        self._waiting: dict[int, tuple[float, str, Run, Done]] = {}
        self._held = 0  # bytes of pieces that are not answered yet

    def write(self, piece: InputPiece, done: Done) -> None:
        """Give the job a piece, or find out how much it has been given. RequestFailed if too much is on its way."""
        record = self._state.table.get(piece.id)
        if record is None:
            raise InvalidRequest(f"no job has id {piece.id!r}")
        if record.spec.stdin != PIPED:
            raise InvalidRequest(f"job {piece.id!r} takes no input: only one with stdin {PIPED!r} does")
        if piece.offset < 0 or len(piece.data) > MAX_INPUT_BYTES:
            raise InvalidRequest(f"offset must be 0 or more, and data {MAX_INPUT_BYTES} bytes at most")
        if piece.run is None and (piece.data or piece.eof or piece.offset):
            raise InvalidRequest("run must be given where there is data, an offset or an eof")
        run, status = run_of(record), record.status
        if has_ended(record) and status.state != "new":
            done(InputTaken(id=piece.id, run=run, taken=piece.offset, open=False))
        elif run is None or status.state != RUNNING:
            done(InputTaken(id=piece.id))
        elif status.node != self._state.settings.name:
            assert status.node is not None
            further = msgspec.structs.replace(piece, hops=piece.hops + 1)
            self._check_room(piece)
            holding = self._holding(piece, done)
            try:
                self._relay.pass_on(status.node, ("input", further), further.hops, InputTaken, holding)
            except RequestFailed:
                self._held -= len(piece.data)
                raise
        elif piece.run is not None and piece.run != run:
            done(InputTaken(id=piece.id, run=run, open=False))
        else:
            key = TaskKey(piece.id, status.generation, status.epoch, status.start_count)
            number = next(self._numbers)
            self._check_room(piece)
            deadline = self._state.ledger.now + ANSWER_WITHIN
            self._waiting[number] = (deadline, piece.id, run, self._holding(piece, done))
            feed = Feed(key=key, number=number, offset=piece.offset, data=piece.data, eof=piece.eof)
            self._executor.send([feed])

    def on_fed(self, answers: Sequence[Fed]) -> None:
        """The executor has answered."""
        for fed in answers:
            if fed.number in self._waiting:
                _, jid, run, done = self._waiting.pop(fed.number)
                done(InputTaken(id=jid, run=run, taken=fed.taken, open=fed.open))

    def tick(self, now: float) -> None:
        """Give up on those whom an executor that died does not answer."""
        for number, (deadline, jid, _, done) in list(self._waiting.items()):
            if deadline <= now:
                del self._waiting[number]
                done(RequestFailed(f"the executor does not answer about the input of job {jid!r}"))

    def _check_room(self, piece: InputPiece) -> None:
        if self._held and self._held + len(piece.data) > _HELD_MAX:
            raise RequestFailed(
                f"node {self._state.settings.name!r} has {self._held} bytes of input on their way: ask again later"
            )

    def _holding(self, piece: InputPiece, done: Done) -> Done:
        """`done`, which lets go of the room that this piece takes until then."""
        size = len(piece.data)
        self._held += size

        def answered(result: InputTaken | Exception) -> None:
            self._held -= size
            done(result)

        return answered
