"""Messages of raw sockets in frames of the size that a node lets through, by no code of the node's own."""

from __future__ import annotations

from typing import Any

__all__ = ["receive_whole", "send_cut"]

_SIZE = 16 * 1024


def send_cut(socket: Any, body: bytes, *head: bytes) -> None:
    """Send a message, its body in as many frames as it needs."""
    pieces = [body[at : at + _SIZE] for at in range(0, len(body), _SIZE)]
    socket.send_multipart([*head, *(pieces or [b""])])


def receive_whole(socket: Any) -> bytes:
    """The body of the next message of a DEALER or REQ."""
    return b"".join(socket.recv_multipart())
