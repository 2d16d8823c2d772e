"""All measurements of a run: every case of every subject, in interleaved repetitions, each in a process of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from statistics import median
from typing import Any, NamedTuple

from .peers.listed import OURS, PEERS
from .revisions import HERE, Revision

__all__ = ["Campaign", "Key", "Options", "Row"]

_CASE_WITHIN_S = 1800.0
_LEAVE_WITHIN_S = 30.0


@dataclass(frozen=True)
class Options:
    """What was asked for. `jobs` is the scale of the cases of growth and backpressure; None is their own."""

    cases: Sequence[str]
    repetitions: int = 3
    quick: bool = False
    jobs: int | None = None


class Key(NamedTuple):
    """Which figure of whom."""

    case: str
    figure: str
    subject: str


class _Subject(NamedTuple):
    """Who is measured, and with whose worker."""

    label: str
    revision: Revision
    peer: str = ""


@dataclass
class Row:
    """The values of one figure, one a repetition."""

    unit: str
    values: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The middle one."""
        return median(self.values)


class Campaign:
    """Runs it, and has what was found: `rows`, `notes` and `failures`."""

    def __init__(self, options: Options, revisions: Sequence[Revision], say: Callable[[str], None]) -> None:
        self.rows: dict[Key, Row] = {}
        self.series: dict[Key, list[list[float]]] = {}
        """(seconds, value) of what was read again and again in the last repetition."""
        self.notes: list[str] = []
        self.failures: list[str] = []
        self._options = options
        self._revisions = revisions
        self._say = say

    def run(self) -> bool:
        """Measure; False if a case failed."""
        for repetition in range(self._options.repetitions):
            for case in self._options.cases:
                for subject in self._in_turn(case, repetition):
                    begun_at = time.monotonic()
                    self._measure(case, subject)
                    spent = f"{time.monotonic() - begun_at:.0f} s"
                    self._say(f"{repetition + 1}/{self._options.repetitions} {case} of {subject.label}: {spent}")
        return not self.failures

    def _in_turn(self, case: str, repetition: int) -> Iterator[_Subject]:
        """All that are measured. Each goes first in turn: what the one before leaves warm is not always the same."""
        subjects = [_Subject(revision.label, revision) for revision in self._revisions]
        if case == "peers":
            subjects = [_Subject(self.name_of(revision), revision, OURS) for revision in self._revisions]
            subjects += [_Subject(peer, self._revisions[0], peer) for peer in PEERS if peer != OURS]
        return (subjects[(i + repetition) % len(subjects)] for i in range(len(subjects)))

    def name_of(self, revision: Revision) -> str:
        """What a revision is called beside peers."""
        return OURS if revision is self._revisions[0] else f"{OURS} {revision.label}"

    def _measure(self, case: str, subject: _Subject) -> None:
        label, revision = subject.label, subject.revision
        options = json.dumps(
            {"case": case, "quick": self._options.quick, "jobs": self._options.jobs, "peer": subject.peer}
        )
        command = [revision.python, str(HERE / "tests/bench/worker.py"), str(revision.root), options]
        try:
            code, out, errors = _run(command)
        except subprocess.TimeoutExpired:
            self.failures.append(f"{case} of {label}: no end within {_CASE_WITHIN_S:g} s")
            return
        if code:
            print(errors, file=sys.stderr)
            last = (errors.strip().splitlines() or [f"exit code {code}"])[-1]
            self.failures.append(f"{case} of {label}: {last}")
            return
        self.take(case, label, json.loads(out.splitlines()[-1]))

    def take(self, case: str, subject: str, found: dict[str, Any]) -> None:
        """Add what one run has found."""
        for name, (value, unit) in found["figures"].items():
            self.rows.setdefault(Key(case, name, subject), Row(unit)).values.append(value)
        for name, points in found.get("series", {}).items():
            self.series[Key(case, name, subject)] = points
        for note in found["notes"]:
            if (text := f"{case}: {note}") not in self.notes:
                self.notes.append(text)


def _run(command: list[str]) -> tuple[int, str, str]:
    """Its exit code and what it wrote. Where it is not waited for, it is told to end its nodes, and given the time."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            out, errors = process.communicate(timeout=_CASE_WITHIN_S)
        except BaseException:
            process.send_signal(signal.SIGINT)  # in a terminal it has had one by itself; it is no worse off for two
            with suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=_LEAVE_WITHIN_S)
            process.kill()
            raise
    return process.returncode, out, errors
