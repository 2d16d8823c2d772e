"""Things to do at a time: a heap whose entries can be cancelled, on the monotonic clock."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator

__all__ = ["Deadline", "Deadlines"]


class Deadline:
    """An entry: call `do` at `at`."""

    __slots__ = ("at", "do")

    def __init__(self, at: float, do: Callable[[], None]) -> None:
        self.at = at
        self.do: Callable[[], None] | None = do

    def __lt__(self, other: Deadline) -> bool:
        return self.at < other.at


class Deadlines:
    """All entries. Adding one costs O(log n), cancelling O(1) on average; a cancelled one holds on to nothing."""

    def __init__(self) -> None:
        self._heap: list[Deadline] = []
        self._cancelled = 0

    def add(self, at: float, do: Callable[[], None]) -> Deadline:
        """Have `do` called once `at` has come."""
        entry = Deadline(at, do)
        heapq.heappush(self._heap, entry)
        return entry

    def cancel(self, entry: Deadline | None) -> None:
        """Don't. For an entry that was called or cancelled, or None, nothing happens."""
        if entry is None or entry.do is None:
            return
        entry.do = None
        self._cancelled += 1
        # Jobs of seconds with a runtime of days must not leave days' worth of entries.
        if self._cancelled > 64 and self._cancelled * 2 > len(self._heap):
            self._heap = [kept for kept in self._heap if kept.do is not None]
            heapq.heapify(self._heap)
            self._cancelled = 0

    def due(self, now: float) -> Iterator[Callable[[], None]]:
        """Take out what is due, in the order of time; what that adds is seen as well."""
        while self._heap and (self._heap[0].at <= now or self._heap[0].do is None):
            entry = heapq.heappop(self._heap)
            if entry.do is None:
                self._cancelled -= 1
                continue
            do, entry.do = entry.do, None
            yield do

    def next_at(self) -> float | None:
        """When the next one is due (or was cancelled: then somebody looks for nothing), or None."""
        return self._heap[0].at if self._heap else None
