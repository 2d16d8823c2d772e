"""Who may do what: every request with every role, on real nodes; and nobody else hears or says anything."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zmq

from meeseeks import AuthenticationFailed, Client
from meeseeks.errors import InvalidRequest
from meeseeks.node.access import REQUIRED
from meeseeks.wire import codec
from meeseeks.wire.curve import load_key, make_client_key, make_mesh_key
from meeseeks.wire.keys import Role
from meeseeks.wire.messages import REQUEST_TYPES, Request
from tests.cli.conftest import call
from tests.support.curve import identity, mesh_key, show
from tests.support.frames import receive_whole
from tests.support.nodes import NodeProcess, mesh, wait_linked
from tests.support.wait import wait_until

LET_IN_S = 2.0
"""A stranger who was let in would have been heard from long before."""
TOLD_IN_S, PATIENCE_S = 15.0, 30.0
"""A client hears by then that it is not let in, long before its timeout."""

HELLO = {"node": "intruder", "address": "127.0.0.1", "port": 1, "pub_port": 2, **identity("x")}
DATA: dict[str, Any] = {
    "query": [],
    "ls": {},
    "nodes": {},
    "pools": {},
    "output": {"id": "the-job"},
    "follow": {"id": "the-job"},
    "input": {"id": "the-job"},
    "sync": {},
    "submit": {"pool": "p", "args": ["true"]},
    "submit_many": [{"pool": "p", "args": ["true"]}],
    "kill": ["none"],
    "config": {},
    "adopt": "nowhere",
    "forget": "nowhere",
    "hello": HELLO,
}
ROLES = {"read": Role.READ, "submit": Role.SUBMIT, "admin": Role.ADMIN, "mesh": Role.NODE}


class Place:
    def __init__(self, node: NodeProcess, folder: Path) -> None:
        self.node = node
        self.keys = folder / "keys"
        self.authorized = folder / "authorized"
        self.authorized.mkdir()

    def let_in(self, name: str, role: str) -> Path:
        path = self.keys / name
        card = make_client_key(path, mesh_key().server, role)
        card.rename(self.authorized / card.name)
        return path

    def client(self, name: str, **options: Any) -> Client:
        security = {} if name == "mesh" else {"security": {"key": self.keys / name}}
        return self.node.client(**{**security, **options})


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("roles")
    with mesh(folder, 1, **{"security.authorized": folder / "authorized"}) as (node,):
        place = Place(node, folder)
        for role in ("read", "submit", "admin"):
            place.let_in(role, role)
        with node.client() as client:
            client.submit(id="the-job", pool="p", args=["true"], stdin="-")
            client.wait_for("the-job", 20)
        yield place


def test_each_request_needs_a_role():
    assert set(REQUIRED) == set(REQUEST_TYPES)
    assert set(DATA) == set(REQUEST_TYPES)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("kind", REQUEST_TYPES)
def test_a_request_of_a_role(place: Place, kind: str, role: str):
    with place.client("mesh") as client:
        before = client.ls()
    with place.client(role) as client:
        if ROLES[role] >= REQUIRED[kind]:
            try:
                assert kind in client.request({kind: DATA[kind]})
            except InvalidRequest as absent:  # what it asks for can't be, but it may ask
                assert "no node 'nowhere' is known" in str(absent)
            return
        with pytest.raises(AuthenticationFailed) as refused:
            client.request({kind: DATA[kind]})
        assert role in str(refused.value)
        assert kind in str(refused.value)
    with place.node.client() as client:
        assert "intruder" not in client.nodes()
        assert client.ls() == before


@pytest.mark.parametrize("role", ROLES)
def test_configuration_as_a_job_needs_an_admin(place: Place, role: str):
    job = {"id": f"config-of-{role}", "pool": "__config", "args": {"wait_in_pool": True}}
    with place.client(role) as client:
        if ROLES[role] >= Role.ADMIN:
            client.submit(**job)
            assert client.wait_for(job["id"], 20)[job["id"]]["state"] == "done"
            return
        for ask in (lambda: client.submit(**job), lambda: client.submit_many([{"pool": "p", "args": ["true"]}, job])):
            with pytest.raises(AuthenticationFailed):
                ask()


def test_nor_is_a_job_that_is_there_made_configuration(place: Place):
    with place.client("admin") as admin, place.client("submit") as client:
        admin.submit(id="by-admin", pool="__config", args={"wait_in_pool": True})
        admin.wait_for("by-admin", 20)
        client.submit(id="mine", pool="p", args=["true"], hold=True)
        changes = [{"id": "by-admin", "state": "new"}, {"id": "by-admin", "args": {"wait_in_pool": False}}]
        for change in [*changes, {"id": "mine", "pool": "__config", "args": {"wait_in_pool": False}}]:
            with pytest.raises(AuthenticationFailed):
                client.submit(**change)
        client.kill("mine")


def test_the_cache_of_a_reader_follows_and_says_what_it_may_not(place: Place):
    with place.client("read", refresh=1) as client, place.node.client() as other:
        assert client.get_job("the-job")["state"] == "done"
        other.submit(id="followed", pool="p", args=["true"])
        wait_until(lambda: client.list_jobs(id="followed", state="done"))
        ((jid, _),) = client.submit_job(pool="p", args=["true"]).items()
        info = client.wait_for(jid, 20)[jid]
        assert info["state"] == "failed"
        assert "'read'" in info["error"]


def test_a_key_is_let_in_and_shut_out_while_the_node_runs(place: Place):
    place.let_in("guest", "read")
    member, guest = (zmq.Context.instance().socket(zmq.SUB) for _ in range(2))
    show(member)
    keys = load_key(place.keys / "guest")
    assert keys is not None
    show(guest, pair=(keys.public, keys.secret))
    with place.client("guest") as client, closing(member), closing(guest):
        assert client.nodes()
        for socket in (member, guest):
            socket.linger = 0
            socket.subscribe(b"")
            socket.connect(f"tcp://{place.node.address}:{place.node.pub_port}")
            assert socket.poll(10_000)
        (place.authorized / "guest.pub").unlink()

        def is_out() -> bool:
            try:
                client.nodes()
            except AuthenticationFailed:
                return True
            return False

        wait_until(is_out, 5)
        drain(member)
        assert member.poll(10_000), "whoever may still listen does not"
        drain(guest)
        for _ in range(3):
            assert member.poll(10_000)
            drain(member)
        assert not guest.poll(0), "it still hears what happens"
    with place.client("guest", timeout=PATIENCE_S) as client:
        refused_in_time(client)


def test_who_is_shut_out_while_he_waits_hears_nothing_more(place: Place, tmp_path: Path):
    """A request that waits was let in when it came: its answer is for whoever is let in when it is given."""
    keys = load_key(place.let_in("waiting", "read"))
    assert keys is not None
    go = tmp_path / "go"
    script = f"until [ -e {go} ]; do sleep 0.05; done; echo hush-hush"
    asks = zmq.Context.instance().socket(zmq.DEALER)
    with place.client("mesh") as mesh_client, closing(asks):
        mesh_client.submit(id="followed-late", pool="p", args=["sh", "-c", script])
        wait_until(lambda: mesh_client.query("followed-late")["state"] == "running", 10)
        run = mesh_client.request({"follow": {"id": "followed-late"}})["follow"]["run"]
        asks.linger = 0
        show(asks, pair=(keys.public, keys.secret))
        asks.connect(f"tcp://{place.node.address}:{place.node.port}")
        follow = {"id": "followed-late", "run": run, "wait": 9.5}
        asks.send(codec.encode(Request(id=1, request={"follow": follow})))
        asks.send(codec.encode(Request(id=2, request={"nodes": {}})))
        assert answer_to(asks)["id"] == 2  # what came before it waits by now
        (place.authorized / "waiting.pub").unlink()
        with place.client("waiting") as other:
            wait_until(lambda: not is_let_in(other), 10)
        assert not asks.poll(0)
        go.touch()
        told = answer_to(asks)
        assert (told["id"], told["error"]["code"]) == (1, "authentication_failed")
        assert "not authorized any more" in told["error"]["message"]


def answer_to(socket: Any) -> dict[str, Any]:
    assert socket.poll(25_000), "no answer"
    answer: dict[str, Any] = msgpack.unpackb(receive_whole(socket))
    return answer


def drain(socket: Any) -> None:
    while socket.poll(0):
        socket.recv_multipart()


def test_a_file_that_is_no_key_lets_nobody_in_and_harms_nobody(place: Place):
    bad = {"text.pub": "hello", "role.pub": 'public = "x"\nrole = "king"', "empty.pub": "", "bin.pub": "\0\1"}
    for name, text in bad.items():
        (place.authorized / name).write_text(text)
    (place.authorized / "open.pub").write_text("")
    (place.authorized / "open.pub").chmod(0o666)
    wait_until(lambda: all(name in place.node.stderr for name in [*bad, "open.pub"]), 10, place.node.report)
    with place.client("read") as client:
        assert client.nodes()
    for name in [*bad, "open.pub"]:
        (place.authorized / name).unlink()


# --- who is not let in


def refused_in_time(client: Client) -> str:
    began = time.monotonic()
    with pytest.raises(AuthenticationFailed) as refused:
        client.nodes()
    assert time.monotonic() - began < TOLD_IN_S
    return str(refused.value)


def test_a_wrong_key_is_told(place: Place, tmp_path: Path):
    public, secret = zmq.curve_keypair()
    make_client_key(tmp_path / "k", public, "admin")
    with place.node.client(timeout=PATIENCE_S, security={"key": tmp_path / "k"}) as client:
        assert "another mesh" in refused_in_time(client)
    with place.node.client(timeout=PATIENCE_S, security={"key": tmp_path / "k"}, refresh=1) as client:
        began = time.monotonic()
        with pytest.raises(AuthenticationFailed):
            client.list_jobs()
        assert time.monotonic() - began < TOLD_IN_S


def test_an_unknown_key_is_told(place: Place, tmp_path: Path):
    make_client_key(tmp_path / "k", mesh_key().server, "admin")
    with place.node.client(timeout=PATIENCE_S, security={"key": tmp_path / "k"}) as client:
        assert "security.authorized" in refused_in_time(client)
    wait_until(lambda: "turned away 127.0.0.1" in place.node.stderr, 5, place.node.report)


def test_a_missing_key_is_told_and_is_looked_for_again(place: Place, tmp_path: Path):
    path = tmp_path / "k"
    with place.node.client(timeout=PATIENCE_S, security={"key": path}) as client:
        assert f"there is no key at {path}" in refused_in_time(client)
        card = make_client_key(path, mesh_key().server, "read")
        card.rename(place.authorized / "late.pub")
        wait_until(lambda: is_let_in(client), 5)


def is_let_in(client: Client) -> bool:
    try:
        return bool(client.nodes())
    except AuthenticationFailed:
        return False


def test_a_plain_client_is_told(place: Place):
    with place.node.client(timeout=PATIENCE_S, security={"mode": "none"}) as client:
        assert "it expects a key" in refused_in_time(client)


def test_a_key_at_a_plain_node_is_told(mesh_of: Callable[..., list[NodeProcess]]):
    (node,) = mesh_of(1, client={"security": {"mode": "none"}}, **{"security.mode": "none"})
    with node.client(timeout=PATIENCE_S, security=None) as client:
        assert "it does not encrypt" in refused_in_time(client)
    with node.client(security={"mode": "none"}) as client:
        assert client.nodes()
    assert "security.mode is none" in node.stderr


@pytest.mark.parametrize("option", [{"key": ""}, {"mode": "tls"}, {"keys": "x"}, "curve", {"key": 3}])
def test_a_wrong_security_option_is_named(option: Any):
    with pytest.raises(InvalidRequest, match="security"):
        Client(security=option)


def strangers() -> dict[str, Callable[[Any], None]]:
    own, other = zmq.curve_keypair(), zmq.curve_keypair()
    return {
        "plain": lambda _socket: None,
        "wrong server key": lambda socket: show(socket, server=other[0]),
        "unknown client key": lambda socket: show(socket, pair=own),
        "no key of its own": lambda socket: show(socket, server=mesh_key().server, pair=other),
    }


@pytest.mark.parametrize("who", strangers())
def test_a_stranger_gets_no_answer_and_hears_nothing(place: Place, who: str):
    context = zmq.Context.instance()
    asks, hears, member = context.socket(zmq.DEALER), context.socket(zmq.SUB), context.socket(zmq.SUB)
    try:
        for socket in (asks, hears, member):
            socket.linger = 0
        for socket in (asks, hears):
            strangers()[who](socket)
        show(member)
        for socket in (hears, member):
            socket.subscribe(b"")
            socket.connect(f"tcp://{place.node.address}:{place.node.pub_port}")
        asks.connect(f"tcp://{place.node.address}:{place.node.port}")
        for kind in REQUEST_TYPES:
            asks.send(codec.encode(Request(id=1, request={kind: DATA[kind]})))
        began = time.monotonic()
        heard = 0
        while (past := time.monotonic() - began) < LET_IN_S or (heard < 2 and past < 20):
            heard += bool(member.poll(100) and member.recv_multipart())
            assert not asks.poll(0), "it got a reply"
            assert not hears.poll(0), "it heard a broadcast"
        assert heard > 1
    finally:
        for socket in (asks, hears, member):
            socket.close()


def test_nodes_of_two_meshes_do_not_link(tmp_path: Path, mesh_of: Callable[..., list[NodeProcess]]):
    (a,) = mesh_of(1)
    key = tmp_path / "other.key"
    make_mesh_key(key)
    b = NodeProcess(tmp_path, "b", {"security.key": key}, join=a.endpoint).start()
    try:
        wait_until(lambda: "not let in by" in b.stderr and "turned away 127.0.0.1" in a.stderr, 10, b.report)
        with b.client(security={"key": key}) as client, a.client() as other:
            assert set(client.nodes()) == {"b"}
            assert set(other.nodes()) == {"a"}
    finally:
        b.stop()


def test_no_secret_is_in_a_log_or_a_process_list(place: Place):
    secret = mesh_key().secret.decode()
    assert secret not in place.node.stderr
    assert secret not in repr(mesh_key())
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert secret.encode() not in line.read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue


def test_a_secret_on_a_command_line_is_refused_and_not_repeated(tmp_path: Path, place: Place):
    for args in (
        ["node", "name=a", "listen.port=0", f"state.dir={tmp_path}", "listen.ssl.pass=hush-hush"],
        ["conf", "nodes.b.ssl.pass=hush-hush"],
        ["conf", 'nodes.b.ssl={"pass": "hush-hush"}'],
    ):
        answer = call(place.node, *args)
        assert (answer.code, answer.out) == (2, "")
        assert "ssl.pass can't be an argument" in answer.err
        assert "chmod 600" in answer.err
        assert "hush-hush" not in answer.err


def test_a_peer_that_did_not_encrypt_is_found_once_it_does(tmp_path: Path):
    """ZeroMQ gives such a connection up for good: the node makes a new one."""
    b = NodeProcess(tmp_path, "b", {"security.mode": "none"}).start()
    a = NodeProcess(tmp_path, "a", {"nodes.b.address": b.address, "nodes.b.port": b.port}).start()
    try:
        wait_until(lambda: "not let in by" in a.stderr, 10, a.report)
        b.stop()
        b.config["security.mode"] = "curve"
        b.restart()
        wait_linked([a, b])
    finally:
        a.stop()
        b.stop()
