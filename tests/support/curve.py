"""CURVE for raw sockets of tests, by pyzmq's own options and not by the code under test."""

from __future__ import annotations

from typing import Any

import zmq

from meeseeks.node.identity import mark_of
from meeseeks.wire.curve import default_key_path, make_mesh_key
from meeseeks.wire.keys import Keys

__all__ = ["guard", "identity", "mesh_key", "show"]


def mesh_key() -> Keys:
    """The mesh key of this test session: what nodes and clients of ordinary tests find."""
    return make_mesh_key(default_key_path())


def identity(life: str) -> dict[str, str]:
    """Who a forger is for a hello: the mesh's key is his own one, and so he proves at once that he is who he says."""
    public = mesh_key().public.decode()
    return {"identity": public, "incarnation": f"{mark_of(public)}.{life}"}


def show(socket: Any, *, server: bytes | None = None, pair: tuple[bytes, bytes] | None = None) -> None:
    """Let a raw socket connect to a node of the key `server`, with the `pair` (public, secret); default: the mesh's."""
    mesh = mesh_key()
    public, secret = pair or (mesh.public, mesh.secret)
    socket.curve_serverkey = server or mesh.server
    socket.curve_publickey, socket.curve_secretkey = public, secret


def guard(socket: Any) -> Any:
    """Let a socket that stands for a node's speak CURVE with the mesh's key. It asks nobody whom to let in."""
    socket.setsockopt(zmq.CURVE_SERVER, 1)
    socket.setsockopt(zmq.CURVE_SECRETKEY, mesh_key().secret)
    return socket
