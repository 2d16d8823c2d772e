"""Nobody takes over another's name: not while it runs, nor while it is away, nor by way of a third node."""

from __future__ import annotations

import os
import signal
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zmq

from meeseeks.node.identity import mark_of
from meeseeks.wire.curve import load_key
from tests.cli.conftest import call
from tests.support.curve import guard, identity, show
from tests.support.nodes import NodeProcess, mesh, wait_linked
from tests.support.wait import wait_until

MeshOf = Callable[..., list[NodeProcess]]
REFUSED = "node 'a' is known with another identity"
ENDS_S = 20.0
SETTLED_S = 8.5
"""Somewhat more than a node that was just started is refused for."""


def online(node: NodeProcess) -> set[str]:
    with node.client() as client:
        return {name for name, status in client.nodes().items() if status["online"]}


@contextmanager
def twin(folder: Path, to: NodeProcess | None, **config: object) -> Iterator[NodeProcess]:
    """Another machine that is set up with a's name, and a state folder of its own."""
    node = NodeProcess(folder / "twin", "a", config, join=to.endpoint if to else "")
    try:
        yield node.start()
    finally:
        node.kill()
        node.sweep()


def is_refused(node: NodeProcess) -> None:
    wait_until(lambda: not node.running, ENDS_S, lambda: f"an end of the twin\n{node.report()}")
    assert REFUSED in node.stderr.splitlines()[-1], node.report()
    assert "mks forget a" in node.stderr.splitlines()[-1]
    assert node._process is not None
    assert node._process.returncode == 1


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[NodeProcess]]:
    with mesh(tmp_path_factory.mktemp("names"), 2) as nodes:
        yield nodes


def test_a_twin_is_refused_while_the_real_one_runs(pair: list[NodeProcess], tmp_path: Path) -> None:
    a, b = pair
    with twin(tmp_path, b) as other:
        is_refused(other)
    assert online(b) == {"a", "b"}
    assert 1 <= b.stderr.count(f"turned away 127.0.0.1: {REFUSED}") <= 2
    with b.client() as client:
        assert client.nodes()["a"]["port"] == a.port


def test_a_twin_at_the_real_one_is_refused_at_once(pair: list[NodeProcess], tmp_path: Path) -> None:
    with twin(tmp_path, pair[0]) as other:
        wait_until(lambda: not other.running, 6, other.report)
        assert "a node named 'a' already" in other.stderr.splitlines()[-1]
    assert online(pair[0]) == {"a", "b"}


def test_the_identity_is_a_secret_file_that_stays(pair: list[NodeProcess]) -> None:
    folder = pair[0].folder / "state"
    assert stat.S_IMODE((folder / "identity.key").stat().st_mode) == 0o600
    before = load_key(folder / "identity.key")
    assert before is not None
    _, b = pair
    incarnation = hello_of(b, pair[0])
    assert incarnation.split(".")[0] == mark_of(before.public.decode())
    pair[0].stop()
    pair[0].restart()
    wait_linked(pair)
    assert load_key(folder / "identity.key") == before


def hello_of(asks: NodeProcess, node: NodeProcess) -> str:
    """The incarnation that a node tells to whoever says hello by the mesh's key."""
    answer = ask(node, {"node": "z", "port": 1, "pub_port": 2, **identity_of_nobody()})
    return str(answer["response"]["hello"]["incarnation"])


def identity_of_nobody() -> dict[str, str]:
    public = zmq.curve_keypair()[0].decode()
    return {"identity": public, "incarnation": f"{mark_of(public)}.x"}


def ask(
    node: NodeProcess, hello: dict[str, Any], keys: tuple[bytes, bytes] | None = None, patience: float = ENDS_S
) -> Any:
    """Say hello by the mesh's key, or by another one; None if nothing is answered in time."""
    socket = zmq.Context.instance().socket(zmq.DEALER)
    socket.linger = 0
    show(socket, pair=keys)
    with closing(socket):
        socket.connect(f"tcp://{node.address}:{node.port}")
        socket.send(msgpack.packb({"v": 1, "id": 1, "request": {"hello": hello}}))
        return msgpack.unpackb(socket.recv()) if socket.poll(int(patience * 1000)) else None


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_a_twin_is_refused_while_the_real_one_is_away_and_the_real_one_comes_back(
    pair: list[NodeProcess], tmp_path: Path, how: str
) -> None:
    a, b = pair
    a.stop() if how == "stopped" else a.kill()
    with twin(tmp_path, b) as other:
        is_refused(other)
    b.stop()
    b.restart()
    with twin(tmp_path / "again", b) as other:
        is_refused(other)
    assert online(b) == {"b"}
    a.restart()
    wait_linked(pair)


def test_a_twin_at_the_place_of_the_real_one_is_not_believed(pair: list[NodeProcess], tmp_path: Path) -> None:
    """Others have connections to that address, which find the twin there: it hears of no job, and runs none."""
    a, b = pair
    with b.client() as client:
        client.submit(id="of-a", pool="q", node="a", args=["true"])
        wait_until(lambda: "of-a" in ids(a))
    a.stop()
    place = {"listen.port": a.port, "listen.pub_port": a.pub_port, "pools.q.slots": 1}
    with twin(tmp_path, None, **place) as other:
        wait_until(lambda: "another node said as node 'a'" in b.stderr, ENDS_S, b.report)
        b.stop()
        b.config.update({"nodes.a.address": a.address, "nodes.a.port": a.port})
        b.restart()
        wait_until(lambda: f"is not linked to: {REFUSED}" in b.stderr, ENDS_S, b.report)
        assert online(b) == {"b"}
        assert online(other) == {"a"}
        assert ids(other) == []
    a.restart()
    wait_linked(pair)
    with b.client() as client:
        client.kill("of-a")


def ids(node: NodeProcess) -> list[str]:
    with node.client() as client:
        return client.ls()


def test_a_node_comes_back_after_sighup_by_itself(pair: list[NodeProcess]) -> None:
    a, b = pair
    lives = a.lives
    os.kill(a.pid, signal.SIGHUP)
    wait_until(lambda: a.lives != lives, ENDS_S, a.report)
    wait_linked([a, b])
    assert "turned away" not in a.stderr


def test_by_way_of_a_third_node_nobody_is_believed_and_forget_mends_it(mesh_of: MeshOf, tmp_path: Path) -> None:
    a, b = mesh_of(2, **{"heartbeat": 0.2, "state.timeout": 2})
    a.stop()
    c = NodeProcess(tmp_path, "c", join=b.endpoint)
    with ExitStack() as stack:
        stack.callback(c.stop)
        c.start()
        wait_linked([b, c])
        with twin(tmp_path, c) as other:  # c has never heard of a
            wait_linked([c, other])
            wait_until(lambda: "another node said as node 'a'" in b.stderr, ENDS_S, b.report)
            assert online(b) == {"b", "c"}
            refused = call(c, "forget", "a")
            assert (refused.code, "node 'a' is online" in refused.err) == (2, True)
        wait_until(lambda: online(c) == {"b", "c"}, ENDS_S)
        a.restart()
        wait_linked([a, b])
        wait_until(lambda: "turned away 127.0.0.1: node 'a' is known with" in c.stderr, ENDS_S, c.report)
        assert a.running
        assert call(c, "forget", "a").out == "forgot node a\n"
        wait_linked([a, b, c])


def test_after_forget_another_machine_may_have_the_name(mesh_of: MeshOf, tmp_path: Path) -> None:
    a, b, c = mesh_of(3, shape="line")
    wait_linked([a, b, c])
    a.stop()
    with twin(tmp_path, b) as other:
        is_refused(other)
    wait_until(lambda: "a" not in online(c) | online(b), ENDS_S)
    answer = call(c, "forget", "a", "--json")  # c sees a through b only
    assert (answer.code, answer.json) == (0, {"node": "a", "known": True})
    assert "no node nowhere was known" in call(c, "forget", "nowhere").out
    with twin(tmp_path, b, discover=False) as other:
        wait_linked([other, b, c])
        with twin(tmp_path / "old", b) as late:
            is_refused(late)


def test_a_node_that_was_let_in_does_not_end_when_another_machine_got_its_name(mesh_of: MeshOf, tmp_path: Path) -> None:
    a, b = mesh_of(2, **{"heartbeat": 0.1, "state.timeout": 0.4})
    with a.client() as client:
        seen = wait_until(lambda: (found := client.nodes()["b"])["sees"] == ["a"] and found)
        wait_until(lambda: client.nodes()["b"]["ts"] > seen["ts"] + 0.3)  # a looks once a heartbeat whether it is heard
    a.freeze()
    wait_until(lambda: online(b) == {"b"})
    assert call(b, "forget", "a").out == "forgot node a\n"
    with twin(tmp_path, b) as other:
        wait_linked([b, other])
    wait_until(lambda: online(b) == {"b"})
    a.thaw()
    wait_until(lambda: f"does not link to us: {REFUSED}" in a.stderr, ENDS_S, a.report)
    with a.client() as client:
        client.submit(id="of-the-first", pool="p", node="a", args=["true"])
        assert client.wait_for(["of-the-first"], timeout=10)["of-the-first"]["state"] == "done"


@pytest.mark.parametrize("sync", ["memory", "os"])
def test_a_node_without_its_state_folder_is_another_one(mesh_of: MeshOf, sync: str) -> None:
    a, b = mesh_of(2, **{"state.sync": sync})
    a.stop()
    a.restart()
    wait_linked([a, b])
    a.stop()
    key = (a.folder / "state" / "identity.key").read_bytes()
    for path in (a.folder / "state").glob("*.*"):
        path.unlink()
    a.join, a.config["state.dir"] = b.endpoint, a.folder / "anew"
    a.start()
    is_refused(a)
    a._process = None
    (a.folder / "anew" / "identity.key").write_bytes(key)
    a.start()
    wait_linked([a, b])


@pytest.mark.slow
def test_a_node_that_meets_its_name_later_goes_on_alone(tmp_path: Path) -> None:
    """Two machines of one name, each with its jobs: neither may end them because it is told to link to the other."""
    with ExitStack() as stack:
        nodes = [NodeProcess(tmp_path / where, "a") for where in ("here", "there")]
        for node in nodes:
            stack.callback(node.stop)
            node.start()
        with nodes[0].client() as client, nodes[1].client() as other:
            client.submit(id="long", pool="p", args=["sleep", "100"])
            settled = time.time() + SETTLED_S
            wait_until(lambda: client.nodes()["a"]["ts"] > settled, ENDS_S)
            client.request({"config": {"nodes": {"x": {"address": "127.0.0.1", "port": nodes[1].port}}}})
            wait_until(lambda: "already" in nodes[0].stderr or "another identity" in nodes[0].stderr, ENDS_S)
            seen = client.nodes()["a"]["ts"]
            wait_until(lambda: client.nodes()["a"]["ts"] > seen + 1.0)
            assert client.query("long")["state"] == "running"
            assert other.nodes()["a"]["online"]


def test_without_keys_the_identity_that_is_said_counts(mesh_of: MeshOf, tmp_path: Path) -> None:
    plain = {"security.mode": "none"}
    a, b = mesh_of(2, client={"security": {"mode": "none"}}, **plain)
    a.stop()
    with twin(tmp_path, b, **plain) as other:
        is_refused(other)
    a.restart()
    wait_linked([a, b])


def test_a_hello_counts_only_by_the_key_that_it_names(pair: list[NodeProcess]) -> None:
    context, node = zmq.Context.instance(), pair[1]
    with ExitStack() as stack:
        ports, doors = [], []
        for kind in (zmq.ROUTER, zmq.XPUB, zmq.ROUTER, zmq.XPUB):
            socket = stack.enter_context(closing(guard(context.socket(kind))))
            socket.linger = 0
            ports.append(socket.bind_to_random_port("tcp://127.0.0.1"))
            doors.append(socket)
        public, secret = zmq.curve_keypair()
        claimed = {"identity": public.decode(), "incarnation": f"{mark_of(public.decode())}.1"}
        one = {"node": "one", "address": "127.0.0.1", "port": ports[0], "pub_port": ports[1], **claimed}
        two = {"node": "two", "address": "127.0.0.1", "port": ports[2], "pub_port": ports[3], **identity("1")}
        assert ask(node, one, (public, secret), patience=3.0) is None, "a key that nobody has introduced was let in"
        assert "hello" in ask(node, one)["response"]
        assert "hello" in ask(node, one)["response"]
        assert "hello" in ask(node, two)["response"]
        assert doors[3].poll(10_000), "the node did not link to one who proved his identity"
        assert not doors[1].poll(0), "the node linked to one who proved nothing"
        assert "hello" in ask(node, one, (public, secret))["response"]
        assert doors[1].poll(10_000)
        wrong = ask(node, {**one, "incarnation": hello_of(node, pair[0])}, (public, secret))
        assert "identity" in wrong["error"]["message"]
        assert "another identity" in ask(node, {**two, **claimed}, (public, secret))["error"]["message"]
        node.stop()
        node.restart()
        assert ask(node, one, (public, secret), patience=3.0) is None, "a key outlived the connection by the mesh's key"
    wait_linked(pair)
