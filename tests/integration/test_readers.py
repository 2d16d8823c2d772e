"""What one with a key that may only read can send to a node: it lives, answers others, and holds little of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zmq

from meeseeks.wire.curve import load_key, make_client_key
from tests.support.curve import mesh_key, show
from tests.support.frames import receive_whole, send_cut
from tests.support.fuzz import rss_mb
from tests.support.nodes import NodeProcess, mesh
from tests.support.wait import wait_until

MB = 2**20
LS = msgpack.packb({"v": 1, "id": 1, "request": {"ls": {"state": "none"}}})


class Reader:
    """Somebody with a key of the role read, and a node that lets it in."""

    def __init__(self, folder: Path, node: NodeProcess) -> None:
        self.node = node
        card = make_client_key(folder / "reader", mesh_key().server, "read")
        card.rename(folder / "authorized" / card.name)
        keys = load_key(folder / "reader")
        assert keys is not None
        self._pair = (keys.public, keys.secret)

    def socket(self, kind: int = zmq.DEALER, **options: Any) -> Any:
        socket = zmq.Context.instance().socket(kind)
        socket.linger = 0
        for name, value in options.items():
            setattr(socket, name, value)
        show(socket, pair=self._pair)
        socket.connect(
            f"tcp://{self.node.address}:{self.node.pub_port if kind in (zmq.XSUB, zmq.SUB) else self.node.port}"
        )
        return socket


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    folder = tmp_path_factory.mktemp("reader")
    (folder / "authorized").mkdir()
    with mesh(folder, 1, **{"security.authorized": folder / "authorized"}) as (node,):
        yield Reader(folder, node)


def files_of(node: NodeProcess) -> list[str]:
    return os.listdir(f"/proc/{node.pid}/fd") if node.running else []


def test_many_who_come_by_one_routing_id_do_not_end_the_node(reader: Reader):
    before = len(files_of(reader.node))
    for _ in range(4):
        with ExitStack() as stack:
            same = [stack.enter_context(closing(reader.socket(routing_id=b"same"))) for _ in range(20)]
            for socket in same:
                socket.send(LS)
            wait_until(lambda same=same: any(socket.poll(0) for socket in same), 10)
            assert msgpack.unpackb(next(socket for socket in same if socket.poll(0)).recv())["response"] == {"ls": []}
        # An assertion of libzmq failed when it let go of them. (What else it opens meanwhile are less than ten.)
        wait_until(lambda: not reader.node.running or len(files_of(reader.node)) < before + 10, 20)
        assert reader.node.running, reader.node.report()


def test_one_who_knows_another_s_routing_id_does_not_get_his_answers(reader: Reader):
    with closing(reader.socket(routing_id=b"mine")) as first:
        first.send(LS)
        assert first.poll(10_000)
        first.recv()
        with closing(reader.socket(routing_id=b"mine")) as second:  # only now: whoever comes first has the place
            second.send(LS)
            for _ in range(3):
                first.send(LS)
                assert first.poll(10_000), "his place was taken"
                first.recv()
            assert not second.poll(100)


def test_other_topics_than_there_are_end_the_connection(reader: Reader):
    before = rss_mb(reader.node)
    with closing(reader.socket(zmq.XSUB, sndhwm=0)) as socket:
        events = socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        try:
            for number in range(20_000):
                socket.send(b"\x01%8d" % number + b"t" * 500)
            assert events.poll(10_000)
        finally:
            socket.disable_monitor()
            events.close()
        wait_until(lambda: "there is no such topic" in reader.node.stderr, 10, reader.node.report)
        # All 20,000 would take some 500 MB. Most runs end with less than 20, but libzmq takes in whatever comes while
        # it takes in the first ones, and tells of them only then.
        assert rss_mb(reader.node) - before < 250
    with reader.node.client(refresh=1) as client:
        assert client.nodes()


@pytest.mark.parametrize(
    "messages",
    [[[b"\x02own"], [b"\x02all"]], [[b"\x01own"], [b"\x00own"]], [[b"\x01own"], [b"x", b"\x00own"]]],
    ids=["words", "an end", "an end in parts"],
)
def test_nobody_can_end_what_another_listens_to(reader: Reader, messages: list[list[bytes]]):
    with closing(reader.socket(zmq.SUB)) as hears, closing(reader.socket(zmq.XSUB)) as socket:
        hears.subscribe(b"own")
        assert hears.poll(10_000)
        for parts in messages:
            socket.send_multipart(parts)
        events = socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        try:
            socket.send(b"\x01no such topic")  # once this has been read, so has all before it
            assert events.poll(10_000)
        finally:
            socket.disable_monitor()
            events.close()
        while hears.poll(0):
            hears.recv_multipart()
        for _ in range(2):
            assert hears.poll(5_000), "the node does not say any more that it is there"
            hears.recv_multipart()


@pytest.mark.parametrize("value", [b"\x80", b"\x90", b"\x00", b"\xa0"], ids=["maps", "lists", "numbers", "texts"])
def test_a_large_request_of_small_values_is_refused_before_it_is_taken_apart(reader: Reader, value: bytes):
    before = rss_mb(reader.node)
    head = b"\x83\xa1v\x01\xa2id\x07\xa7request\x81\xa2ls\xdd" + (8 * MB).to_bytes(4, "big")
    with closing(reader.socket()) as socket:
        send_cut(socket, head + value * (8 * MB))
        assert socket.poll(20_000)
        reply = msgpack.unpackb(receive_whole(socket))
    assert reply["id"] == 7
    assert "role 'read' has at most 524288 bytes, not 8388" in reply["error"]["message"]
    assert rss_mb(reader.node) - before < 50


def test_a_request_larger_than_any_may_be_ends_its_connection(reader: Reader):
    with closing(reader.socket()) as socket:
        events = socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        try:
            send_cut(socket, bytes(70 * MB))
            assert events.poll(20_000)
        finally:
            socket.disable_monitor()
            events.close()
    with reader.node.client() as client:
        assert client.ls(state="none") == []


def test_the_id_of_a_request_is_short(reader: Reader):
    with closing(reader.socket()) as socket:
        for size, answered in ((64, True), (65, False)):
            socket.send(msgpack.packb({"v": 1, "id": "x" * size, "request": {"ls": {"state": "none"}}}))
            assert socket.poll(10_000)
            reply = msgpack.unpackb(socket.recv())
            assert ("response" in reply) is answered
        assert "at most 64 characters, not 65" in reply["error"]["message"]
