"""How a task ended, in the words of its node: exit code, error, times, and its output as far as that is small."""

from __future__ import annotations

import signal
import time

from meeseeks.core.effects import Exited

from .journal import Entry
from .spool import STREAMS, Spool
from .task import Task

__all__ = ["inherited", "result"]


def result(task: Task, spool: Spool, inline_output: int) -> Exited:
    """The end of a task of which nothing is left, with what it has written as far as that is small."""
    key = task.order.key
    sizes, texts = [], []
    for stream, path in (("stdout", task.order.stdout), ("stderr", task.order.stderr)):
        size = spool.size(key, stream) if path is None else 0
        fits = path is None and size <= inline_output
        sizes.append(size)
        texts.append((spool.read(key, stream, 0, size)[0] if size else b"") if fits else None)
    error = task.error
    if error is None and task.rc is not None and task.rc < 0:
        error = f"ended by signal {_signal_name(-task.rc)}"
    return Exited(
        key=key,
        rc=task.rc,
        error=error,
        start_ts=task.start_ts,
        end_ts=time.time(),
        stdout_data=texts[0],
        stderr_data=texts[1],
        stdout_size=sizes[0],
        stderr_size=sizes[1],
        spooled=max(sizes) > inline_output,
    )


def inherited(end: Entry, spool: Spool, inline_output: int) -> Exited:
    """The end of a task of a dead executor, by its journal. What it has written is where it has been written to."""
    assert end.key is not None
    sizes = [spool.size(end.key, stream) for stream in STREAMS]
    texts = [
        spool.read(end.key, stream, 0, size)[0] if spool.has(end.key, stream) and size <= inline_output else None
        for stream, size in zip(STREAMS, sizes, strict=True)
    ]
    return Exited(
        key=end.key,
        rc=end.rc,
        error=end.error,
        start_ts=end.start_ts,
        end_ts=end.end_ts,
        stdout_data=texts[0],
        stderr_data=texts[1],
        stdout_size=sizes[0],
        stderr_size=sizes[1],
        spooled=max(sizes) > inline_output,
    )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)  # a real-time signal
