"""`follow`: one question in place of many for whoever shows a job live, answered when there is something to tell.

A question that has to wait is asked again whenever the job's record has changed, and a few times a second of its files,
which nobody reports of. It waits at the node that has the files; those on the way only wait for that one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from meeseeks.core.node_state import NodeState
from meeseeks.core.record import Record, jobinfo
from meeseeks.errors import InvalidRequest, MeeseeksError, RequestFailed
from meeseeks.wire.messages import Followed, FollowWanted

from .output import OutputReader, has_ended, run_of
from .relay import ANSWER_WITHIN, Relay

__all__ = ["Follows"]

_PIECE = 1024 * 1024
_WAIT_MAX = 10.0
_LOOK_FIRST, _LOOK_LAST = 0.005, 0.05
"""Seconds between two looks at a job's files: soon after it wrote something, and later."""
_LOOKS_A_SECOND = 4000
"""Of all questions together: where many wait, each is looked at less often, but as soon as ever if its job changes."""
_LOOK_WITHIN = 0.02
"""Seconds for the looks of one turn: the others of the node want their answers as well."""
_HELD_MAX = 5000
"""Questions that may wait here at once. Each costs a look now and then, and a key that may only read can ask them."""

Done = Callable[[Followed | Exception], None]


class _Held(NamedTuple):
    """A question that waits: until when, for what, and what was known when it was last asked."""

    wanted: FollowWanted
    done: Done
    until: float
    record: Record
    look_at: float
    pause: float


class Follows:
    """All questions that wait here. It belongs to the node's loop, which calls `look` each turn and by `look_at`."""

    def __init__(self, state: NodeState, relay: Relay, output: OutputReader) -> None:
        self._state = state
        self._relay = relay
        self._output = output
        self._held: list[_Held] = []

    def ask(self, wanted: FollowWanted, done: Done) -> None:
        """What is new of a job. `done` is called once: at once, or later."""
        if min(wanted.stdout, wanted.stderr) < 0 or wanted.limit < 1 or not 0 <= wanted.wait <= _WAIT_MAX:
            raise InvalidRequest(f"offsets must be 0 or more, limit 1 or more, and wait 0 to {_WAIT_MAX:g} seconds")
        wanted = msgspec.structs.replace(wanted, limit=min(wanted.limit, _PIECE))
        now = self._state.ledger.now
        record = self._try(wanted, done, last=not wanted.wait)
        if record is not None:
            if len(self._held) >= _HELD_MAX:
                raise RequestFailed(
                    f"{_HELD_MAX} others wait for news of jobs at node {self._state.settings.name!r}: ask again later"
                )
            until = now + wanted.wait
            self._held.append(_Held(wanted, done, until, record, min(until, now + _LOOK_FIRST), _LOOK_FIRST))

    @property
    def look_at(self) -> float:
        """When to call `look` at the latest."""
        return min((held.look_at for held in self._held), default=math.inf)

    def look(self, now: float) -> None:
        """Ask again what may have an answer now."""
        if not self._held:
            return
        waiting, self._held = self._held, []
        slowest, stop_at = max(_LOOK_LAST, len(waiting) / _LOOKS_A_SECOND), time.monotonic() + _LOOK_WITHIN
        for at, held in enumerate(waiting):
            if time.monotonic() > stop_at:
                self._held = waiting[at:] + self._held  # first, when it goes on
                return
            is_changed = self._state.table.get(held.wanted.id) is not held.record
            if not is_changed and now < held.look_at:
                self._held.append(held)
                continue
            try:
                record = self._try(held.wanted, held.done, last=now >= held.until)
            except MeeseeksError as error:
                held.done(error)
                continue
            if record is not None:
                pause = max(min(_LOOK_LAST, held.pause * 1.3), slowest if slowest > _LOOK_LAST else 0.0)
                look_at = min(held.until, now + pause)
                self._held.append(held._replace(record=record, look_at=look_at, pause=pause))

    def _try(self, wanted: FollowWanted, done: Done, *, last: bool) -> Record | None:
        """Answer, or pass on, and return None; or return the record as it is, if there is nothing new (yet)."""
        record = self._state.table.get(wanted.id)
        if record is None:
            raise InvalidRequest(f"no job has id {wanted.id!r}")
        at = {self._output.where(record, stream) for stream in ("stdout", "stderr")} - {None}
        elsewhere = next(iter(at - {self._state.settings.name}), None)
        if elsewhere is not None:
            further = msgspec.structs.replace(wanted, hops=wanted.hops + 1)
            within = wanted.wait + ANSWER_WITHIN
            self._relay.pass_on(elsewhere, ("follow", further), further.hops, Followed, done, within)
            return None
        answer, is_news = self._answer(record, wanted)
        if not (is_news or last):
            return record
        done(answer)
        return None

    def _answer(self, record: Record, wanted: FollowWanted) -> tuple[Followed, bool]:
        run, ended = run_of(record), has_ended(record)
        is_new_run = run != wanted.run
        pieces = {}
        for stream, known in (("stdout", wanted.stdout), ("stderr", wanted.stderr)):
            offset = 0 if is_new_run else known
            pieces[stream], size = self._output.piece(record, stream, offset, wanted.limit)
            ended = ended and offset + len(pieces[stream]) >= size
        info = jobinfo(record, self._state.table.seq_of(wanted.id)) if ended else {}
        answer = Followed(id=wanted.id, run=run, ended=ended, info=info, **pieces)
        return answer, is_new_run or ended or any(pieces.values())
