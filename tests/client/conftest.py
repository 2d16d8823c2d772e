"""A ROUTER that a test answers by hand: for what a node does only when it is broken, slow or gone."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from meeseeks.wire import codec, sockets
from meeseeks.wire.messages import ErrorInfo, Reply, Request


class Stub:
    """One real ROUTER on a free loopback port, driven by the test's own thread."""

    def __init__(self, name: str = "stub") -> None:
        self.name = name
        self.port = 0
        self._socket: sockets.Socket | None = None

    def open(self) -> Stub:
        self._socket = sockets.router()
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
        peer, frame = self._socket.recv_multipart()
        return peer, codec.decode_request(frame)

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
        assert sockets.send_nowait(self._socket, [peer, codec.encode(reply)])


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
