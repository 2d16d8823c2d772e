"""Writes of the user's thread are whole, also where a signal handler raises in the midst of one (Ctrl-C).

Nothing can keep such an exception out. So what it left half done is put together anew from the parts of which each is
changed in one step: the records, the node's records under them, and the writes by their numbers.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from meeseeks.core.record import Record
from meeseeks.core.table import Table
from meeseeks.errors import MeeseeksError

from .shown import overlaid
from .writes import Outbox

__all__ = ["put_together", "whole"]

P = ParamSpec("P")
R = TypeVar("R")


class Mendable(Protocol):
    """What has a lock, and can be put together anew."""

    lock: threading.RLock

    def mend(self) -> None:
        """Be whole again."""


M = TypeVar("M", bound=Mendable)


def whole(write: Callable[Concatenate[M, P], R]) -> Callable[Concatenate[M, P], R]:
    """A method that writes, under the lock, and is mended if anything but a refusal ends it."""

    def call(self: M, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with self.lock:
            try:
                return write(self, *args, **kwargs)
            except MeeseeksError:
                raise
            except BaseException:
                self.mend()
                raise

    return functools.update_wrapper(call, write)


def put_together(old: Table, truth: dict[str, Record], outbox: Outbox) -> Table:
    """A table of the records of another, whose indexes may not fit them, each with the writes to it on top.

    `truth` (the node's record of jobs with writes) and `outbox` are mended on the way.
    """
    outbox.mend()
    for write in outbox:
        if not write.fresh and (record := old.get(write.jid)) is not None:
            truth.setdefault(write.jid, record)
    shown = [overlaid(record, outbox.of(jid)) for jid, record in truth.items()]
    table, now = Table(), time.monotonic()
    for record in {record.spec.id: record for record in (*old, *shown)}.values():
        table.apply(record, now)
    return table
