"""The table with what a turn needs around it: the time, the writer's name, and what changed and by whom.

It is what the roles of a node (`owner`, `submitter`, `requests`) share; every write of any of them goes through it.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable
from itertools import count
from typing import Any

import msgspec

from .lifecycle import Event, advance, is_resubmitted, may_expire
from .placement import Loads
from .record import COUNT_MAX, END_STATES, MERGE_BY_MAX, Record, Spec, Status
from .settings import Settings
from .table import Table

__all__ = ["Ledger"]

_TO_HEAR_S = 60.0
"""Seconds within which a node that hears this one has heard of an end as well."""
_CONFIRMED_BEATS = 3
"""Heartbeats within which a node confirms that it hears this one, where all is well."""
_KEPT_MAX = 30
"""For so many times `state.expire` a job is kept for a submit node that is away."""
_LEAP_S = 60.0
_TO_PUT_RIGHT_S = 3600.0
"""Seconds for which a wall clock that has leapt ahead is not believed, or `state.expire` if that is less."""

_PLAUSIBLE = COUNT_MAX // 2
"""No mesh makes so many changes. The other half is for what it makes after somebody has forged this very number."""


class Ledger:
    """One node's table and clocks. `now` is monotonic and decides; `wall` is for people."""

    def __init__(self, settings: Settings, now: float, wall: float) -> None:
        self.settings = settings
        self.table = Table()
        self.loads = Loads()
        self.now = now
        self.wall = wall
        self._expires_from = now
        self.lamport = 0
        self.changed: dict[str, bool] = {}
        """Jobs changed this turn; True where this node made the change."""
        self.ended: dict[str, Record] = {}
        """Jobs that came to their end on this node this turn."""
        self.dirty: OrderedDict[str, None] = OrderedDict()
        """Jobs to look at before the turn ends."""
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._timer_number = count()
        self._before: dict[str, tuple[Record | None, bool | None]] | None = None

    @property
    def name(self) -> str:
        """This node's name."""
        return self.settings.name

    def begin(self, now: float, wall: float) -> None:
        """A turn begins. A wall clock that leaps ahead may be put right again: nothing expires by it for now."""
        if (wall - self.wall) - (now - self.now) > _LEAP_S:
            self._expires_from = now + min(self.settings.expire, _TO_PUT_RIGHT_S)
        self.now, self.wall = now, wall

    # --- writing

    def merge(self, record: Record) -> bool:
        """Take in what another node wrote. True if it said something new."""
        self._hear(record.spec.lamport)
        return self._apply(record, own=False)

    def tell_again(self, jid: str) -> None:
        """Let a job count as changed by this node, so that all hear of it who may not have heard it from another."""
        if jid in self.table:
            self.table.touch(jid)
            self.changed[jid] = True

    def restore(self, record: Record, seq: int) -> None:
        """Take over what an earlier life of this node stored. It is no change; if it is not over, it wants a look."""
        self._hear(record.spec.lamport)
        self.table.restore(record, seq)
        self.loads.note(None, record)
        is_over = record.status.state in END_STATES and record.spec.generation <= record.status.generation
        if not is_over or is_resubmitted(record):
            self.dirty[record.spec.id] = None

    def watch(self) -> None:
        """From now on remember what is changed, until `unwatch`."""
        self._before = {}

    def unwatch(self) -> dict[str, tuple[Record | None, bool | None]]:
        """The jobs that were changed since `watch`; `undo` takes them."""
        before, self._before = self._before or {}, None
        return before

    def undo(self, watched: dict[str, tuple[Record | None, bool | None]]) -> None:
        """Let it be as it was before these changes, of which nobody was told. In the turn in which they were made."""
        for jid, (before, was_own) in watched.items():
            self.loads.note(self.table.get(jid), before)
            self.table.put_back(jid, before)
            if was_own is None:
                del self.changed[jid]
            else:
                self.changed[jid] = was_own

    def advance(self, record: Record, event: Event, **facts: Any) -> Record:
        """Write the status after an event, and return the record as it is then."""
        after = self._write(Record(record.spec, advance(record, event, self.wall, **facts)))
        if after.status.state in END_STATES:
            self.ended[record.spec.id] = after
        return after

    def create(self, spec: Spec, status: Status) -> Record:
        """Write a new job."""
        return self._write(Record(spec, status))

    def change_spec(self, record: Record, **changes: Any) -> Record:
        """Write changed fields of a spec as this node, later than anything that it has seen.

        What merges by itself is no new edit: with a number of its own it would undo an edit that was not heard here.
        """
        spec = msgspec.structs.replace(record.spec, ts=max(self.wall, record.spec.ts, record.status.ts), **changes)
        if not MERGE_BY_MAX.issuperset(changes):
            self.lamport += 1
            lamport = min(max(self.lamport, record.spec.lamport + 1), COUNT_MAX)
            spec = msgspec.structs.replace(spec, lamport=lamport, writer=self.name)
        return self._write(Record(spec, record.status))

    def forget(self, jid: str) -> None:
        """An ended job has expired."""
        self.loads.note(self.table.get(jid), None)
        self.table.forget(jid)
        self.changed.pop(jid, None)

    def _hear(self, lamport: int) -> None:
        """Count on from what others have counted; not from a number that was forged: nobody would take the next one."""
        if lamport <= _PLAUSIBLE:
            self.lamport = max(self.lamport, lamport)

    def _write(self, record: Record) -> Record:
        self._apply(record, own=True)
        after = self.table.get(record.spec.id)
        assert after is not None
        return after

    def _apply(self, record: Record, *, own: bool) -> bool:
        change = self.table.apply(record, self.wall)
        if change is None:
            return False
        jid = record.spec.id
        if self._before is not None and jid not in self._before:
            self._before[jid] = (change.before, self.changed.get(jid))
        self.changed[jid] = own or self.changed.get(jid, False)
        self.dirty[jid] = None
        self.loads.note(change.before, change.after)
        return True

    # --- timers

    def after(self, delay: float, call: Callable[[], None]) -> None:
        """Call back so many seconds from now."""
        heapq.heappush(self._timers, (self.now + delay, next(self._timer_number), call))

    def run_timers(self) -> None:
        """Make the calls that are due."""
        while self._timers and self._timers[0][0] <= self.now:
            heapq.heappop(self._timers)[2]()

    @property
    def next_timer_at(self) -> float | None:
        """When the next call is due."""
        return self._timers[0][0] if self._timers else None

    # --- expiry

    def expire(self, limit: int, unheard_by: Callable[[str], float]) -> tuple[list[str], int]:
        """Forget jobs that ended long enough ago. Returns which, and how many of the `limit` are kept once more.

        A job is kept whose submit node has not heard this one since it ended (`unheard_by` says for how long, as far
        as is known): it would take the job for live, and ask for it. But not for ever, since nodes may go for good.
        To hear it is not enough, where a link works in one direction only.
        """
        if self.now < self._expires_from:
            return [], 0
        age, gone = self.settings.expire, []
        lately = max(age - min(_TO_HEAR_S, age / 2), _CONFIRMED_BEATS * self.settings.heartbeat)
        found = self.table.ages.expired(self.wall - age, limit, self.wall)
        for jid in found:
            record = self.table.get(jid)
            assert record is not None
            home, ended_at = record.spec.submit_node, max(record.spec.ts, record.status.ts)
            may_not_know = home != self.name and unheard_by(home) > lately
            if may_not_know and ended_at > self.wall - _KEPT_MAX * age:
                self.table.ages.postpone(jid, self.wall)
            else:
                self.forget(jid)
                gone.append(jid)
        return gone, len(found) - len(gone)

    def is_stale(self, record: Record) -> bool:
        """Whether a record that is not in the table ended so long ago that it has expired here."""
        return record.spec.id not in self.table and may_expire(record) and self.is_old(record)

    def is_old(self, record: Record) -> bool:
        """Whether it was changed last so long ago that it would have expired, if it had ended then."""
        return max(record.spec.ts, record.status.ts) < self.wall - self.settings.expire
