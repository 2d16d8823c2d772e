"""The stdin of tasks whose jobspec says `-`: a pipe, written to as pieces come in and as fast as the task reads.

What was taken of a piece is in a buffer here, and outlives the node as the task does. Taking is the flow control: a
buffer that is full takes no more, and its answer waits until it does. Only a job's first run is given anything: nobody
keeps what it has read, so a later run would not get the same, and its stdin is empty.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import select
from collections.abc import Callable
from functools import partial

from meeseeks.clock import monotonic
from meeseeks.core.effects import Start
from meeseeks.wire.messages import Fed, Feed

from .deadlines import Deadline, Deadlines

__all__ = ["PIPED", "Inputs", "is_piped"]

PIPED = "-"
"""The `stdin` of a job that is given its input piece by piece."""

_BUFFER = 1024 * 1024
_PIPE = 256 * 1024
_HOLD_S = 1.0
"""How long an answer waits for room: shorter than anybody's patience."""
_TURN_WRITES = 16
_SPARE_FILES = 16
"""Descriptors that pipes leave for the rest of the executor: without any it could end no task."""


def is_piped(order: Start) -> bool:
    """Whether this run is given its stdin through a pipe."""
    return order.stdin == PIPED and order.key.generation == 1 and order.key.run == 1


class _Pipe:
    """The writing end of one task's stdin. `held` is a Feed that was not taken to its end, and is not answered yet."""

    def __init__(self, order: Start, fd: int) -> None:
        self.key = order.key
        self.fd = fd  # -1: closed
        self.taken = 0
        self.eof = False
        self.buffer = bytearray()
        self.held: Feed | None = None
        self.deadline: Deadline | None = None
        self.is_watched = False

    def take(self, feed: Feed) -> bool:
        """Buffer what there is room for, and is new; whether that was all of it."""
        end = feed.offset + len(feed.data)
        if feed.offset <= self.taken < end and not self.eof:
            at = self.taken - feed.offset
            piece = memoryview(feed.data)[at : at + max(0, _BUFFER - len(self.buffer))]
            self.buffer += piece
            self.taken += len(piece)
        if self.taken == end and feed.eof:
            self.eof = True
        # Beyond what we have there is a gap: it can't be taken, and waiting would not help.
        return self.taken >= end or feed.offset > self.taken


class Inputs:
    """All of them. `tell` is given the answers; `fileno` is readable when `turn` has something to do."""

    def __init__(self, deadlines: Deadlines, tell: Callable[[Fed], None]) -> None:
        self._deadlines = deadlines
        self._tell = tell
        self._epoll = select.epoll()
        self._pipes: dict[tuple[object, ...], _Pipe] = {}
        self._by_fd: dict[int, _Pipe] = {}

    def fileno(self) -> int:
        """For a poller."""
        return self._epoll.fileno()

    def open(self, order: Start) -> int:
        """Make the pipe of a task; the end that it reads from, which the caller closes after the spawn."""
        reading, writing = os.pipe2(os.O_CLOEXEC)
        if writing >= resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _SPARE_FILES:
            os.close(reading)
            os.close(writing)
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        os.set_blocking(writing, False)
        with contextlib.suppress(OSError):  # the user has many large pipes already: a small one is only slower
            fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, _PIPE)
        self._pipes[order.key] = _Pipe(order, writing)
        return reading

    def feed(self, feed: Feed) -> None:
        """Take a piece, or as much of it as there is room for; what was taken is answered now or soon."""
        pipe = self._pipes.get(feed.key)
        if pipe is None:
            self._tell(Fed(key=feed.key, number=feed.number, taken=0, open=False))
            return
        self._answer(pipe)  # whoever asked before has given up, or was somebody else
        self._write(pipe)
        pipe.held = feed
        is_taken = pipe.fd < 0 or pipe.take(feed)
        self._write(pipe)
        if is_taken:
            self._answer(pipe)
        elif pipe.held is not None:
            pipe.deadline = self._deadlines.add(monotonic() + _HOLD_S, partial(self._answer, pipe))

    def turn(self) -> None:
        """Write where there is room now."""
        if not self._by_fd:
            return
        for fd, _ in self._epoll.poll(0):
            pipe = self._by_fd.get(fd)
            if pipe is not None:
                self._write(pipe)

    def close(self, order: Start) -> None:
        """The task is gone, or did not come about."""
        pipe = self._pipes.pop(order.key, None)
        if pipe is not None:
            self._shut(pipe)
            self._answer(pipe)

    def _write(self, pipe: _Pipe) -> None:
        """Write what the pipe takes; at the end of all, or where nobody reads any more, close it."""
        for _ in range(_TURN_WRITES):
            if pipe.fd < 0 or not pipe.buffer:
                break
            try:
                written = os.write(pipe.fd, pipe.buffer)
            except BlockingIOError:
                break
            except OSError:  # EPIPE: its reader has closed it
                self._shut(pipe)
                break
            del pipe.buffer[:written]
            if pipe.held is not None and pipe.take(pipe.held):
                self._answer(pipe)
        if pipe.eof and not pipe.buffer:
            self._shut(pipe)
        if pipe.fd < 0:
            self._answer(pipe)
            return
        # Only while there is something to write: a pipe that has room, or no reader, is always ready.
        if bool(pipe.buffer) != pipe.is_watched:
            pipe.is_watched = bool(pipe.buffer)
            if pipe.is_watched:
                self._epoll.register(pipe.fd, select.EPOLLOUT)
                self._by_fd[pipe.fd] = pipe
            else:
                self._unwatch(pipe)

    def _answer(self, pipe: _Pipe) -> None:
        """Say what was taken to whoever waits for it."""
        feed, pipe.held = pipe.held, None
        self._deadlines.cancel(pipe.deadline)
        pipe.deadline = None
        if feed is not None:
            is_open = pipe.fd >= 0 and not pipe.eof
            self._tell(Fed(key=pipe.key, number=feed.number, taken=pipe.taken, open=is_open))

    def _shut(self, pipe: _Pipe) -> None:
        if pipe.fd < 0:
            return
        if pipe.is_watched:
            pipe.is_watched = False
            self._unwatch(pipe)
        os.close(pipe.fd)
        pipe.fd = -1
        pipe.buffer.clear()

    def _unwatch(self, pipe: _Pipe) -> None:
        self._epoll.unregister(pipe.fd)
        del self._by_fd[pipe.fd]
