"""Writes to a cache that its node has not acknowledged yet, in their order."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Container, Iterator, Sequence
from typing import Any

import msgspec

from .settings import Place

__all__ = ["Errand", "Outbox", "Write"]

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

    def mend(self) -> None:
        """Find the writes of each job anew: an exception came in the midst of `add`."""
        self._of_job = {}
        for write in self._writes.values():
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
