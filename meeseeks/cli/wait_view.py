"""How a wait looks: a bar on a terminal, a line a job in a pipe, nothing where JSON follows."""

from __future__ import annotations

import sys
import time
from collections import Counter
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from . import views
from .output import clean
from .waiting import Progress

if TYPE_CHECKING:
    from rich.text import Text

__all__ = ["WaitView", "no_view", "wait_view"]

_FRAME_S = 0.2
_BAR_FROM, _BAR_TO = 8, 40
"""Cells of the bar: the narrowest and the widest."""


class WaitView(Protocol):
    """Shows how a wait goes on, while it is entered."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def begin(self, total: int) -> None:
        """So many jobs are waited for."""

    def show(self, progress: Progress) -> None:
        """This is how far it is."""


def wait_view() -> WaitView:
    """The view for stdout as it is."""
    return _Bar() if sys.stdout.isatty() else _Lines()


def no_view() -> WaitView:
    """Shows nothing."""
    return _Nothing()


class _Nothing:
    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return

    def begin(self, total: int) -> None:
        """Nothing to be said."""

    def show(self, progress: Progress) -> None:
        """Nothing to be shown."""


class _Lines(_Nothing):
    """A line a job, as it ends."""

    def show(self, progress: Progress) -> None:
        for jid, info in progress.ended.items():
            if info is not None:
                rc = "-" if info["rc"] is None else str(info["rc"])
                took = views.duration(views.elapsed(info, time.time()))
                print("\t".join(map(clean, (jid, info["state"], info["node"] or "-", rc, took))))
        sys.stdout.flush()


class _Bar(_Nothing):
    """One line that is drawn again and again, and at the end says how it was."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(highlight=False)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._total = 0
        self._states: Counter[str] = Counter()
        self._began_at = self._drawn_at = 0.0
        self._at_first = 0

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)
        if self._total:
            took = views.duration(time.monotonic() - self._began_at)
            counts = ", ".join(f"{self._states[state]} {state}" for state in sorted(self._states)) or "none ended"
            jobs = "1 job" if self._total == 1 else f"{self._total} jobs"
            self._console.print(f"{jobs} after {took}: {counts}", markup=False)

    def begin(self, total: int) -> None:
        self._total = total
        self._began_at = time.monotonic()

    def show(self, progress: Progress) -> None:
        self._states.update("forgotten" if info is None else info["state"] for info in progress.ended.values())
        now = time.monotonic()
        ended = self._states.total()
        if not self._drawn_at:
            self._at_first = ended
        if now - self._drawn_at >= _FRAME_S or ended == self._total:
            self._drawn_at = now
            self._live.update(self._line(progress, now), refresh=True)

    def _line(self, progress: Progress, now: float) -> Text:
        """`━━━━──  60 done  1 failed  4 running  35 waiting  12.1/s  3s left`, as much of it as fits."""
        from rich.text import Text

        ended = self._states.total()
        parts = [Text(f"{self._states['done']} done", "green")]
        for state, style in (("failed", "red"), ("killed", "yellow"), ("forgotten", "yellow")):
            if self._states[state]:
                parts.append(Text(f"{self._states[state]} {state}", style))
        parts += [Text(f"{progress.running} running", "cyan"), Text(f"{progress.waiting} waiting")]
        fresh, passed = ended - self._at_first, now - self._began_at
        if fresh and passed > _FRAME_S:
            rate = fresh / passed
            parts.append(Text(f"{rate:.3g}/s" if rate >= 0.1 else f"{rate * 60:.2g}/min", "dim"))
            if ended < self._total:
                parts.append(Text(f"{views.duration(max(1.0, (self._total - ended) / rate))} left", "dim"))
        text = Text("  ").join(parts)
        cells = min(_BAR_TO, self._console.width - text.cell_len - 3)
        if cells >= _BAR_FROM:
            full = cells * ended // max(1, self._total)
            text = Text.assemble(("━" * full, "green"), ("─" * (cells - full), "dim"), "  ", text)
        text.truncate(max(1, self._console.width - 1), overflow="ellipsis")
        return text
