"""What happens beside something that takes its time: the memory of processes, and how another client is served."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from .sample import Figures, percentile, rss_mb, timed

__all__ = ["Bystander", "Memory"]

_EVERY_S = 0.1


class _Repeating:
    """Does something again and again in a thread, while the `with` lasts. What it raises is raised at the end."""

    def __init__(self, action: Callable[[], None], pause_s: float) -> None:
        self._action = action
        self._pause_s = pause_s
        self._over = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        if self._failure is None and error is None:
            self._action()  # how it is at the end
        if self._failure is not None and error is None:
            raise self._failure

    def _run(self) -> None:
        try:
            self._action()
            while not self._over.wait(self._pause_s):
                self._action()
        except BaseException as failure:  # noqa: BLE001 - it is raised where the others wait
            self._failure = failure


class Memory(_Repeating):
    """Reads the resident memory of processes ten times a second."""

    def __init__(self, *pids: int) -> None:
        self._pids = pids
        self._begun_at = time.monotonic()
        self.readings: list[tuple[float, float]] = []
        """(seconds since the first, MB)."""
        super().__init__(self._read, _EVERY_S)

    def _read(self) -> None:
        self.readings.append((time.monotonic() - self._begun_at, rss_mb(*self._pids)))

    def report(self, figures: Figures, what: str) -> None:
        """The first, the greatest and the last reading; all of them are for the JSON."""
        values = [value for _, value in self.readings]
        for name, value in (("before", values[0]), ("at most", max(values)), ("at the end", values[-1])):
            figures.add(f"rss of {what}, {name}", value, "MB")
        figures.series[f"rss of {what}"] = self.readings


class Bystander(_Repeating):
    """Does one thing after the other, as another user would, and keeps how long each takes."""

    def __init__(self, action: Callable[[], object], pause_s: float = 0.02) -> None:
        self.times: list[float] = []
        super().__init__(lambda: self.times.append(timed(action)), pause_s)

    def report(self, figures: Figures, what: str) -> None:
        """The p50, the p90 and the longest."""
        for name, value in (("p50", percentile(self.times, 50)), ("p90", percentile(self.times, 90))):
            figures.add(f"{what} {name}", 1000 * value, "ms")
        figures.add(f"{what} at most", 1000 * max(self.times), "ms")
