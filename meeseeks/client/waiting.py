"""Waiting for jobs to be over: by being told, where there is a cache, else by asking."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from meeseeks.errors import RequestTimeout

from .arguments import is_exited
from .unknown import Unknown

if TYPE_CHECKING:
    from .cache import Cache

__all__ = ["poll_until_over", "watch_until_over"]

_POLL_MIN, _POLL_MAX = 0.02, 0.2
"""Seconds between two queries, where there is no cache that would be told."""
_POLL_ONE = 0.0005
"""The same at first, for each job that is asked for: a few are asked for sooner, since that costs little."""

Ask = Callable[[list[str]], dict[str, Any]]
"""{id: jobinfo} of those of the ids that are known, or in doubt."""


def watch_until_over(
    cache: Cache,
    ask: Ask,
    look_up: Ask,
    check_open: Callable[[], None],
    jids: Sequence[str],
    deadline: float | None,
    enough: int,
) -> dict[str, Any]:
    """Return when so many of the jobs are over for good, or nobody knows them; RequestTimeout at the deadline.

    What is returned says so of each that counts: one that comes, or is run again, just then is waited for once more.
    """
    pause = _POLL_MIN
    while True:
        _watch(cache, ask, check_open, jids, deadline, enough)
        infos = look_up(list(jids))
        over = sum(not info or is_exited(info) for info in infos.values())
        if over >= enough:
            return infos
        if _is_past(deadline):
            raise _late(over, jids)
        threading.Event().wait(min(pause, _left(deadline)))
        pause = min(_POLL_MAX, pause * 1.5)


def _watch(
    cache: Cache, ask: Ask, check_open: Callable[[], None], jids: Sequence[str], deadline: float | None, enough: int
) -> None:
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
        unknown, pause = Unknown(), _POLL_MIN
        # Not here: the push is still on its way, it has left the cache, or there is no such job.
        while missing := [jid for jid in jids if jid not in over and jid not in cache]:
            for jid in unknown.sort(missing, ask(missing), time.monotonic()):
                watcher(jid)
            if done.wait(min(pause, _left(deadline))) or _is_past(deadline):
                break
            pause = min(_POLL_MAX, pause * 1.5)
        while not done.wait(_left(deadline)):
            check_open()
            if _is_past(deadline):
                raise _late(len(over), jids)
    finally:
        for jid in jids:
            cache.unwatch(jid, watcher)


def poll_until_over(ask: Ask, jids: Sequence[str], deadline: float | None, enough: int) -> dict[str, Any]:
    """The same by queries; returns {id: jobinfo, or False} of all the jobs."""
    pause = min(_POLL_MIN, _POLL_ONE * len(jids))
    waiter, unknown = threading.Event(), Unknown()
    infos: dict[str, Any] = {}
    left = dict.fromkeys(jids)
    while True:
        try:
            answer = ask(list(left))
        except RequestTimeout as error:
            if not _is_past(deadline):
                raise
            raise _late(len(jids) - len(left), jids, f"; the last that was heard: {error}") from error
        infos.update(answer)
        for jid in unknown.sort(list(left), answer, time.monotonic()):
            infos[jid] = answer.get(jid, False)
            del left[jid]
        if len(jids) - len(left) >= enough:
            return {jid: infos.get(jid, False) for jid in jids}
        if _is_past(deadline):
            raise _late(len(jids) - len(left), jids)
        waiter.wait(min(pause, _left(deadline)))
        pause = min(_POLL_MAX, pause * 1.5)


def _left(deadline: float | None) -> float:
    return 1.0 if deadline is None else min(1.0, max(0.0, deadline - time.monotonic()))


def _is_past(deadline: float | None) -> bool:
    return deadline is not None and time.monotonic() >= deadline


def _late(over: int, jids: Sequence[str], why: str = "") -> RequestTimeout:
    return RequestTimeout(f"{over} of {len(jids)} jobs were over in time{why}")
