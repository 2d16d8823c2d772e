"""Who waits for the end of which job. Guarded by the lock of the cache that it belongs to."""

from __future__ import annotations

from collections.abc import Callable

from .unknown import UNKNOWN_FOR

__all__ = ["Watcher", "Watchers"]

Watcher = Callable[[str], None]
"""Called once with a job's id when the job is over; under the cache's lock, so it only notes that."""


class Watchers:
    """By the job's id, so that a change costs nothing to those who wait for another."""

    def __init__(self) -> None:
        self._of_job: dict[str, list[Watcher]] = {}
        self._missing: dict[str, float] = {}  # jobs that are not there -> since when (monotonic)

    def __contains__(self, jid: object) -> bool:
        return jid in self._of_job

    def add(self, jid: str, watcher: Watcher) -> None:
        """Call `watcher` when `tell` is called for the job."""
        self._of_job.setdefault(jid, []).append(watcher)

    def remove(self, jid: str, watcher: Watcher) -> None:
        """Forget a watcher, if it is still there."""
        left = [other for other in self._of_job.get(jid, ()) if other is not watcher]
        if left:
            self._of_job[jid] = left
        else:
            self._of_job.pop(jid, None)

    def tell(self, jid: str) -> None:
        """The job is over."""
        for watcher in self._of_job.pop(jid, ()):
            watcher(jid)

    def tell_missing(self, is_there: Callable[[str], bool], now: float) -> list[str]:
        """Tell those who wait for a job that has not been there for a while; returns these jobs."""
        self._missing = {jid: self._missing.get(jid, now) for jid in self._of_job if not is_there(jid)}
        gone = [jid for jid, since in self._missing.items() if now - since >= UNKNOWN_FOR]
        for jid in gone:
            del self._missing[jid]
            self.tell(jid)
        return gone
