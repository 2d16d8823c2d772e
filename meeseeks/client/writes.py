"""Writes to a cache that its node has not acknowledged yet, and what the cache shows meanwhile."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from meeseeks.core.lifecycle import is_over
from meeseeks.core.record import END_STATES, FAILED, KILLED, NEW, Record, Spec, Status, is_lost, view_state
from meeseeks.errors import InvalidRequest

from .settings import Place

__all__ = [
    "UNKNOWN",
    "Errand",
    "Outbox",
    "Write",
    "answered",
    "check_change",
    "is_final",
    "overlaid",
    "provisional",
    "refused",
]

UNKNOWN = "unknown"
"""The state of a job that nobody who can be asked knows of, and that a node which can't be asked may have."""

_STRAYS = 1000
"""Writes about which another node is asked at once."""

Errand = tuple[Place, bool]
"""A question to a node that the Client has left: whether it has its new jobs, or (True) its reruns."""

_serials = itertools.count(1)


class Write:
    """One submit or kill of one job on its way to the node. Guarded by the cache's lock, but for its constants."""

    __slots__ = (
        "alone",
        "asked",
        "changes",
        "fresh",
        "generation",
        "jid",
        "kind",
        "request",
        "sent_to",
        "seq",
        "serial",
    )

    def __init__(
        self, kind: str, jid: str, request: msgspec.Raw | None, changes: dict[str, Any], *, fresh: bool
    ) -> None:
        self.serial = next(_serials)
        self.kind = kind
        self.jid = jid
        self.request = request
        """The jobspec, ready to be sent; None for a kill."""
        self.changes = changes
        self.fresh = fresh
        """The job is made by this write."""
        self.generation: int | None = None
        """For `state='new'`: the generation that is over. Once a later one is seen, the write was carried out."""
        self.sent_to: Place | None = None
        """The node that may have it already: what must happen once may go to no other."""
        self.asked = False
        self.alone = False
        """It was refused together with others: ask again by itself, to know which of them is wrong."""
        self.seq: int | None = None
        """Acknowledged: its effect is in the cache once the node's changes up to this seq are."""

    @property
    def happens_once(self) -> bool:
        """Whether two nodes that accept it would do it twice: a new job, a rerun. A kill and a change merge."""
        return self.fresh or self.generation is not None


class Outbox:
    """The writes that are not settled, in the order in which they were made. Guarded by the cache's lock."""

    def __init__(self) -> None:
        self._writes: dict[int, Write] = {}
        self._of_job: dict[str, list[Write]] = {}

    def __iter__(self) -> Iterator[Write]:
        return iter(self._writes.values())

    def __contains__(self, jid: object) -> bool:
        return jid in self._of_job

    @property
    def first(self) -> int | None:
        """The serial of the oldest write; None if there is none."""
        return next(iter(self._writes), None)

    @property
    def last(self) -> int:
        """The serial of the latest write; 0 if there is none."""
        return next(reversed(self._writes), 0)

    def of(self, jid: str) -> Sequence[Write]:
        """The writes to one job, oldest first."""
        return self._of_job.get(jid, ())

    def in_doubt(self) -> Iterator[str]:
        """The ids of the jobs with writes that a node may have, and has not answered."""
        return (write.jid for write in self._writes.values() if write.sent_to is not None and write.seq is None)

    def add(self, write: Write) -> None:
        """Put a write at the end."""
        self._writes[write.serial] = write
        self._of_job.setdefault(write.jid, []).append(write)

    def remove(self, write: Write) -> None:
        """A write is settled."""
        if self._writes.pop(write.serial, None) is None:
            return
        others = self._of_job[write.jid]
        others.remove(write)
        if not others:
            del self._of_job[write.jid]

    def strays(self, here: Place, apart_from: Container[Errand]) -> dict[Errand, list[Write]]:
        """New jobs and reruns that nodes other than `here` may have, up to a limit each; all are `asked` now."""
        found: dict[Errand, list[Write]] = {}
        for write in self._writes.values():
            at = write.sent_to
            if not write.happens_once or write.seq is not None or write.asked or at is None or at == here:
                continue
            errand = (at, not write.fresh)
            if errand not in apart_from and len(found.get(errand, ())) < _STRAYS:
                found.setdefault(errand, []).append(write)
                write.asked = True
        return found

    def next_batch(self, at: Place, limit: int, limit_bytes: int, must_wait: Callable[[Write], bool]) -> list[Write]:
        """The next writes that go into one request to the node at this place: of one kind, each job once."""
        batch: list[Write] = []
        seen: set[str] = set()
        size = 0
        for write in self._writes.values():
            if write.seq is not None:
                continue
            if write.asked or (write.happens_once and write.sent_to not in (None, at)) or must_wait(write):
                seen.add(write.jid)  # what was written to a job later must not overtake this
                continue
            if write.jid in seen and not batch:
                continue
            size += len(bytes(write.request)) if write.request is not None else len(write.jid)
            full = len(batch) >= limit or size > limit_bytes
            if batch and (full or write.jid in seen or write.kind != batch[0].kind or write.alone):
                break
            batch.append(write)
            seen.add(write.jid)
            if write.alone:
                break
        return batch


def provisional(jid: str, changes: dict[str, Any], node: str, now: float) -> Record:
    """A new job as it is shown until the node has taken it. Every record of a node wins against it."""
    fields = {key: value for key, value in changes.items() if key not in ("id", "state")}
    killed = changes.get("state") == KILLED
    spec = Spec(**fields, id=jid, submit_node=node, submit_ts=now, ts=now, killed_generation=1 if killed else 0)
    return Record(spec, Status(epoch=(0, ""), ts=now))


def is_final(record: Record) -> bool:
    """Whether a job is over for good: it has ended, its processes are gone, and no rerun follows by itself."""
    return record.spec.generation == record.status.generation and is_over(record)


def answered(info: Mapping[str, Any]) -> Record:
    """A job as a node's answer tells of it. Every record of a node wins against it, as the node's are more exact."""
    ended = info["state"] if info["state"] in END_STATES else NEW
    outputs = {key: base64.b64decode(info[key]) for key in ("stdout_data", "stderr_data") if info[key] is not None}
    same = {key: info[key] for key in Status.__struct_fields__ if key in info and key not in (*outputs, "state")}
    status = Status(**{**same, **outputs, "epoch": (0, ""), "state": ended})
    spec = {key: info[key] for key in Spec.__struct_fields__ if key in info}
    tuples = {"tags": tuple(info["tags"])}
    if not isinstance(info["args"], dict):
        tuples["args"] = tuple(info["args"])
    return Record(Spec(**{**spec, **tuples}), status)


def refused(record: Record, why: str, now: float) -> Record:
    """A new job that the node did not take: failed for good, with the node's reason."""
    status = msgspec.structs.replace(record.status, rev=1, state=FAILED, error=why, end_ts=now, fail_count=1, ts=now)
    return Record(msgspec.structs.replace(record.spec, retries=0, resubmit=False), status)


def overlaid(truth: Record, writes: Iterable[Write]) -> Record:
    """A record as it will read once these writes have been carried out."""
    spec = truth.spec
    for write in writes:
        if write.fresh:
            continue
        changes = {key: value for key, value in write.changes.items() if key not in ("id", "state")}
        state = KILLED if write.kind == "kill" else write.changes.get("state")
        if state == KILLED and (is_lost(truth) or view_state(truth) not in END_STATES):
            changes["killed_generation"] = spec.generation
        elif state == NEW and write.generation == spec.generation:
            changes["generation"] = spec.generation + 1
        if changes:
            spec = msgspec.structs.replace(spec, **changes)
    return truth if spec is truth.spec else Record(spec, truth.status)


def check_change(record: Record, changes: dict[str, Any]) -> None:
    """InvalidRequest where the node would refuse the change for what is known of the job here: a move while active."""
    if not record.status.active or is_lost(record):
        return
    moved: list[str] = [key for key in ("pool", "node") if key in changes and changes[key] != getattr(record.spec, key)]
    if changes.get("state") == NEW and not ("pool" in changes and "args" in changes):
        moved.append("state")
    if moved:
        raise InvalidRequest(
            f"job {record.spec.id!r} is active on {record.status.node!r}: kill it first, and wait for active=False, "
            f"before you change its {moved[0]}"
        )
