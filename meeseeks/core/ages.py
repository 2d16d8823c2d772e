"""How old the jobs of a table are: which ended ones may be forgotten, and which live ones may have been, elsewhere."""

from __future__ import annotations

import math
from collections import OrderedDict

from .lifecycle import may_expire
from .record import Record

__all__ = ["Ages"]

_BUCKET_S = 600
"""Seconds that one bucket of live jobs stands for."""


class Ages:
    """Each job of a table is in one of both: `ended` by the time of its last change (wall), or `live`, in buckets."""

    def __init__(self) -> None:
        self.ended: OrderedDict[str, float] = OrderedDict()
        """In the order of their times."""
        self.live: dict[int, dict[str, None]] = {}
        """By the earliest time that a node may take a record to be from."""
        self._bucket_of: dict[str, int] = {}

    def note(self, record: Record, at: float) -> None:
        """A job is new or has changed; `at` is when, if it has ended."""
        jid = record.spec.id
        self.ended.pop(jid, None)
        if may_expire(record):
            self.ended[jid] = at
            self._leave(jid)
            return
        earliest, claimed = record.spec.ts, record.status.claim_ts
        if claimed is not None and claimed < earliest:
            earliest = claimed
        bucket = int(earliest // _BUCKET_S)
        if self._bucket_of.get(jid) != bucket:
            self._leave(jid)
            self._bucket_of[jid] = bucket
            self.live.setdefault(bucket, {})[jid] = None

    def forget(self, jid: str) -> None:
        """A job is no longer in the table."""
        self.ended.pop(jid, None)
        self._leave(jid)

    def live_since(self, before: float) -> list[str]:
        """The live jobs that were written or claimed before that wall time.

        None is left out; some of the `_BUCKET_S` after it may be among them.
        """
        return [jid for bucket, jids in self.live.items() if bucket * _BUCKET_S <= before for jid in jids]

    def expired(self, before: float, limit: int, now: float = math.inf) -> list[str]:
        """Up to `limit` ids of ended jobs whose last change came before that wall time.

        A change that came later than `now` was dated by a clock that was ahead: it counts as one of this moment, or
        nothing behind it would expire before that date.
        """
        found: list[str] = []
        ahead: list[str] = []
        for jid, at in self.ended.items():
            if len(found) + len(ahead) >= limit or before <= at <= now:
                break
            (ahead if at > now else found).append(jid)
        for jid in ahead:
            self.postpone(jid, now)
        return found

    def postpone(self, jid: str, now: float) -> None:
        """Let an ended job count as one whose last change came just now, for its expiry."""
        self.ended.pop(jid)
        self.ended[jid] = now

    def _leave(self, jid: str) -> None:
        bucket = self._bucket_of.pop(jid, None)
        if bucket is None:
            return
        jids = self.live[bucket]
        del jids[jid]
        if not jids:
            del self.live[bucket]
