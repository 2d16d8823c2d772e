"""What an executor started and its node has not stored the end of: for whoever comes after it was killed.

A file of JSON lines: the machine's boot first, then `start` before a spawn, `pid` soon after it (until then the task's
mark in the environment of its processes tells them), `end` when the task's tree is gone, `ack` when the node has stored
that. Nothing is forced to the disk: it is about a killed executor, and after a power cut no task lives anyway. A torn
last line is a spawn that did not come about, or an end that a sweep finds out by itself.

What can't be noted is not started: on a full disk tasks wait. Once there is room the whole file is written anew, so
that nothing stands behind a torn line.

An executor that is killed (SIGKILL) leaves its tasks running, since nothing is between them and the machine. The next
one calls `sweep` before it does anything else, which ends them, and then tells its node of all that is `unacked`: the
node may have been killed in the same moment, before it had heard that they were started, and would start them again.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec

from meeseeks.clock import monotonic
from meeseeks.core.effects import Exited, TaskKey

from .brands import brand
from .processes import Process, below, branches, is_ours_to_signal, lock_limit_of, mark_of, send, snapshot

__all__ = ["JOURNAL_NAME", "Entry", "Journal", "sweep", "unacked"]

JOURNAL_NAME = "executor.journal"
"""Its file name, in the folder that holds the spool."""

_COMPACT_BYTES = 1 << 20
_AGAIN_S = 0.5
_SWEEP_S = 10.0

log = logging.getLogger(__name__)


class Entry(msgspec.Struct, omit_defaults=True):
    """One line. A task is named by its mark, which no two tasks ever share."""

    what: str
    mark: str = ""
    key: TaskKey | None = None
    pid: int = 0
    ticks: int = 0
    boot: str = ""
    rc: int | None = None
    error: str | None = None
    start_ts: float | None = None
    end_ts: float = 0.0


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Entry)


class Journal:
    """The journal of a running executor: a new file; sweep the old one first, and hand over what it has `unacked`."""

    def __init__(self, path: Path, unacked: Iterable[Entry] = ()) -> None:
        self._path = path
        self._marks: dict[TaskKey, str] = {}
        self._live: dict[str, list[Entry]] = {}
        for end in unacked:
            assert end.key is not None
            self._marks[end.key] = end.mark
            self._live[end.mark] = [Entry("start", mark=end.mark, key=end.key), end]
        self._buffer = b""
        self.again_at = 0.0
        """When it is tried again to write what could not be written; 0.0 if all is written."""
        self._fd = -1
        self._kept = self._written = 0  # bytes: after the last compaction, and now
        self._rewrite()

    def starting(self, mark: str, key: TaskKey) -> bool:
        """A spawn is about to happen. False if that can't be noted: then it must not happen, and is forgotten."""
        entry = Entry("start", mark=mark, key=key)
        self._live[mark] = [entry]
        self._marks[key] = mark
        self._write(entry)
        if self.flush():
            return True
        del self._live[mark], self._marks[key]
        return False

    def started(self, mark: str, process: Process) -> None:
        """It happened, a moment ago, and this is the leader."""
        entry = Entry("pid", mark=mark, pid=process.pid, ticks=process.ticks)
        self._live[mark].append(entry)
        self._write(entry)

    def ended(self, mark: str, end: Exited) -> None:
        """Nothing is left of the task, or it was not spawned."""
        entry = Entry("end", mark=mark, rc=end.rc, error=end.error, start_ts=end.start_ts, end_ts=end.end_ts)
        self._live[mark].append(entry)
        self._write(entry)

    def acked(self, key: TaskKey) -> None:
        """The node has stored the task's end."""
        mark = self._marks.pop(key, None)
        if mark is None:
            return
        del self._live[mark]
        self._write(Entry("ack", mark=mark))
        # So it costs each task a constant share, however many live.
        if self._written > max(_COMPACT_BYTES, 8 * self._kept):
            try:
                self._rewrite()
            except OSError as error:  # a full disk: the old one is still right, only longer
                log.warning("the journal can't be compacted: %s", error)
                self._kept = self._written

    def flush(self) -> bool:
        """Write what was only noted: before anybody is told of it. False while that can't be done."""
        if self.again_at:
            return self._catch_up()
        try:
            _write_all(self._fd, self._buffer)
        except OSError as error:
            log.warning("%s: can't write: %s: no task is started until it can", self._path, error.strerror)
            self.again_at = monotonic() + _AGAIN_S
            return False
        self._written += len(self._buffer)
        self._buffer = b""
        return True

    def _catch_up(self) -> bool:
        """What was noted meanwhile is all in the new file, or nobody needs it any more."""
        if monotonic() < self.again_at:
            return False
        try:
            self._rewrite()
        except OSError:
            self.again_at = monotonic() + _AGAIN_S
            return False
        log.info("%s: can be written again: tasks are started", self._path)
        return True

    def close(self) -> None:
        """Close the file; it stays."""
        self.flush()
        os.close(self._fd)
        self._fd = -1

    def _rewrite(self) -> None:
        """Only what is not acked; a new file takes the place of the old one in one step."""
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
            partial.unlink(missing_ok=True)
            raise
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = fd
        self._kept = self._written = len(content)
        self._buffer, self.again_at = b"", 0.0

    def _write(self, entry: Entry) -> None:
        if self.again_at:
            return  # it is in what is written anew
        self._buffer += _encoder.encode(entry) + b"\n"


def sweep(path: Path) -> int:
    """End what a dead executor left running: SIGKILL, until nothing is left. Returns how many processes there were.

    Only processes that are surely its own: the leader has the journal's start time, then its session and descendants
    are meant as well; anything else must carry the task's mark or brand. Call it only when that executor is dead.
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
        if all(process.is_dead or not is_ours_to_signal(process.pid) for process in left):
            break  # init has not reaped them yet, or they run as another user: `send` says so
        if monotonic() > deadline:
            log.error("these processes of a dead executor don't end: %s", sorted(process.pid for process in left))
            break
        time.sleep(0.005)  # they are not our children: nothing tells when they are gone
    return len(killed)


def unacked(path: Path, now: float) -> list[Entry]:
    """The ends of the tasks that a dead executor had started, and of which its node may not know; each with its key.

    A task that had not ended by itself has been swept: its end is now (wall time), and the executor's death its error.
    """
    found = []
    for mark, entries in _read(path)[1].items():
        if entries[0].key is None:
            continue  # of a version that did not note it
        end = entries[-1]
        if end.what != "end":
            end = Entry("end", mark=mark, error="executor lost", end_ts=now)
        end.key = entries[0].key
        found.append(end)
    return found


def _left(path: Path) -> tuple[set[tuple[int, int]], set[str]]:
    """The leaders, as (pid, start time), and the marks of the tasks that have no end in the journal."""
    boot, tasks = _read(path)
    if boot != _boot():
        return set(), set()  # the machine was restarted: these ids mean nothing now
    live = {mark: entries[-1] for mark, entries in tasks.items() if entries[-1].what != "end"}
    return {(last.pid, last.ticks) for last in live.values() if last.what == "pid"}, set(live)


def _read(path: Path) -> tuple[str, dict[str, list[Entry]]]:
    """The boot of the machine that a journal is of, and the entries of each task that was not acked."""
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return "", {}
    boot, tasks = "", dict[str, list[Entry]]()
    for line in lines:
        try:
            entry = _decoder.decode(line)
        except msgspec.DecodeError:
            continue  # torn, or after the last newline
        if entry.what == "boot":
            boot = entry.boot
        elif entry.what == "start":
            tasks[entry.mark] = [entry]
        elif entry.what == "ack":
            tasks.pop(entry.mark, None)
        elif entry.mark in tasks:
            tasks[entry.mark].append(entry)
    return boot, tasks


def _find(leaders: set[tuple[int, int]], marks: set[str]) -> list[Process]:
    processes = snapshot()
    alive = {pid for pid, ticks in leaders if pid in processes and processes[pid].ticks == ticks}
    brands = {brand(mark) for mark in marks}
    roots = {
        pid
        for pid, process in processes.items()
        if pid in alive or process.session in alive or mark_of(pid) in marks or lock_limit_of(pid) in brands
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
