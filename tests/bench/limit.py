"""The bare limit: what the machine itself needs for a process of /bin/true, measured beside each case."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from .sample import percentile, timed

__all__ = ["COMMAND", "Beside", "latency", "rate"]

COMMAND = "/bin/true"


def _spawn() -> int:
    return os.posix_spawn(COMMAND, [COMMAND], {})


def latency(n: int) -> list[float]:
    """Seconds of `n` processes, one at a time, from the spawn until it is reaped."""
    return [timed(lambda: os.waitpid(_spawn(), 0)) for _ in range(n)]


def rate(n: int) -> float:
    """Processes a second with two in flight: a new one is spawned as soon as one is reaped."""
    begun_at = time.perf_counter()
    flying = {_spawn(), _spawn()}
    for _ in range(n - 2):
        _reap(flying)
        flying.add(_spawn())
    while flying:
        _reap(flying)
    return n / (time.perf_counter() - begun_at)


def _reap(flying: set[int]) -> None:
    pid, _ = os.waitpid(-1, 0)
    assert pid in flying, f"child {pid} ended, which is no bare process: a node?"
    flying.discard(pid)


class Beside:
    """Measures spans in blocks, with blocks of the bare process between them, as the machine's speed changes."""

    def __init__(self, block: int = 50) -> None:
        self._block = block
        self._bare: list[float] = []

    def times(self, action: Callable[[], object], n: int) -> list[float]:
        """The seconds of each of `n` calls."""
        found: list[float] = []
        self._bare += latency(self._block)
        while len(found) < n:
            found += [timed(action) for _ in range(min(self._block, n - len(found)))]
            self._bare += latency(self._block)
        return found

    @property
    def bare_s(self) -> float:
        """The p50 of the bare process so far."""
        return percentile(self._bare, 50)
