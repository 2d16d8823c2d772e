"""How a task ended, in the words of its node: exit code, error, times, and its output as far as that is small."""

from __future__ import annotations

import errno
import logging
import signal
import time
from typing import NamedTuple

from meeseeks.core.effects import Exited, TaskKey

from .journal import Entry
from .spool import STREAMS, Spool
from .task import Task

__all__ = ["inherited", "result"]

log = logging.getLogger(__name__)


class _Stream(NamedTuple):
    """What is told of one stream. This is one that is not in the spool at all."""

    size: int = 0
    text: bytes | None = None
    is_left: bool = False
    """Whether it stays in the spool, for the node to read."""


def result(task: Task, spool: Spool, inline_output: int) -> Exited:
    """The end of a task of which nothing is left, with what it has written as far as that is small."""
    key = task.order.key
    paths = zip(STREAMS, (task.order.stdout, task.order.stderr), strict=True)
    streams = [_captured(key, stream, spool, inline_output) if path is None else _Stream() for stream, path in paths]
    error = task.error
    if error is None and task.rc is not None and task.rc < 0:
        error = f"ended by signal {_signal_name(-task.rc)}"
    return _exited(key, streams, rc=task.rc, error=error, start_ts=task.start_ts, end_ts=time.time())


def inherited(end: Entry, spool: Spool, inline_output: int) -> Exited:
    """The end of a task of a dead executor, by its journal. What it has written is where it has been written to."""
    key = end.key
    assert key is not None
    streams = [
        _captured(key, stream, spool, inline_output) if spool.has(key, stream) else _Stream() for stream in STREAMS
    ]
    return _exited(key, streams, rc=end.rc, error=end.error, start_ts=end.start_ts, end_ts=end.end_ts)


def _captured(key: TaskKey, stream: str, spool: Spool, inline_output: int) -> _Stream:
    """One that can't be read (its job may have seen to that) is left to the node, which says so to whoever asks."""
    size = 0
    try:
        size = spool.size(key, stream)
        if size > inline_output:
            return _Stream(size, None, is_left=True)
        text = spool.read(key, stream, 0, size)[0] if size else b""
        if len(text) < size:
            raise OSError(errno.ENOENT, "the file was deleted")
        return _Stream(size, text)
    except OSError as error:
        log.warning("the %s of job %r can't be read: %s", stream, key.job, error.strerror)
        return _Stream(size, None, is_left=True)


def _exited(
    key: TaskKey,
    streams: list[_Stream],
    *,
    rc: int | None,
    error: str | None,
    start_ts: float | None,
    end_ts: float,
) -> Exited:
    stdout, stderr = streams
    return Exited(
        key=key,
        rc=rc,
        error=error,
        start_ts=start_ts,
        end_ts=end_ts,
        stdout_data=stdout.text,
        stderr_data=stderr.text,
        stdout_size=stdout.size,
        stderr_size=stderr.size,
        spooled=stdout.is_left or stderr.is_left,
    )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)  # a real-time signal
