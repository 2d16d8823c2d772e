"""Hostile input: a live node answers or drops it, lives, serves others and does not grow. `tools/fuzz` runs more."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import msgpack
import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from meeseeks import AuthenticationFailed
from meeseeks.core.effects import Snapshot
from meeseeks.errors import ProtocolError
from meeseeks.wire import codec
from meeseeks.wire.messages import Hello, OutputWanted, SyncRequest
from tests.support.curve import show
from tests.support.fuzz import GREETING, Fuzzer, bad_frame, bad_record, bad_value, large_frame, rss_mb
from tests.support.nodes import NodeProcess, mesh
from tests.support.wait import wait_until

DECODERS = [codec.decode_request, codec.decode_reply, codec.decode_orders, codec.decode_events]
DECODERS += [lambda frame: codec.decode_update(frame, lambda _why: None)]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["v", "id", "request", "node"]), inner),
    max_leaves=20,
)


@given(frame=st.binary() | VALUES.map(lambda value: msgpack.packb(value, unicode_errors="surrogatepass")))
def test_bytes_are_a_message_or_a_protocol_error(frame):
    for decode in DECODERS:
        with contextlib.suppress(ProtocolError):
            decode(frame)


@pytest.mark.parametrize("key", [b"\x80", b"\x91\x80", b"\x91\x91\x80"], ids=["a map", "of a map", "deep in it"])
@pytest.mark.parametrize("around", [b"", b"\x82\xa2id\x01\xa7request", b"\x81\xa8response"])
def test_a_map_as_a_key_is_no_other_error(around: bytes, key: bytes):
    for decode in DECODERS:
        with contextlib.suppress(ProtocolError):  # some pass over what they do not know
            decode(around + b"\x81" + key + b"\xc0")


@given(data=VALUES)
def test_values_are_a_message_or_a_protocol_error(data):
    for kind in (Hello, SyncRequest, OutputWanted, Snapshot):
        with contextlib.suppress(ProtocolError):
            codec.convert(data, kind)


@given(seed=st.integers(0, 2**32))
def test_mutants_are_a_message_or_a_protocol_error(seed):
    rng = random.Random(seed)
    update = {"node": "a", "incarnation": "1", "topic": "own", "prev": 0, "seq": 1, "records": [bad_record(rng)]}
    for message in (update, {"v": 1, "id": 1, "request": {"sync": bad_value(rng)}}):
        frame = bad_frame(rng, msgpack.packb(message, unicode_errors="surrogatepass"))
        for decode in DECODERS:
            with contextlib.suppress(ProtocolError):
                decode(frame)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[NodeProcess]:
    with mesh(tmp_path, 1) as (one,):
        yield one


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_live_node_takes_it(node: NodeProcess, seed: int):
    fuzzer = Fuzzer(node, seed)
    try:
        fuzzer.run(3000)
    finally:
        fuzzer.close()


def test_two_thousand_who_say_nothing_and_one_who_never_reads(node: NodeProcess):
    mute: list[socket.socket] = []
    before = rss_mb(node)
    deaf = zmq.Context.instance().socket(zmq.SUB)
    deaf.linger, deaf.rcvhwm = 0, 1
    show(deaf)
    deaf.subscribe(b"")
    deaf.connect(f"tcp://{node.address}:{node.pub_port}")
    try:
        for i in range(2000):
            mute.append(socket.create_connection((node.address, node.port if i % 2 else node.pub_port), 10))
            if i % 4 == 0:
                mute[-1].sendall(GREETING[:10])
            elif i % 4 < 3:  # a frame is held until its last byte has come
                size = 16 * 1024 if i % 2 else 4096
                mute[-1].sendall(GREETING + large_frame(size, size - 1))
        assert rss_mb(node) - before < 50
        with node.client() as client:
            specs = [{"pool": "p", "args": ["true"], "id": f"j{i}", "hold": True} for i in range(3000)]
            client.submit_many(specs)
            client.kill([spec["id"] for spec in specs])
            client.submit(id="last", pool="p", args=["true"])
            assert client.wait_for("last", 20)["last"]["state"] == "done"
        assert node.running
    finally:
        deaf.close()
        for one in mute:
            one.close()


@pytest.mark.parametrize("size", [4 * 2**20, 64 * 2**20])
def test_large_frames_of_strangers_are_not_held(node: NodeProcess, size: int):
    before = rss_mb(node)
    strangers = [socket.create_connection((node.address, node.port), 10) for _ in range(16)]
    try:
        for one in strangers:
            with contextlib.suppress(ConnectionError):
                one.sendall(GREETING + large_frame(size, size - 1))
        for one in strangers:
            one.settimeout(10)
            with contextlib.suppress(ConnectionError):
                while one.recv(4096):  # its own greeting, then the end
                    pass
        assert rss_mb(node) - before < 20
        with node.client() as client:
            assert client.ls() == []
    finally:
        for one in strangers:
            one.close()


def test_at_the_end_of_its_files_a_node_turns_newcomers_away_and_lives(node: NodeProcess):
    resource.prlimit(node.pid, resource.RLIMIT_NOFILE, (600, 600))
    mute: list[socket.socket] = []
    try:
        with node.client() as client:
            assert client.ls() == []
            for i in range(900):
                with contextlib.suppress(OSError):
                    mute.append(socket.create_connection((node.address, node.port if i % 2 else node.pub_port), 5))
            wait_until(lambda: "too many connections are open for the 600 files" in node.stderr, 20, node.report)
            assert node.stderr.count("too many connections") < 5
            os.kill(node.executor_pid(), signal.SIGKILL)  # a new one is to be let in
            wait_until(lambda: client.submit(pool="p", args=["true"], id="old"), 20)
            assert client.wait_for("old", 20)["old"]["state"] in ("done", "failed")

        def is_let_in() -> bool:
            try:
                with node.client(timeout=2) as late:
                    return late.ls(id="old") == ["old"]
            except AuthenticationFailed:
                return False

        wait_until(is_let_in, 20)  # those who say nothing have 5 s
    finally:
        for one in mute:
            one.close()


def test_the_node_has_room_for_many_connections(node: NodeProcess):
    limits = Path(f"/proc/{node.pid}/limits").read_text().splitlines()
    soft, hard = next(line.split()[3:5] for line in limits if line.startswith("Max open files"))
    assert soft == hard or int(soft) >= 65_536
