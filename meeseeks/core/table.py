"""The job table of a node: all records, what changed since a seq, filters, and what has been over for long enough.

Every lookup that the node makes by itself is indexed, so that an event costs what it changes, however many jobs
there are; `ages` has them by age. A filter of a client uses the index of its most selective key (id, tag, state,
pool, node) and reads on from there; any other key is compared job by job.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from meeseeks.errors import InvalidRequest

from .ages import Ages
from .log import Log
from .record import Record, Spec, Status, jobinfo, merge, view_state

__all__ = ["Change", "Table"]

_INDEXED = ("tag", "state", "pool", "node")
_AS_IN_SPEC = frozenset(
    ("id", "pool", "submit_node", "hold", "restart", "retries", "resubmit", "submit_ts", "generation")
)
"""Keys that a jobinfo has as the spec has them: to make the whole jobinfo takes ten times as long."""


class Change(NamedTuple):
    """A record before (None: it is new) and after a write."""

    before: Record | None
    after: Record


class Table:
    """Records by id. `seq` counts the changes that this table has seen; `apply` is the only way in."""

    def __init__(self, seq: int = 0) -> None:
        self.seq = seq
        self._records: dict[str, Record] = {}
        self._seqs: dict[str, int] = {}
        self._log = Log()
        self._index: dict[str, dict[str, dict[str, None]]] = {key: {} for key in _INDEXED}
        self._groups: dict[str, list[str]] = {}
        self.ages = Ages()

    def __len__(self) -> int:
        return len(self._records)

    def __contains__(self, jid: object) -> bool:
        return jid in self._records

    def __iter__(self) -> Iterator[Record]:
        return iter(self._records.values())

    def get(self, jid: str) -> Record | None:
        """The record of a job, or None."""
        return self._records.get(jid)

    def group(self, gid: str) -> list[str]:
        """The ids of the jobs that one submit for several nodes made."""
        return self._groups.get(gid, [])

    def info(self, jid: str) -> dict[str, Any]:
        """The jobinfo of a job that is there."""
        return jobinfo(self._records[jid], self._seqs[jid])

    def apply(self, incoming: Record, now: float) -> Change | None:
        """Merge a record in; None if it says nothing new. `now` (wall time) only serves `expire`."""
        jid = incoming.spec.id
        before = self._records.get(jid)
        after = incoming if before is None else merge(before, incoming)
        if after is before:
            return None
        self._records[jid] = after
        self.touch(jid)
        self._reindex(before, after)
        self.ages.note(after, now)
        return Change(before, after)

    def touch(self, jid: str) -> None:
        """Let a job count as changed now."""
        self.seq += 1
        self._log.move(jid, self._seqs.get(jid), self.seq)
        self._seqs[jid] = self.seq

    def restore(self, record: Record, seq: int) -> None:
        """Take a record over from an earlier life, with the seq that it had there. To be called in the order of seq."""
        jid = record.spec.id
        self.seq = max(self.seq, seq)
        self._records[jid] = record
        self._log.move(jid, self._seqs.get(jid), seq)
        self._seqs[jid] = seq
        self._reindex(None, record)
        self.ages.note(record, max(record.spec.ts, record.status.ts))

    def put_back(self, jid: str, before: Record | None) -> None:
        """Let a job be again what it was before a change of which nobody was told; None: it was not there."""
        if before is None:
            self.forget(jid)
            return
        self._reindex(self._records[jid], before)
        self._records[jid] = before
        self.ages.note(before, max(before.spec.ts, before.status.ts))

    def changes_since(self, seq: int, limit: int | None = None) -> tuple[list[Record], int]:
        """The records changed after `seq`, oldest change first, and the seq that they reach.

        With a `limit` it may stop early: the caller asks again from the seq that it got, until that is `self.seq`.
        """
        found: list[Record] = []
        for at, jid in self._log.after(seq):
            if limit is not None and len(found) >= limit:
                return found, at - 1
            found.append(self._records[jid])
        return found, self.seq

    def seq_of(self, jid: str) -> int:
        """The seq of a job's last change here."""
        return self._seqs[jid]

    def select(self, filters: dict[str, Any]) -> list[str]:
        """The ids of the jobs that match every filter; a value that ends in `*` matches by prefix.

        `tag` matches one of the tags; `id` may be a list. An unknown key is an InvalidRequest.
        """
        filters = {key: list(value) if isinstance(value, tuple) else value for key, value in filters.items()}
        candidates = self._candidates(filters)
        if not filters:
            return list(candidates)
        for key in filters:
            if key not in _FILTER_KEYS:
                raise InvalidRequest(f"filter {key!r} is not known; allowed are {', '.join(sorted(_FILTER_KEYS))}")
        return [jid for jid in candidates if self._matches(jid, filters)]

    def forget(self, jid: str) -> None:
        """Drop a job. It is no change: other tables drop theirs by their own `expire`."""
        record = self._records.pop(jid)
        self._log.drop(self._seqs.pop(jid))
        self.ages.forget(jid)
        self._reindex(record, None)

    def _reindex(self, before: Record | None, after: Record | None) -> None:
        old = _index_values(before) if before is not None else _NOWHERE
        new = _index_values(after) if after is not None else _NOWHERE
        for key, was, now in zip(_INDEXED, old, new, strict=True):
            if was == now:
                continue
            index, kept = self._index[key], set(now)
            for value in was:
                bucket = index.get(value)
                if bucket is not None and value not in kept and before is not None:
                    bucket.pop(before.spec.id, None)
                    if not bucket:
                        del index[value]
            for value in now:
                if after is not None:
                    index.setdefault(value, {})[after.spec.id] = None
        self._regroup(before, after)

    def _regroup(self, before: Record | None, after: Record | None) -> None:
        # A group may change: two nodes that did not hear each other may have made jobs of one id.
        was = before.spec.group if before is not None else None
        now = after.spec.group if after is not None else None
        if was == now:
            return
        if was is not None and before is not None:
            members = self._groups[was]
            members.remove(before.spec.id)
            if not members:
                del self._groups[was]
        if now is not None and after is not None:
            self._groups.setdefault(now, []).append(after.spec.id)

    def _candidates(self, filters: dict[str, Any]) -> Iterable[str]:
        """The jobs that the cheapest index leaves; what that index answers for good is taken out of `filters`."""
        ids = filters.get("id")
        if isinstance(ids, str) and not ids.endswith("*"):
            del filters["id"]
            return [ids] if ids in self._records else []
        if isinstance(ids, (list, tuple)):
            del filters["id"]
            return [jid for jid in dict.fromkeys(one for one in ids if isinstance(one, str)) if jid in self._records]
        best: tuple[int, str, list[dict[str, None]]] | None = None
        for key in _INDEXED:
            value = filters.get(key)
            if not isinstance(value, str) or (key == "node" and value.lower() == "none"):
                continue
            index = self._index[key]
            if value.endswith("*"):
                buckets = [index[name] for name in index if name.startswith(value[:-1])]
            else:
                buckets = [index[value]] if value in index else []
            size = sum(map(len, buckets))
            if best is None or size < best[0]:
                best = (size, key, buckets)
        if best is None:
            return list(self._records)
        del filters[best[1]]
        return list(dict.fromkeys(jid for bucket in best[2] for jid in bucket))

    def _matches(self, jid: str, filters: dict[str, Any]) -> bool:
        record, info = self._records[jid], None
        for key, wanted in filters.items():
            if key == "tag":
                if not any(_equal(tag, wanted) for tag in record.spec.tags):
                    return False
                continue
            if key in _AS_IN_SPEC:
                value = getattr(record.spec, key)
            else:
                info = info or jobinfo(record, self._seqs[jid])
                value = info[key]
            if not _equal(value, wanted):
                return False
        return True


def _equal(value: Any, wanted: Any) -> bool:
    """Whether a value is the wanted one. The shell only has text: `rc=1`, `hold=true` and `rc=none` match too."""
    if isinstance(wanted, str):
        if wanted.endswith("*"):
            return isinstance(value, str) and value.startswith(wanted[:-1])
        if value is None or isinstance(value, bool):
            return str(value).lower() == wanted.lower()
        if isinstance(value, (int, float)):
            return _number(wanted) == value
    return bool(value == wanted)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


_NOWHERE: tuple[tuple[str, ...], ...] = ((), (), (), ())


def _index_values(record: Record) -> tuple[tuple[str, ...], ...]:
    """The values of a record under each key of `_INDEXED`, as `jobinfo` would show them."""
    spec, status = record.spec, record.status
    node = (status.node if spec.generation == status.generation else None) or spec.node
    return (spec.tags, (view_state(record),), (spec.pool,), (node,) if node is not None else ())


def _filter_keys() -> frozenset[str]:
    sample = Record(Spec(id="", pool="", args=(), submit_node=""), Status(epoch=(0, "")))
    return frozenset(jobinfo(sample, 0)) | {"tag"}


_FILTER_KEYS = _filter_keys()
