"""What one who was let in can ask or say as often as he likes: the node serves others, and its log stays short."""

from __future__ import annotations

import base64
import os
import signal
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
import zmq

from meeseeks.core.effects import OWN, Beat, Update
from meeseeks.errors import RequestFailed
from meeseeks.wire import codec
from meeseeks.wire.messages import Request
from tests.support.curve import identity, show
from tests.support.frames import send_cut
from tests.support.fuzz import Fuzzer, rss_mb
from tests.support.nodes import NodeProcess, mesh
from tests.support.wait import wait_until

FLOOD = 6000


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    with mesh(tmp_path_factory.mktemp("floods"), 1, **{"state.inline_output": 0}) as (one,):
        yield one


def run_of(node: NodeProcess, jid: str) -> Any:
    with node.client() as client:
        client.submit(id=jid, pool="p", args=["sh", "-c", "echo began; exec sleep 1000"])
        wait_until(lambda: client.request({"follow": {"id": jid}})["follow"].get("stdout") == b"began\n", 20)
        return client.request({"follow": {"id": jid}})["follow"]["run"]


def test_questions_that_wait_are_counted_and_their_end_is_one_line_in_the_log(node: NodeProcess):
    run = run_of(node, "followed")
    asks = zmq.Context.instance().socket(zmq.DEALER)
    asks.linger = asks.sndhwm = asks.rcvhwm = 0
    show(asks)
    asks.connect(f"tcp://{node.address}:{node.port}")
    wanted = {"id": "followed", "run": run, "stdout": 6, "wait": 10.0}
    with closing(asks), node.client() as client:
        for number in range(FLOOD):
            asks.send(codec.encode(Request(id=number, request={"follow": wanted})))
        refused = None
        while refused is None:
            assert asks.poll(20_000), "none was refused"
            refused = codec.decode_reply(asks.recv()).error
        assert "ask again later" in refused.message
        assert client.ls(id="followed") == ["followed"]
        asks.close()
        client.kill("followed")  # all that wait have an answer now, and nobody to give it to
        wait_until(lambda: "asker is gone" in node.stderr, 20, node.report)
        again = {"id": "followed", "run": run, "stdout": 6}
        wait_until(lambda: client.request({"follow": again})["follow"].get("ended"), 20)
    assert node.stderr.count("asker is gone") < 5


def test_input_that_nobody_takes_is_refused_before_it_fills_the_memory(node: NodeProcess):
    data, pieces, held = b"x" * 2**18, 800, 32
    with node.client() as client, closing(zmq.Context.instance().socket(zmq.DEALER)) as asks:
        client.submit(id="fed", pool="p", args=["sh", "-c", "cat | wc -c"], stdin="-")
        run = wait_until(lambda: client.request({"follow": {"id": "fed"}})["follow"].get("run"), 20)
        asks.linger = asks.sndhwm = asks.rcvhwm = 0
        show(asks)
        asks.connect(f"tcp://{node.address}:{node.port}")
        before, executor = rss_mb(node), node.executor_pid()
        os.kill(executor, signal.SIGSTOP)  # it takes nothing
        try:
            for number in range(pieces):
                piece = {"id": "fed", "run": run, "offset": number * len(data), "data": data}
                send_cut(asks, codec.encode(Request(id=number, request={"input": piece})))
            refused = 0
            for _ in range(pieces - held):
                assert asks.poll(20_000), "none was refused"
                error = codec.decode_reply(asks.recv()).error
                assert error is not None
                refused += "ask again later" in error.message
                # If all this takes long, those that were held are given up, and others are held in their place.
                assert "ask again later" in error.message or "executor does not answer" in error.message
            assert refused > pieces / 2
            assert rss_mb(node) - before < 50
            assert client.ls(id="fed") == ["fed"]
        finally:
            os.kill(executor, signal.SIGCONT)
        for _ in range(held):
            assert asks.poll(20_000)
            asks.recv()
        last = {"id": "fed", "run": run, "offset": 0, "data": b"", "eof": True}
        last["offset"] = client.request({"input": {"id": "fed", "run": run}})["input"]["taken"]
        client.request({"input": last})
        assert client.wait_for("fed", 20)["fed"]["state"] == "done"
        assert int(base64.b64decode(client.query("fed")["stdout_data"])) == last["offset"]
        wait_until(lambda: rss_mb(node) - before < 20, 20, lambda: f"{rss_mb(node) - before:.0f} MB more")


def test_output_that_cannot_be_read_does_not_end_the_node(node: NodeProcess):
    run = run_of(node, "unreadable")
    (spooled,) = (
        path for path in (node.folder / "state" / "spool").rglob("*unreadable*") if path.is_file() and path.read_bytes()
    )
    with node.client() as client:
        asked = Request(id=1, request={"follow": {"id": "unreadable", "run": run, "stdout": 6, "wait": 10.0}})
        asks = zmq.Context.instance().socket(zmq.DEALER)
        asks.linger = 0
        show(asks)
        with closing(asks):
            asks.connect(f"tcp://{node.address}:{node.port}")
            asks.send(codec.encode(asked))
            assert not asks.poll(300), "it should wait"
            spooled.rename(spooled.with_name("away"))
            spooled.mkdir()
            assert asks.poll(15_000), node.report()
            error = codec.decode_reply(asks.recv()).error
            assert error is not None
            assert "can't be read" in error.message
        with pytest.raises(RequestFailed, match="can't be read"):
            client.request({"output": {"id": "unreadable"}})
        spooled.rmdir()
        spooled.with_name("away").rename(spooled)
        client.kill("unreadable")


def test_broadcasts_that_nobody_understands_are_one_line_in_the_log(node: NodeProcess):
    with closing(Fuzzer(node, 1)) as forger, node.client() as client:
        forger._meet()
        for _ in range(500):
            forger._pub.send_multipart([OWN.encode(), b"\xff"])
        life = identity("1")["incarnation"]
        beat = Beat(node="forger", incarnation=life, number=1, seq=0, ts=0.0)
        update = Update(node="forger", incarnation=life, topic=OWN, prev=0, seq=0, records=[], beats=[beat])
        forger._pub.send_multipart([OWN.encode(), codec.encode(update)])
        wait_until(lambda: "forger" in client.nodes(), 20, node.report)
    assert 1 <= node.stderr.count("not understood") < 5
