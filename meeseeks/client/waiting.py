"""Waiting for jobs to be over: by being told, where there is a cache, else by asking."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

from meeseeks.errors import RequestTimeout

from .arguments import is_exited
from .cache import Cache
from .channel import Channel

__all__ = ["poll_until_over", "watch_until_over"]

_POLL_MIN, _POLL_MAX = 0.02, 0.2
"""Seconds between two queries, where there is no cache that would be told."""


def watch_until_over(cache: Cache, channel: Channel, jids: Sequence[str], deadline: float | None, enough: int) -> None:
    """Return when so many of the jobs are over for good, or nobody knows them; RequestTimeout at the deadline."""
    over: set[str] = set()
    done = threading.Event()

    def watcher(jid: str) -> None:
        over.add(jid)
        if len(over) >= enough:
            done.set()

    if not enough:
        return
    try:
        for jid in jids:
            cache.watch(jid, watcher)
        unknown = [jid for jid in jids if jid not in cache]
        if unknown:
            # Not here: the push is still on its way, it has left the cache, or there is no such job.
            known = channel.call("query", unknown)
            for jid in unknown:
                if jid not in known or is_exited(known[jid]):
                    watcher(jid)
        while not done.wait(_left(deadline)):
            channel.check_open()
            if deadline is not None and time.monotonic() >= deadline:
                raise _late(len(over), jids)
    finally:
        for jid in jids:
            cache.unwatch(jid, watcher)


def poll_until_over(channel: Channel, jids: Sequence[str], deadline: float | None, enough: int) -> dict[str, Any]:
    """The same by queries; returns {id: jobinfo, or False} of all the jobs."""
    pause = _POLL_MIN
    waiter = threading.Event()
    while True:
        infos = channel.call("query", list(jids))
        over = [jid for jid in jids if jid not in infos or is_exited(infos[jid])]
        if len(over) >= enough:
            return {jid: infos.get(jid, False) for jid in jids}
        if deadline is not None and time.monotonic() >= deadline:
            raise _late(len(over), jids)
        waiter.wait(min(pause, _left(deadline)))
        pause = min(_POLL_MAX, pause * 1.5)


def _left(deadline: float | None) -> float:
    return 1.0 if deadline is None else min(1.0, max(0.0, deadline - time.monotonic()))


def _late(over: int, jids: Sequence[str]) -> RequestTimeout:
    return RequestTimeout(f"{over} of {len(jids)} jobs were over in time")
