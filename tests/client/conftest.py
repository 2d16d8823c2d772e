"""A ROUTER that a test answers by hand, for what a node does only when it is broken or gone; and real meshes."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from meeseeks import Client
from meeseeks.wire import codec, sockets, transfer
from meeseeks.wire.messages import ErrorInfo, Reply, Request
from tests.support import ports
from tests.support.curve import guard
from tests.support.nodes import NodeProcess, mesh


class Stub:
    """One real ROUTER on a free loopback port, driven by the test's own thread."""

    def __init__(self, name: str = "stub") -> None:
        self.name = name
        self.port = 0
        self._socket: sockets.Socket | None = None

    def open(self) -> Stub:
        self._socket = guard(sockets.router())
        # The port of a ROUTER that was just closed may be taken for a moment, until its thread has let it go.
        deadline = time.monotonic() + 10
        while True:
            try:
                self.port = sockets.bind(self._socket, "127.0.0.1", self.port)
            except ValueError:
                if time.monotonic() > deadline:
                    raise
            else:
                return self

    def close(self) -> None:
        if self._socket is not None:
            sockets.close(self._socket)
        self._socket = None

    def receive(self, timeout: float = 10.0) -> tuple[bytes, Request]:
        assert self._socket is not None
        assert self._socket.poll(int(timeout * 1000)), f"no request came within {timeout:g} s"
        peer, *frames = self._socket.recv_multipart()
        return peer, codec.decode_request(b"".join(frames))

    def is_quiet(self, timeout: float) -> bool:
        assert self._socket is not None
        return not self._socket.poll(int(timeout * 1000))

    def answer(self, peer: bytes, request: Request, result: object) -> None:
        kind = next(iter(request.request))
        self.reply(peer, Reply(id=request.id, node=self.name, response={kind: result}))

    def refuse(self, peer: bytes, request: Request, code: str, message: str) -> None:
        self.reply(peer, Reply(id=request.id, node=self.name, error=ErrorInfo(code, message)))

    def reply(self, peer: bytes, reply: Reply) -> None:
        assert self._socket is not None
        assert transfer.send_nowait(self._socket, [peer, codec.encode(reply)])


@pytest.fixture
def stub() -> Iterator[Stub]:
    one = Stub().open()
    yield one
    one.close()


@pytest.fixture
def other_stub() -> Iterator[Stub]:
    one = Stub("other").open()
    yield one
    one.close()


@pytest.fixture
def free_port() -> Callable[[], int]:
    """A port on which nobody listens."""
    return ports.free_port


class Place:
    """A mesh of some shape. Jobs may run anywhere; clients connect to the node that is furthest from `a`."""

    def __init__(self, nodes: list[NodeProcess]) -> None:
        self.nodes = nodes
        self.names = sorted(node.name for node in nodes)
        self.near, self.far = nodes[0], nodes[-1]


@pytest.fixture(scope="module", params=["single", "line", "cycle"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One node; three in a line a-b-c, with the clients at c; three in a cycle."""
    shape = request.param
    config = {"pools.p.slots": 4, "pools.held.hold": True}
    with mesh(
        tmp_path_factory.mktemp(shape),
        1 if shape == "single" else 3,
        shape="full" if shape == "single" else shape,
        **config,
    ) as nodes:
        yield Place(nodes)


@pytest.fixture
def client(place: Place) -> Iterator[Client]:
    """Requests only."""
    with place.far.client() as one:
        yield one


@pytest.fixture
def cached(place: Place) -> Iterator[Client]:
    """With a cache."""
    with place.far.client(refresh=1) as one:
        yield one


@pytest.fixture
def tag() -> str:
    """A tag that no other test uses: a mesh is shared by all tests of a file."""
    return uuid.uuid4().hex


@pytest.fixture(params=["cached", "asking"])
def either(request: pytest.FixtureRequest, place: Place) -> Iterator[Client]:
    """A Client with a cache, and one without: a Job behaves the same."""
    options: dict[str, Any] = {"refresh": 1} if request.param == "cached" else {}
    with place.far.client(**options) as client:
        yield client
