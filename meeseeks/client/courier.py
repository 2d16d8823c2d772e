"""Asks nodes that the Client has left what became of a submit or a rerun that they did not answer.

Such a submit may go to no other node, since two nodes that accept one id could both run it. So its own node is asked
again, by a connection beside the Client's, until it answers or the job is heard of from the mesh. A rerun that is asked
for twice is two runs, so it is looked first whether it was carried out.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from meeseeks.core.record import END_STATES
from meeseeks.errors import ClientClosed, InvalidRequest, ProtocolError, RequestFailed

from .cache import Cache
from .call import Call, Repeat
from .channel import Channel
from .settings import Place
from .writes import Errand, Write

__all__ = ["Courier"]

_log = logging.getLogger(__name__)

_PAUSE = 2.0
"""Seconds between two attempts."""


class Courier:
    """At most one connection a node and kind of question, while that is open. Used by the I/O thread of its Client."""

    def __init__(self, cache: Cache, channel_to: Callable[[Place], Channel]) -> None:
        self._cache = cache
        self._channel_to = channel_to
        self._open: dict[Errand, Channel] = {}
        self._ended: deque[Errand] = deque()
        self._next_at = 0.0

    def tick(self, here: Place, now: float) -> None:
        """Ask for what is in doubt at other nodes than the one at `here`, when it is time to."""
        while self._ended:
            self._open.pop(self._ended.popleft()).release()
        if now < self._next_at:
            return
        self._next_at = now + _PAUSE
        for errand, batch in self._cache.strays(here, self._open).items():
            place, is_rerun = errand
            side = self._channel_to(place)
            try:
                side.start()
            except RuntimeError as error:  # from Python 3.12 on also where the process ends
                _log.warning("can't ask for %d submits now: %s", len(batch), error)
                self._cache.retry(batch, None)
                continue
            self._open[errand] = side
            if is_rerun:
                known = partial(self._on_known, side, errand, batch)
                side.post("query", [write.jid for write in batch], callback=known)
            else:
                self._submit(side, errand, batch, Repeat.SAME_NODE)

    def end(self) -> None:
        """Close what is open; what is not answered by now stays in doubt."""
        for side in self._open.values():
            side.release()
        self._open.clear()

    def _submit(self, side: Channel, errand: Errand, batch: list[Write], repeat: Repeat) -> None:
        requests, done = [write.request for write in batch], partial(self._on_answer, errand, batch)
        side.post("submit_many", requests, repeat=repeat, callback=done)

    # --- in the thread of that connection

    def _on_known(self, side: Channel, errand: Errand, batch: list[Write], call: Call) -> None:
        """The node says how jobs are that it was to run again: ask for those that ended before, and for no others."""
        infos = call.result if isinstance(call.result, dict) else {}
        wanted = [write for write in batch if _is_before(write, infos.get(write.jid))]
        # Carried out already: our own node will tell. Or the node is behind itself, as it has just come back.
        self._cache.retry([write for write in batch if write not in wanted], None)
        if wanted:
            self._submit(side, errand, wanted, Repeat.NEVER)
        else:
            self._ended.append(errand)

    def _on_answer(self, errand: Errand, batch: list[Write], call: Call) -> None:
        if call.error is None and errand[1]:
            self._cache.retry(batch, None)  # done when our own node tells of it, and what was written later as well
        elif call.error is None:
            self._cache.acknowledge(batch, {})  # its seq means nothing to the node that the cache follows
        elif isinstance(call.error, (InvalidRequest, RequestFailed, ProtocolError)):
            self._cache.refuse(batch, call.error)
        elif not isinstance(call.error, ClientClosed):
            _log.info("%d submits stay in doubt: %s", len(batch), call.error)
            self._cache.retry(batch, call.sent_to)
        self._ended.append(errand)


def _is_before(write: Write, info: dict[str, Any] | None) -> bool:
    """Whether a node has a job as it was when its rerun was asked for, and the rerun itself was not seen meanwhile."""
    if info is None or write.seq is not None:
        return False
    return bool(info["generation"] == write.generation and info["state"] in END_STATES and not info["active"])
