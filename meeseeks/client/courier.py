"""Asks nodes that the Client has left what became of a submit that they did not answer.

Such a submit may go to no other node, since two nodes that accept one id could both run it. So its own node is asked
again, by a connection beside the Client's, until it answers or the job is heard of from the mesh.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from functools import partial

from meeseeks.errors import ClientClosed, InvalidRequest, ProtocolError, RequestFailed

from .cache import Cache
from .call import Call, Repeat
from .channel import Channel
from .settings import Place
from .writes import Write

__all__ = ["Courier"]

_log = logging.getLogger(__name__)

_PAUSE = 2.0
"""Seconds between two attempts."""


class Courier:
    """At most one connection a node, for as long as a question is open. Used by the I/O thread of its Client."""

    def __init__(self, cache: Cache, channel_to: Callable[[Place], Channel]) -> None:
        self._cache = cache
        self._channel_to = channel_to
        self._open: dict[Place, Channel] = {}
        self._ended: deque[Place] = deque()
        self._next_at = 0.0

    def tick(self, here: Place, now: float) -> None:
        """Ask for what is in doubt at other nodes than the one at `here`, when it is time to."""
        while self._ended:
            self._open.pop(self._ended.popleft()).release()
        if now < self._next_at:
            return
        self._next_at = now + _PAUSE
        for place, batch in self._cache.strays(here, set(self._open)).items():
            side = self._open[place] = self._channel_to(place)
            side.start()
            requests = [write.request for write in batch]
            done = partial(self._on_answer, place, batch)
            side.post("submit_many", requests, repeat=Repeat.SAME_NODE, callback=done)

    def end(self) -> None:
        """Close what is open; what is not answered by now stays in doubt."""
        for side in self._open.values():
            side.release()
        self._open.clear()

    def _on_answer(self, place: Place, batch: list[Write], call: Call) -> None:
        """In the thread of that connection."""
        if call.error is None:
            self._cache.acknowledge(batch, {})  # its seq means nothing to the node that the cache follows
        elif isinstance(call.error, (InvalidRequest, RequestFailed, ProtocolError)):
            self._cache.refuse(batch, call.error)
        elif not isinstance(call.error, ClientClosed):
            _log.info("%d submits stay in doubt: %s", len(batch), call.error)
            self._cache.retry(batch, call.sent_to)
        self._ended.append(place)
