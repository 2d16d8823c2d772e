"""One executor a state folder: a locked file that says which process it is, and where it looks for its node.

The lock goes with the process, however it ends, and its children don't inherit it. So a held lock means a living
executor, and a free one that its process is dead, whatever the file says.
"""

from __future__ import annotations

import fcntl
import logging
import math
import os
import select
import signal
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from meeseeks.clock import monotonic

from .processes import inspect

__all__ = ["Holder", "Lock", "holder_of"]

_NAME = "executor.lock"
_SIGNED_BYTES = 512
_TELL_AFTER_S = 2.0
_LEAVE_MS = 11_000  # an executor that was told to stop takes up to ten seconds

log = logging.getLogger(__name__)


class Holder(msgspec.Struct, frozen=True):
    """The executor that holds a lock."""

    pid: int
    ticks: int
    """When it started: an id alone may be a stranger's by now."""
    socket: str


class Lock:
    """The lock of a state folder, for the executor to take."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._fd = -1

    def take(self, is_wanted: Callable[[], None]) -> None:
        """Take it. An executor that holds it has lost its node: it is told to stop, then killed; this waits for it.

        `is_wanted` raises where it is us who have lost our node meanwhile: then that one is left alone.
        """
        self._fd = os.open(self._folder / _NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        tell_at = monotonic() + _TELL_AFTER_S
        while not _try(self._fd):
            is_wanted()
            found = holder_of(self._folder)
            if found is None:
                if monotonic() > tell_at:
                    tell_at = math.inf
                    log.warning("waiting: %s is locked by a process that does not say which", self._folder / _NAME)
                time.sleep(0.01)  # somebody looks who holds it, or has it and has not said so yet
                continue
            holder, pidfd = found
            log.warning("waiting for the earlier executor (process %d) to end", holder.pid)
            try:
                _end(pidfd)
            finally:
                os.close(pidfd)

    def sign(self, socket: Path) -> None:
        """Say in it who holds it. OSError where there is no room even for that, which is rare: it is there already."""
        me = inspect(os.getpid())
        assert me is not None
        # Padded, and never cut: so a full disk has room for what is no longer than the last one.
        os.pwrite(self._fd, msgspec.json.encode(Holder(me.pid, me.ticks, str(socket))).ljust(_SIGNED_BYTES), 0)

    def release(self) -> None:
        """Let the next one in."""
        os.close(self._fd)
        self._fd = -1


def holder_of(folder: Path) -> tuple[Holder, int] | None:
    """The living executor of a state folder and a pidfd of it, which the caller closes; or None."""
    try:
        fd = os.open(folder / _NAME, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        if _try(fd):
            return None
        try:
            holder = msgspec.json.decode(os.pread(fd, 4096, 0), type=Holder)
            pidfd = os.pidfd_open(holder.pid)
        except (msgspec.DecodeError, ProcessLookupError):
            return None  # it has only just taken or left it
        process = inspect(holder.pid)
        if process is not None and process.ticks == holder.ticks:
            return holder, pidfd
        os.close(pidfd)  # the file is about an earlier one
        return None
    finally:
        os.close(fd)


def _try(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _end(pidfd: int) -> None:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    for number, wait_ms in ((signal.SIGTERM, _LEAVE_MS), (signal.SIGKILL, 1000)):
        try:
            signal.pidfd_send_signal(pidfd, number)
        except ProcessLookupError:
            return
        if poll.poll(wait_ms):
            return
