"""Requests about a job that only the node of the job can answer: passed on towards it, hop by hop.

Each node on the way knows the next one; nobody waits for anybody, and an answer that does not come is given up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from meeseeks.core.node_state import NodeState
from meeseeks.errors import ProtocolError, RequestFailed
from meeseeks.wire import codec
from meeseeks.wire.messages import Reply

from .peers import Peers

__all__ = ["ANSWER_WITHIN", "Relay"]

ANSWER_WITHIN = 5.0
"""Seconds that another node has for its answer."""

_HOPS_MAX = 16
_WAITING_MAX = 5000
"""Requests that wait for other nodes at once."""

T = TypeVar("T")


class Relay:
    """What was passed on and is not answered yet. It belongs to the node's loop."""

    def __init__(self, state: NodeState, peers: Peers) -> None:
        self._state = state
        self._peers = peers
        self._waiting: dict[int, tuple[float, str, Callable[[Any], None]]] = {}
        self._number = 0

    def pass_on(
        self,
        node: str,
        request: tuple[str, Any],
        hops: int,
        kind: type[T],
        done: Callable[[T | Exception], None],
        within: float = ANSWER_WITHIN,
    ) -> None:
        """Send `request`, (type, data), on its way to `node`; `hops` nodes have passed it on, this one included.

        `done` gets the answer, as `kind`, or an error of ours. RequestFailed at once where there is no way.
        """
        now = self._state.ledger.now
        hop = self._state.mesh.next_hop(node, now)
        if hop is None or not 1 <= hops <= _HOPS_MAX:
            raise RequestFailed(f"node {node!r}, which has the job, can't be reached from here")
        if len(self._waiting) >= _WAITING_MAX:
            raise RequestFailed(f"{_WAITING_MAX} requests for other nodes wait for their answers here: ask again later")
        self._number += 1
        number, (name, data) = self._number, request

        def answered(reply: Reply) -> None:
            if self._waiting.pop(number, None) is None:
                return
            if reply.response is None:
                # Whatever it was: that node may only not have heard of the job yet.
                done(RequestFailed(reply.error.message if reply.error is not None else "no reason given"))
                return
            try:
                done(codec.convert(reply.response.get(name), kind))
            except ProtocolError as error:
                done(error)

        self._waiting[number] = (now + within, node, done)
        if not self._peers.request(hop, name, data, answered, now + within):
            del self._waiting[number]
            raise RequestFailed(f"node {node!r}, which has the job, can't be reached from here")

    def expire(self, now: float) -> None:
        """Answer those whose node has not answered in time."""
        for number, (deadline, node, done) in list(self._waiting.items()):
            if deadline <= now:
                del self._waiting[number]
                done(RequestFailed(f"node {node!r}, which has the job, does not answer"))
