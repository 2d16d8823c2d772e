"""An executor that never fails, to the exact time: so many slots, first come first served, each job as long."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable

from meeseeks.core.effects import Event, Exited, Order, Start, Started, TaskKey

__all__ = ["Slots"]

_PID = 123_456


class Slots:
    """The slots of a node without any holds and kills, for loads without them."""

    def __init__(self, slots: int, job_s: float) -> None:
        self._free_at = [0.0] * slots
        self._job_s = job_s
        self._started: deque[tuple[float, TaskKey]] = deque()
        self._ends: deque[tuple[float, float, TaskKey]] = deque()

    def obey(self, orders: Iterable[Order], now: float) -> None:
        """Take new tasks in."""
        for order in orders:
            if isinstance(order, Start):
                begin = max(now, self._free_at[0])
                heapq.heapreplace(self._free_at, begin + self._job_s)
                self._started.append((begin, order.key))
                self._ends.append((begin + self._job_s, begin, order.key))

    def events(self, now: float, wall: float) -> list[Event]:
        """What has begun and ended by now, and was not told yet."""
        found: list[Event] = []
        while self._started and self._started[0][0] <= now:
            begin, key = self._started.popleft()
            found.append(Started(key, _PID, wall + begin))
        while self._ends and self._ends[0][0] <= now:
            end, begin, key = self._ends.popleft()
            found.append(
                Exited(key=key, rc=0, start_ts=wall + begin, end_ts=wall + end, stdout_data=b"", stderr_data=b"")
            )
        return found
