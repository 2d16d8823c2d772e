"""What an executor started and has not seen the end of: for whoever comes after it was killed.

A file of JSON lines: the machine's boot first, then `start` before a spawn, `pid` soon after it (until then the task's
mark in the environment of its processes tells them), `end` when the task's tree is gone. Nothing is forced to the disk:
it is about a killed executor, and after a power cut no task lives anyway. A torn last line is a spawn that did not come
about, or an end that a sweep finds out by itself.

An executor that is killed (SIGKILL) leaves its tasks running, since nothing is between them and the machine. The next
one calls `sweep` before it does anything else, which ends them; it reports nothing of them: its node knows by the
executor's death that they are lost.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from pathlib import Path

import msgspec

from meeseeks.clock import monotonic

from .processes import Process, below, branches, mark_of, send, snapshot

__all__ = ["JOURNAL_NAME", "Journal", "sweep"]

JOURNAL_NAME = "executor.journal"
"""Its file name, in the folder that holds the spool."""

_COMPACT_BYTES = 1 << 20
_SWEEP_S = 10.0

log = logging.getLogger(__name__)


class Entry(msgspec.Struct, omit_defaults=True):
    """One line. A task is named by its mark, which no two tasks ever share."""

    what: str
    mark: str = ""
    job: str = ""
    pid: int = 0
    ticks: int = 0
    boot: str = ""


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Entry)


class Journal:
    """The journal of a running executor: a new file; sweep the old one first."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._live: dict[str, list[Entry]] = {}
        self._fd = -1
        self._kept = self._written = 0  # bytes: after the last compaction, and now
        self._rewrite()

    def starting(self, mark: str, job: str) -> None:
        """A spawn is about to happen."""
        entry = Entry("start", mark=mark, job=job)
        self._live[mark] = [entry]
        self._write(entry)

    def started(self, mark: str, process: Process) -> None:
        """It happened, a moment ago, and this is the leader."""
        entry = Entry("pid", mark=mark, pid=process.pid, ticks=process.ticks)
        self._live[mark].append(entry)
        self._write(entry)

    def ended(self, mark: str) -> None:
        """Nothing is left of the task, or it was not spawned."""
        del self._live[mark]
        self._write(Entry("end", mark=mark))
        # So it costs each task a constant share, however many live.
        if self._written > max(_COMPACT_BYTES, 8 * self._kept):
            try:
                self._rewrite()
            except OSError as error:  # a full disk: the old one is still right, only longer
                log.warning("the journal can't be compacted: %s", error)
                self._kept = self._written

    def close(self) -> None:
        """Close the file; it stays."""
        os.close(self._fd)
        self._fd = -1

    def _rewrite(self) -> None:
        """Only what lives; a new file takes the place of the old one in one step."""
        lines = [_encoder.encode(Entry("boot", boot=_boot()))]
        lines += [_encoder.encode(entry) for entries in self._live.values() for entry in entries]
        content = b"\n".join(lines) + b"\n"
        partial = self._path.with_suffix(".new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
        fd = os.open(partial, flags, 0o600)
        try:
            _write_all(fd, content)
            partial.rename(self._path)
        except OSError:
            os.close(fd)
            raise
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = fd
        self._kept = self._written = len(content)

    def _write(self, entry: Entry) -> None:
        line = _encoder.encode(entry) + b"\n"
        try:
            _write_all(self._fd, line)
        except OSError as error:  # a full disk: tasks must go on all the same
            log.warning("%s: can't write: %s", self._path, error)
        self._written += len(line)


def sweep(path: Path) -> int:
    """End what a dead executor left running: SIGKILL, until nothing is left. Returns how many processes there were.

    Only processes that are surely its own: the leader has the journal's start time, then its session and descendants
    are meant as well; anything else must carry the task's mark. Call it only when that executor is dead.
    """
    leaders, marks = _left(path)
    if not marks:
        return 0
    killed: set[tuple[int, int]] = set()
    deadline = monotonic() + _SWEEP_S
    while left := _find(leaders, marks):
        for process in left:
            send(process, signal.SIGKILL)
            if not process.is_dead:
                killed.add((process.pid, process.ticks))
        if all(process.is_dead for process in left):
            break  # init has not reaped them yet
        if monotonic() > deadline:
            log.error("these processes of a dead executor don't end: %s", sorted(process.pid for process in left))
            break
        time.sleep(0.005)  # they are not our children: nothing tells when they are gone
    return len(killed)


def _left(path: Path) -> tuple[set[tuple[int, int]], set[str]]:
    """The leaders, as (pid, start time), and the marks of the tasks that have no end in the journal."""
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return set(), set()
    live: dict[str, tuple[int, int] | None] = {}
    for line in lines:
        try:
            entry = _decoder.decode(line)
        except msgspec.DecodeError:
            continue  # torn, or after the last newline
        if entry.what == "boot" and entry.boot != _boot():
            return set(), set()  # the machine was restarted: these ids mean nothing now
        if entry.what == "start":
            live[entry.mark] = None
        elif entry.what == "pid":
            live[entry.mark] = (entry.pid, entry.ticks)
        elif entry.what == "end":
            live.pop(entry.mark, None)
    return {leader for leader in live.values() if leader is not None}, set(live)


def _find(leaders: set[tuple[int, int]], marks: set[str]) -> list[Process]:
    processes = snapshot()
    alive = {pid for pid, ticks in leaders if pid in processes and processes[pid].ticks == ticks}
    roots = {
        process.pid
        for process in processes.values()
        if process.pid in alive or process.session in alive or mark_of(process.pid) in marks
    }
    # A node may be (re)started by one of its own jobs: that branch is us.
    spared = set(_ancestors(processes, os.getpid()))
    tree = below(branches(processes), roots - spared) - spared
    return [processes[pid] for pid in tree]


def _ancestors(processes: dict[int, Process], pid: int) -> list[int]:
    """The process itself, its parent, and so on."""
    line = []
    while pid in processes and pid not in line:
        line.append(pid)
        pid = processes[pid].parent
    return line


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]
