"""Messages in and out of ZeroMQ sockets, whole and without ever waiting: a body has as many frames as it needs.

No frame is larger than MAX_FRAME_BYTES. ZeroMQ holds a frame until it is whole, before it is known who sends it: its
size is what a stranger can make a node hold. 16 KiB are as fast as any more; with less the frames themselves take time.
"""

from __future__ import annotations

from typing import NamedTuple

import zmq

from .messages import MAX_FRAME_BYTES, MAX_MESSAGE_BYTES
from .origin import host_of

__all__ = [
    "Received",
    "Socket",
    "Subscription",
    "receive_nowait",
    "receive_reply",
    "receive_request",
    "receive_subscription",
    "receive_update",
    "send_nowait",
]

Socket = zmq.Socket[bytes]
_PIECES_MAX = MAX_MESSAGE_BYTES // MAX_FRAME_BYTES + 1


class Received(NamedTuple):
    """A message of a ROUTER: its envelope, which the answer begins with; its body; who sent it.

    `host` is where it comes from, `user` the public key of its sender ('' where nothing is encrypted). No body: it was
    more than a message may be, and its connection `fd` should be ended.
    """

    envelope: list[bytes]
    body: bytes | None
    host: str
    user: str
    fd: int


class Subscription(NamedTuple):
    """What came to an XPUB: the beginning of a subscription, or anything else; `fd` is its connection, -1 if gone."""

    begins: bool
    topic: str
    host: str
    fd: int


def send_nowait(socket: Socket, frames: list[bytes]) -> bool:
    """Send, or False where it would have to wait (no connection, or too much on its way) or the receiver is gone.

    The last frame is the body, of any size.
    """
    if len(body := frames[-1]) > MAX_FRAME_BYTES:
        pieces = range(0, len(body), MAX_FRAME_BYTES)
        frames = [*frames[:-1], *(body[at : at + MAX_FRAME_BYTES] for at in pieces)]
    try:
        socket.send_multipart(frames, zmq.NOBLOCK, copy=True)
    except zmq.ZMQError as error:
        if error.errno not in (zmq.EAGAIN, zmq.EHOSTUNREACH):
            raise
        return False
    return True


def receive_nowait(socket: Socket) -> list[bytes] | None:
    """The next message as its frames, or None (so too once the socket was closed, perhaps by the last message)."""
    if socket.closed:
        return None
    try:
        return socket.recv_multipart(zmq.NOBLOCK)
    except zmq.Again:
        return None


def receive_reply(socket: Socket) -> bytes | None:
    """The body of the next message of a DEALER, or None, as above."""
    frame = _first(socket)
    return None if frame is None else _body(socket, frame) or b""


def receive_update(socket: Socket) -> bytes | None:
    """The body of the next message of a SUB, which has a topic before it; None as above."""
    if (topic := _first(socket)) is None:
        return None
    return (_body(socket, socket.recv(copy=False)) or b"") if topic.more else b""


def receive_request(socket: Socket) -> Received | None:
    """The next message of a ROUTER. As of a REQ it may have an empty frame before its body."""
    if (routing_id := _first(socket)) is None:
        return None
    envelope = [routing_id.bytes]
    first = frame = socket.recv(copy=False)
    if frame.more and not len(frame):
        envelope.append(b"")
        frame = socket.recv(copy=False)
    body = _body(socket, frame)
    return Received(envelope, body, _host(first), _property(first, "User-Id"), -1 if body is not None else _fd(first))


def receive_subscription(socket: Socket) -> Subscription | None:
    """What comes next to an XPUB, or None: a subscription that begins or ends, or whatever its other end sent.

    Frame by frame: libzmq does not hand up every end of a subscription, not even where it is the last frame of a
    message that has others. Whoever waits for the rest of such a one waits for ever.
    """
    if (frame := _first(socket)) is None:
        return None
    said = frame.bytes
    return Subscription(said[:1] == b"\x01", said[1:].decode("ascii", "replace"), _host(frame), _fd(frame))


def _first(socket: Socket) -> zmq.Frame | None:
    """The first frame of the next message, if there is one; see `receive_nowait`."""
    if socket.closed:
        return None
    try:
        return socket.recv(zmq.NOBLOCK, copy=False)
    except zmq.Again:
        return None


def _body(socket: Socket, frame: zmq.Frame) -> bytes | None:
    """The bytes of a frame and of all that follow it; None if that is too much for a message.

    ZeroMQ hands out a message when all of it is there, so this does not wait.
    """
    if not (more := frame.more):
        return frame.bytes
    pieces, size = [frame.buffer], len(frame)
    while more:
        frame = socket.recv(copy=False)
        more = frame.more
        size += len(frame)
        if size > MAX_MESSAGE_BYTES or len(pieces) > _PIECES_MAX:
            pieces.clear()
            size = MAX_MESSAGE_BYTES + 1
        else:
            pieces.append(frame.buffer)
    return b"".join(pieces) if size <= MAX_MESSAGE_BYTES else None


def _host(frame: zmq.Frame) -> str:
    host = _property(frame, "Peer-Address")
    # So libzmq says where the connection is ipc: TLS is in front of it.
    return host_of(_fd(frame)) if host.startswith("localhost:") else host


def _fd(frame: zmq.Frame) -> int:
    try:
        return int(frame.get(zmq.SRCFD))
    except zmq.ZMQError:
        return -1  # it is gone


def _property(frame: zmq.Frame, name: str) -> str:
    try:
        return str(frame.get(name))
    except zmq.ZMQError:
        return ""  # the connection has none
