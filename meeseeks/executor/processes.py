"""Processes as the kernel shows them in /proc, and signals that can't hit a stranger.

A process id is used again some time after its process was reaped; an id together with the start time is not. So
whatever is remembered of a process is a `Process`, and `send` looks twice before it signals.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

__all__ = [
    "TASK_MARK",
    "Process",
    "become_subreaper",
    "below",
    "branches",
    "children",
    "inspect",
    "is_ours_to_signal",
    "let_go",
    "lock_limit_of",
    "mark_of",
    "send",
    "snapshot",
]

TASK_MARK = "MEESEEKS_TASK"
"""The environment variable that tells to which task a process belongs, wherever it went."""

_PR_SET_CHILD_SUBREAPER = 36
_PTRACE_DETACH = 17
_PF_EXITING = 4
_PIECE = 1 << 16
_HALF_A_PAGE = 2048

log = logging.getLogger(__name__)


class Process(NamedTuple):
    """One line of /proc/PID/stat. `ticks` is when it started, in clock ticks since the machine did."""

    pid: int
    state: str
    parent: int
    group: int
    session: int
    ticks: int
    is_exiting: bool
    """Whether it will never run again: its memory and its environment may be gone already. True of the dead as well."""

    @property
    def is_dead(self) -> bool:
        """Whether only its exit status is left of it."""
        return self.state in "ZXx"


def inspect(pid: int) -> Process | None:
    """The process with this id, or None."""
    raw = _read(f"/proc/{pid}/stat")
    # The name, in parentheses, may itself hold spaces and parentheses.
    fields = raw[raw.rfind(b")") + 2 :].split(None, 20)
    if len(fields) < 20:
        return None
    parent, group, session, flags, ticks = (int(fields[index]) for index in (1, 2, 3, 6, 19))
    return Process(pid, fields[0].decode(), parent, group, session, ticks, bool(flags & _PF_EXITING))


def snapshot() -> dict[int, Process]:
    """All processes. It takes a while: what is forked or ends meanwhile may or may not be in it."""
    found = (inspect(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return {process.pid: process for process in found if process is not None}


def children() -> list[int]:
    """The ids of all our children, zombies as well.

    None is missing: only we reap them, and the kernel appends those that it gives to us.
    """
    me = os.getpid()
    fd = _children_of(me)
    if fd < 0:  # a kernel without CONFIG_PROC_CHILDREN
        return [process.pid for process in snapshot().values() if process.parent == me]
    raw = piece = os.pread(fd, _PIECE, 0)
    while len(piece) >= _HALF_A_PAGE:  # the kernel gives a page at a time: one that is not nearly full is the last
        piece = os.pread(fd, _PIECE, len(raw))
        raw += piece
    return [int(pid) for pid in raw.split()]


@cache
def _children_of(me: int) -> int:
    """The kernel's list, opened once: it is read after every exit. -1 where there is none."""
    try:
        # Only the main thread forks here, and orphans are given to it.
        return os.open(f"/proc/{me}/task/{me}/children", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return -1


def branches(processes: dict[int, Process]) -> dict[int, list[int]]:
    """The ids of the children of each process that has any."""
    by_parent: dict[int, list[int]] = {}
    for process in processes.values():
        by_parent.setdefault(process.parent, []).append(process.pid)
    return by_parent


def below(by_parent: dict[int, list[int]], roots: Iterable[int]) -> set[int]:
    """The ids of `roots` and of all their descendants."""
    found: set[int] = set()
    to_do = list(roots)
    while to_do:
        pid = to_do.pop()
        if pid not in found:
            found.add(pid)
            to_do.extend(by_parent.get(pid, ()))
    return found


def mark_of(pid: int) -> str | None:
    """The task mark in a process's environment; None if there is none, or we may not look."""
    wanted = TASK_MARK.encode() + b"="
    for item in _read(f"/proc/{pid}/environ").split(b"\0"):
        if item.startswith(wanted):
            return item[len(wanted) :].decode(errors="replace")
    return None


def lock_limit_of(pid: int) -> int | None:
    """A process's soft RLIMIT_LOCKS: of anybody's, and also of one that is exiting; None if it is unlimited."""
    _, _, limit = _read(f"/proc/{pid}/limits").partition(b"Max file locks")
    fields = limit.split(None, 1)
    return int(fields[0]) if fields and fields[0].isdigit() else None


def send(process: Process, number: int) -> bool:
    """Signal exactly this process. False where it is gone, or is not ours to signal."""
    try:
        fd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    try:
        # The descriptor pins whoever has the id now: if the start time is right as well, it is the one that we mean.
        now = inspect(process.pid)
        if now is None or now.ticks != process.ticks:
            return False
        signal.pidfd_send_signal(fd, number)
    except ProcessLookupError:
        return False
    except PermissionError:
        log.warning("process %d of a task runs as another user: it can't be sent signal %d", process.pid, number)
        return False
    finally:
        os.close(fd)
    return True


def is_ours_to_signal(pid: int) -> bool:
    """False where whoever has this id runs as another user, and we may not signal those."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return False
    except ProcessLookupError:
        return True
    return True


def become_subreaper() -> None:
    """From now on a descendant whose parent ends becomes our child: no daemon slips away to init."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"can't become a subreaper: {os.strerror(error)}")


def let_go(pid: int, number: int) -> None:
    """Trace a child no longer that has made us its tracer (PTRACE_TRACEME) and waits for us with this signal.

    It is given the signal as if nobody had come between; but for the SIGTRAP that comes with an exec while traced.
    """
    libc = ctypes.CDLL(None)
    libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
    libc.ptrace(_PTRACE_DETACH, pid, None, None if number == signal.SIGTRAP else number)  # fails if it is dead by now


def _read(path: str) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""
    try:
        pieces = []
        while piece := os.read(fd, _PIECE):
            pieces.append(piece)
        return b"".join(pieces)
    except (ProcessLookupError, PermissionError):
        return b""
    finally:
        os.close(fd)
