"""Following jobs until they are over: what `mks wait` and `mks sub --wait` look at, without a screen.

A few jobs are asked for together, many are followed by push. The push brings the whole table of the node along, which
is more than a few jobs are worth, and far less than asking for thousands again and again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple

from meeseeks.client.arguments import is_exited
from meeseeks.client.unknown import Unknown
from meeseeks.core.record import END_STATES

if TYPE_CHECKING:
    from meeseeks import Client

__all__ = ["Progress", "follow"]

Info = dict[str, Any]

_FEW = 100
"""So many jobs fit into one question."""
_AT_ONCE = 500
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.25
"""Seconds between two looks; what ends meanwhile is told at the next one."""
_FIRST_SYNC = 120.0
"""Seconds that reading a node's whole table may take."""
_SIGN_OF_LIFE = 10.0
"""Seconds after which a node that pushes nothing of interest is asked whether it is there."""


class Progress(NamedTuple):
    """How far it is."""

    ended: dict[str, Info | None]
    """The jobs that were found to be over since the last time; None is one that is known no more."""
    running: int
    waiting: int


def follow(
    client: Client, follower: Callable[[], Client], infos: dict[str, Info], deadline: float
) -> Iterator[Progress]:
    """Yield the progress of these jobs, several times a second, until all are over. Raises what the client raises.

    `infos` is how they were found; `follower` makes a client with a cache, which is used for many jobs only, and is
    not waited for beyond the `deadline`.
    """
    over: dict[str, Info | None] = {jid: info for jid, info in infos.items() if is_exited(info)}
    left = {jid: info for jid, info in infos.items() if jid not in over}
    running = sum(map(_runs, left.values()))
    yield Progress(over, running, len(left) - running)
    if not left:
        return
    if len(left) <= _FEW:
        yield from _by_asking(client, list(left))
        return
    # That a connection broke, and is made again, is nothing to a person; that it isn't, is raised.
    logging.getLogger("meeseeks").addHandler(logging.NullHandler())
    with closing(follower()) as pushed:
        yield from _by_push(pushed, client, list(left), deadline)


def _by_asking(client: Client, left: Sequence[str]) -> Iterator[Progress]:
    pause, unknown = _FIRST_PAUSE, Unknown()
    while left:
        time.sleep(pause)
        pause = min(_LONGEST_PAUSE, pause * 1.3)
        infos: dict[str, Info] = client.query(list(left))
        ended = {jid: infos.get(jid) for jid in unknown.sort(left, infos, time.monotonic())}
        left = [jid for jid in left if jid not in ended]
        running = sum(jid in infos and _runs(infos[jid]) for jid in left)
        yield Progress(ended, running, len(left) - running)


def _runs(info: Info) -> bool:
    """Also one that is killed, and whose node has not ended it yet."""
    return info["state"] == "running" or (info["active"] and info["state"] in END_STATES)


def _by_push(pushed: Client, client: Client, jids: Sequence[str], deadline: float) -> Iterator[Progress]:
    told: deque[str] = deque()
    some = threading.Event()

    def on_over(jid: str) -> None:
        told.append(jid)
        some.set()

    pushed.wait(max(0.0, min(_FIRST_SYNC, deadline - time.monotonic())))
    for jid in jids:
        pushed.watch(jid, on_over)
    left = dict.fromkeys(jids)
    heard_at = time.monotonic()
    while left:
        some.wait(_LONGEST_PAUSE)
        some.clear()
        over = [told.popleft() for _ in range(len(told))]
        now = time.monotonic()
        if over:
            heard_at = now
        elif now - heard_at > _SIGN_OF_LIFE:
            client.query([])  # which says what is wrong, if it does not answer
            heard_at = now
        ended = _infos(pushed, client, over)
        for jid in over:
            left.pop(jid, None)
        running = sum(jid in left for jid in pushed.list_jobs(state="running"))
        yield Progress(ended, running, len(left) - running)
        if over:
            time.sleep(_FIRST_PAUSE)  # so that ends that come one by one are not shown one by one


def _infos(pushed: Client, client: Client, jids: Sequence[str]) -> dict[str, Info | None]:
    """From the cache; what has left it again, from the node."""
    infos: dict[str, Info] = pushed.get(list(jids))
    for part in _slices([jid for jid in jids if jid not in infos]):
        infos.update(client.query(part))
    return {jid: infos.get(jid) for jid in jids}


def _slices(jids: Sequence[str]) -> Iterable[list[str]]:
    for at in range(0, len(jids), _AT_ONCE):
        yield list(jids[at : at + _AT_ONCE])
