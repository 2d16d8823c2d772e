"""What is measured: figures with a unit, and readings of processes from /proc."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

__all__ = ["Figure", "Figures", "cpu_s", "percentile", "pss_mb", "rss_mb", "timed", "times_of"]


class Figure(NamedTuple):
    """One measured value. Units with `×` or `of` are ratios, and have no dimension."""

    value: float
    unit: str


class Figures:
    """The figures of one run of one case, by name, in the order in which they were found."""

    def __init__(self) -> None:
        self.found: dict[str, Figure] = {}
        self.notes: list[str] = []
        self.series: dict[str, list[tuple[float, float]]] = {}
        """(seconds, value) of what was read again and again."""

    def add(self, name: str, value: float, unit: str) -> None:
        """Keep a value; its name must be new."""
        assert name not in self.found, name
        self.found[name] = Figure(value, unit)

    def add_times(self, name: str, times_s: Sequence[float], bare_s: float) -> None:
        """The p50 and p90 of spans, in milliseconds, and how many times the bare span the p50 is."""
        half = percentile(times_s, 50)
        self.add(f"{name} p50", 1000 * half, "ms")
        self.add(f"{name} p90", 1000 * percentile(times_s, 90), "ms")
        self.add(f"{name} p50 / bare", half / bare_s, "×")

    def note(self, text: str) -> None:
        """Say something that a reader of the figures must know."""
        if text not in self.notes:
            self.notes.append(text)


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest of the values that so many percent of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def timed(action: Callable[[], object]) -> float:
    """How many seconds it takes."""
    begun_at = time.perf_counter()
    action()
    return time.perf_counter() - begun_at


def times_of(action: Callable[[], object], n: int) -> list[float]:
    """How many seconds each of `n` calls takes."""
    return [timed(action) for _ in range(n)]


def cpu_s(pids: Iterable[int]) -> float:
    """The CPU seconds that all threads of these processes have used, to the nanosecond (their children's are not)."""
    total = 0
    for pid in pids:
        for task in os.listdir(f"/proc/{pid}/task"):
            total += int(Path(f"/proc/{pid}/task/{task}/schedstat").read_text().split()[0])
    return total / 1e9


def rss_mb(*pids: int) -> float:
    """The resident memory of processes in megabytes (10⁶ bytes); what they share counts for each."""
    pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids)
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def pss_mb(*pids: int) -> float:
    """The same, where shared pages count once for all that share them."""
    total = 0
    for pid in pids:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total * 1024 / 1e6
