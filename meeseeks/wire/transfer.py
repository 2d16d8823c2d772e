"""Messages in and out of ZeroMQ sockets, whole and without ever waiting: a body has as many frames as it needs.

No frame is larger than MAX_FRAME_BYTES. ZeroMQ holds a frame until it is whole, before it is known who sends it: its
size is what a stranger can make a node hold. 16 KiB are as fast as any more; with less the frames themselves take time.
"""

from __future__ import annotations

from typing import NamedTuple

import zmq

from .messages import MAX_FRAME_BYTES
from .origin import host_of

__all__ = ["Received", "Socket", "receive_nowait", "receive_reply", "receive_request", "receive_update", "send_nowait"]

Socket = zmq.Socket[bytes]


class Received(NamedTuple):
    """A message of a ROUTER: its envelope, which the answer begins with; its body; who sent it.

    `host` is where it comes from, `user` the public key of its sender ('' where nothing is encrypted).
    """

    envelope: list[bytes]
    body: bytes
    host: str
    user: str


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
    if socket.closed:
        return None
    try:
        return _body(socket, socket.recv(zmq.NOBLOCK, copy=False))
    except zmq.Again:
        return None


def receive_update(socket: Socket) -> bytes | None:
    """The body of the next message of a SUB, which has a topic before it; None as above."""
    if socket.closed:
        return None
    try:
        topic = socket.recv(zmq.NOBLOCK, copy=False)
    except zmq.Again:
        return None
    return _body(socket, socket.recv(copy=False)) if topic.more else b""


def receive_request(socket: Socket) -> Received | None:
    """The next message of a ROUTER. As of a REQ it may have an empty frame before its body."""
    try:
        envelope = [socket.recv(zmq.NOBLOCK)]
    except zmq.Again:
        return None
    frame = socket.recv(copy=False)
    host = _property(frame, "Peer-Address")
    if host.startswith("localhost:"):  # so libzmq says where the connection is ipc: TLS is in front of it
        host = host_of(frame.get(zmq.SRCFD))
    user = _property(frame, "User-Id")
    if frame.more and not len(frame):
        envelope.append(b"")
        frame = socket.recv(copy=False)
    return Received(envelope, _body(socket, frame), host, user)


def _body(socket: Socket, frame: zmq.Frame) -> bytes:
    """The bytes of a frame and of all that follow it. (ZeroMQ hands out a message when all of it is there.)"""
    if not (more := frame.more):
        return frame.bytes
    pieces = [frame.buffer]
    while more:
        frame = socket.recv(copy=False)
        pieces.append(frame.buffer)
        more = frame.more
    return b"".join(pieces)


def _property(frame: zmq.Frame, name: str) -> str:
    try:
        return str(frame.get(name))
    except zmq.ZMQError:
        return ""  # the connection has none
