"""What jobs really did: each writes a line when it starts and when it ends, and a watcher sees it live and die.

A line is one write to a file that is open for appending, so the order of the lines is the order of the events, on all
nodes. A run that is killed has no end mark: the watcher holds a pidfd of each, and its death is proven by that.
"""

from __future__ import annotations

import os
import select
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

__all__ = ["SCRIPT", "Marks", "Overlap", "Run", "output_of"]

SCRIPT = """\
# JOB MARKS SECONDS RC LINES: leave marks, write so many lines, and end with RC ('odd': 3 if the pid is odd, else 0)
job=$1 marks=$2 seconds=$3 rc=$4 lines=$5
mark() { read -r up _ </proc/uptime; echo "$1 $job $$ $MEESEEKS_NODE $up $2" >>"$marks"; }
trap 'mark end 143; exit 143' TERM
mark start -
if [ "$rc" = odd ]; then rc=$(($$ % 2 * 3)); fi
sleep "$seconds" & wait $! || { mark end 75; exit 75; }
i=0
while [ $i -lt "$lines" ]; do
    echo "$job $$ $i" || { mark end 74; exit 74; }
    i=$((i + 1))
done
mark end "$rc"
exit "$rc"
"""
"""For /bin/sh: it costs a millisecond, where Python would cost twenty."""

_LOOK_EVERY_MS = 10


def output_of(job: str, pid: int, lines: int) -> str:
    """What a whole run of the script writes to its stdout."""
    return "".join(f"{job} {pid} {i}\n" for i in range(lines))


@dataclass(eq=False)
class Run:
    """One process of a job. Times are monotonic; `dead_at` is when it was seen to be gone."""

    job: str
    pid: int
    node: str
    started_at: float
    ended: str | None = None
    """Its exit code, as it said itself."""
    ended_at: float | None = None
    dead_at: float | None = None
    pidfd: int = field(default=-1, repr=False)

    @property
    def over_at(self) -> float:
        """When it was over, at the latest; infinite while it lives."""
        return self.dead_at if self.dead_at is not None else float("inf")


@dataclass(frozen=True)
class Overlap:
    """Two runs of one job that lived at once: the earlier one was seen alive after the later one had begun."""

    earlier: Run
    later: Run
    at: float


class Marks:
    """Reads the file as it grows, in a thread of its own. Its lists only grow; read them at any time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.runs: dict[str, list[Run]] = {}
        self.overlaps: list[Overlap] = []
        self.strange: list[str] = []
        """Lines that make no sense: none are expected."""
        self._boot_at = time.monotonic() - time.clock_gettime(time.CLOCK_BOOTTIME)
        self._alive: dict[int, Run] = {}
        self._poll = select.poll()
        self._rest = b""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="chaos-marks")

    def __enter__(self) -> Self:
        self.path.touch()
        self._fd = os.open(self.path, os.O_RDONLY)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        os.close(self._fd)
        for pidfd in list(self._alive):
            self._forget(pidfd)

    @property
    def alive(self) -> list[Run]:
        """The runs that live now."""
        return list(self._alive.values())

    def of(self, job: str) -> list[Run]:
        """All runs of a job, in their order."""
        return list(self.runs.get(job, ()))

    def _watch(self) -> None:
        while not self._stop.is_set():
            for pidfd, _ in self._poll.poll(_LOOK_EVERY_MS):
                self._alive[pidfd].dead_at = time.monotonic()
                self._forget(pidfd)
            self._read()

    def _forget(self, pidfd: int) -> None:
        self._poll.unregister(pidfd)
        os.close(pidfd)
        del self._alive[pidfd]

    def _read(self) -> None:
        while data := os.read(self._fd, 1 << 16):
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                self._take(line.decode(errors="replace"))

    def _take(self, line: str) -> None:
        try:
            what, job, pid, node, up, said = line.split()
            at = float(up) + self._boot_at
            if what == "start":
                self._begin(Run(job, int(pid), node, at))
            else:
                run = next(run for run in reversed(self.runs[job]) if run.pid == int(pid))
                run.ended, run.ended_at = said, at
                self._compare(run)
        except (ValueError, KeyError, StopIteration):
            self.strange.append(line)

    def _begin(self, run: Run) -> None:
        earlier = self.runs.setdefault(run.job, [])
        # The start mark has been read: whoever lives now, lived beside it, if it is alive or has not ended by then.
        self.overlaps += [Overlap(one, run, time.monotonic()) for one in earlier if _lives(one)]
        earlier.append(run)
        try:
            run.pidfd = os.pidfd_open(run.pid)
        except ProcessLookupError:
            run.dead_at = time.monotonic()
            return
        if run.job.encode() not in _command_of(run.pid):  # another process has the id by now
            os.close(run.pidfd)
            run.dead_at = time.monotonic()
            return
        self._alive[run.pidfd] = run
        self._poll.register(run.pidfd, select.POLLIN)

    def _compare(self, ended: Run) -> None:
        """A run that says that it ends, after a later one has said that it starts."""
        runs = self.runs[ended.job]
        for later in runs[runs.index(ended) + 1 :]:
            if not any(overlap.earlier is ended and overlap.later is later for overlap in self.overlaps):
                self.overlaps.append(Overlap(ended, later, time.monotonic()))


def _lives(run: Run) -> bool:
    if run.dead_at is not None:
        return False
    poll = select.poll()
    poll.register(run.pidfd, select.POLLIN)
    return not poll.poll(0)


def _command_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""
