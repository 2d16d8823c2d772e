"""Who sent a request, the answer to it, and the answer as a frame."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from meeseeks.errors import AuthenticationFailed, MeeseeksError, RequestFailed
from meeseeks.wire import codec
from meeseeks.wire.messages import MAX_MESSAGE_BYTES, ErrorInfo, Reply
from meeseeks.wire.transfer import Received

if TYPE_CHECKING:
    from .node import Node

__all__ = ["Asker", "frame_of"]

log = logging.getLogger(__name__)


class Asker:
    """Who sent a request, and how to answer it (once)."""

    def __init__(self, received: Received, request_id: int | str | None, kind: str, node: Node) -> None:
        self._envelope = received.envelope
        self._id = request_id
        self._kind = kind
        self._node = node
        self.host = received.host
        self.user = received.user

    def answer(self, result: Any) -> None:
        """Answer with a result, or with the error that an exception of ours stands for."""
        try:
            # It may have waited for this, and its key been taken off the list meanwhile.
            self._node.access.check_known(self.user)
        except AuthenticationFailed as error:
            result = error
        if isinstance(result, MeeseeksError):
            reply = Reply(id=self._id, node=self._node.name, error=ErrorInfo(result.code, str(result)))
        else:
            reply = Reply(id=self._id, node=self._node.name, response={self._kind: result})
        self._node.replies.append((self._envelope, reply))


def frame_of(reply: Reply, node: str) -> bytes:
    """The answer on the wire; an error instead where it can't be sent."""
    try:
        frame = codec.encode(reply)
    except (OverflowError, TypeError, ValueError) as error:
        # Of numbers that a mad peer has told: they must not end the node.
        log.exception("the answer to a request can't be sent")
        text = f"the answer can't be sent: {error}"
        return codec.encode(Reply(id=reply.id, node=node, error=ErrorInfo(RequestFailed.code, text)))
    if len(frame) <= MAX_MESSAGE_BYTES:
        return frame
    text = f"the answer has {len(frame)} bytes, more than the {MAX_MESSAGE_BYTES} of a message: ask for fewer jobs"
    return codec.encode(Reply(id=reply.id, node=node, error=ErrorInfo(RequestFailed.code, text)))
