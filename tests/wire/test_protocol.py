"""What a node answers to raw frames, encoded by another MessagePack library than the node's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zmq

from tests.support.curve import identity, show
from tests.support.frames import receive_whole, send_cut
from tests.support.nodes import NodeProcess, mesh


class Raw:
    """A DEALER that sends what it is told, byte by byte."""

    def __init__(self, node: NodeProcess) -> None:
        self.socket = zmq.Context.instance().socket(zmq.DEALER)
        self.socket.linger = 0
        show(self.socket)
        self.socket.connect(f"tcp://{node.address}:{node.port}")

    def send(self, message: Any) -> None:
        send_cut(self.socket, message if isinstance(message, bytes) else msgpack.packb(message))

    def reply(self) -> dict[str, Any]:
        assert self.socket.poll(10_000), "no reply within 10 s"
        answer = msgpack.unpackb(receive_whole(self.socket))
        assert isinstance(answer, dict)
        return answer

    def ask(self, message: Any) -> dict[str, Any]:
        self.send(message)
        return self.reply()

    def close(self) -> None:
        self.socket.close()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    with mesh(tmp_path_factory.mktemp("wire"), 1) as (only,):
        yield only


@pytest.fixture
def raw(node: NodeProcess) -> Iterator[Raw]:
    socket = Raw(node)
    yield socket
    socket.close()


def test_a_request_is_a_map_and_so_is_its_reply(raw: Raw, node: NodeProcess) -> None:
    reply = raw.ask({"v": 1, "id": 7, "request": {"ls": {}}})
    assert (reply["id"], reply["v"], reply["node"]) == (7, 1, node.name)
    assert reply["response"] == {"ls": []}


def test_the_id_may_be_a_string(raw: Raw) -> None:
    assert raw.ask({"v": 1, "id": "x-1", "request": {"ls": {}}})["id"] == "x-1"


@pytest.mark.parametrize(
    ("message", "request_id", "words"),
    [
        ({"v": 1, "id": 1, "request": {"dance": {}}}, 1, ["dance", "submit", "sync"]),
        ({"v": 99, "id": 2, "request": {"ls": {}}}, 2, ["version 99", "speaks 1"]),
        ({"v": 1, "id": 3, "request": {"ls": {}, "nodes": {}}}, 3, ["exactly one"]),
        ({"v": 1, "id": 4, "request": "ls"}, 4, ["exactly one"]),
        ({"v": 1, "id": 5}, 5, ["exactly one"]),
        ({"v": 1, "id": [1], "request": {"ls": {}}}, None, ["id", "[1]"]),
        ([1, 2, 3], None, ["map", "list"]),
        (b"\xc1", None, ["MessagePack"]),
        (b"\x91" * 5000, None, ["MessagePack"]),
        (msgpack.packb({"v": 1, "id": 1, "request": {"ls": {}}})[:-3], None, ["MessagePack"]),
        ({"v": 1, "id": 6, "request": {"sync": {"since": "x"}}}, 6, ["sync", "int"]),
        ({"v": 1, "id": 7, "request": {"hello": {}}}, 7, ["hello", "node"]),
        ({"v": 1, "id": 8, "request": {"output": {"id": "none"}}}, 8, ["'none'"]),
        ({"v": 1, "id": 9, "request": {"ls": 3}}, 9, ["ls", "int"]),
        ({"v": 1, "id": 10, "request": {"query": 3}}, 10, ["int"]),
        ({"v": 1, "id": 11, "request": {"submit": 3}}, 11, ["int"]),
        ({"v": 1, "id": 12, "request": {"submit_many": {}}}, 12, ["list", "dict"]),
        ({"v": 1, "id": 13, "request": {"config": []}}, 13, ["config", "list"]),
        ({"v": 1, "id": 14, "request": {"ls": {"colour": "red"}}}, 14, ["colour", "state", "tag"]),
    ],
)
def test_a_wrong_request_gets_an_error_that_names_it(
    raw: Raw, message: Any, request_id: int | None, words: list[str]
) -> None:
    reply = raw.ask(message)
    assert reply.get("id") == request_id
    assert "response" not in reply
    for word in words:
        assert word in reply["error"]["message"]
    assert raw.ask({"v": 1, "id": 100, "request": {"ls": {}}})["response"] == {"ls": []}


@pytest.mark.parametrize("size", [16 * 1024 + 100, 65 * 1024 * 1024])
def test_a_frame_over_the_limit_closes_the_connection_and_nothing_else(raw: Raw, node: NodeProcess, size: int) -> None:
    with closing(raw.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)) as events, closing(Raw(node)) as other:
        raw.socket.send(b"x" * size)
        assert events.poll(10_000), "the connection has not ended"
        raw.socket.disable_monitor()
        assert other.ask({"v": 1, "id": 1, "request": {"ls": {}}})["response"] == {"ls": []}


def test_a_message_has_as_many_frames_as_it_needs(tmp_path: Path) -> None:
    with mesh(tmp_path, 1) as (node,), closing(Raw(node)) as raw:
        for count in (1, 15, 16, 17, 900):
            job = {"id": f"j{count}", "pool": "p", "args": ["y" * 1000] * count, "hold": True}
            raw.ask({"v": 1, "id": 1, "request": {"submit": job}})
            found = raw.ask({"v": 1, "id": 2, "request": {"query": job["id"]}})["response"]["query"]
            assert found["args"] == job["args"]


def test_what_comes_before_an_empty_frame_is_an_envelope_that_comes_back(node: NodeProcess) -> None:
    socket = zmq.Context.instance().socket(zmq.REQ)
    socket.linger = 0
    show(socket)
    socket.connect(f"tcp://{node.address}:{node.port}")
    try:
        for count in (1, 1000):
            send_cut(socket, msgpack.packb({"v": 1, "id": 1, "request": {"query": ["x" * 100] * count}}))
            assert socket.poll(10_000)
            assert msgpack.unpackb(receive_whole(socket))["response"] == {"query": {}}
    finally:
        socket.close()


@pytest.mark.parametrize(
    "hello",
    [
        {"node": "z", "incarnation": "i", "address": "bad host!", "port": 5, "pub_port": 6},
        {"node": "z", "incarnation": "i", "address": "", "port": -1, "pub_port": 6},
        {"node": "z", "incarnation": "i", "address": "x", "port": 70000, "pub_port": 6},
        {"node": "", "incarnation": "i", "address": "x", "port": 5, "pub_port": 6},
    ],
)
def test_a_hello_from_nowhere_is_refused(raw: Raw, hello: dict[str, Any]) -> None:
    assert "hello" in raw.ask({"v": 1, "id": 1, "request": {"hello": hello}})["error"]["message"]
    assert raw.ask({"v": 1, "id": 2, "request": {"ls": {}}})["response"] == {"ls": []}


def test_a_hello_with_an_address_that_can_t_be_is_no_harm(raw: Raw) -> None:
    hello = {"node": "zz", **identity("i"), "address": "no:such:host", "port": 5, "pub_port": 6}
    assert raw.ask({"v": 1, "id": 1, "request": {"hello": hello}})["id"] == 1
    assert raw.ask({"v": 1, "id": 2, "request": {"ls": {}}})["response"] == {"ls": []}


def test_a_subscriber_of_everything_that_leaves_takes_nothing_from_others(node: NodeProcess) -> None:
    context = zmq.Context.instance()
    stays, leaves = context.socket(zmq.SUB), context.socket(zmq.SUB)
    try:
        for socket, topic in ((stays, b"own"), (leaves, b"")):
            socket.linger = 0
            show(socket)
            socket.subscribe(topic)
            socket.connect(f"tcp://{node.address}:{node.pub_port}")
            assert socket.poll(10_000)
        leaves.unsubscribe(b"")
        leaves.close()
        while stays.poll(0):
            stays.recv_multipart()
        for _ in range(3):  # more than may have been on its way
            assert stays.poll(10_000), "no heartbeat any more"
            stays.recv_multipart()
    finally:
        stays.close()
        leaves.close()
