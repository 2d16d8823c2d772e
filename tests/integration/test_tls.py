"""The `ssl` option with real certificates: who is let in, who is not and how he hears of it, and every key of it."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from meeseeks import AuthenticationFailed, Client, NodeUnreachable
from meeseeks.errors import InvalidRequest
from meeseeks.wire.curve import make_client_key
from tests.cli.conftest import call
from tests.support.certificates import MAKE_CA, Authority
from tests.support.curve import mesh_key, show
from tests.support.fuzz import rss_mb
from tests.support.nodes import NodeProcess, mesh, wait_linked
from tests.support.ports import free_port
from tests.support.wait import wait_until

pytestmark = pytest.mark.skipif(not MAKE_CA.exists(), reason="tools/ is in a checkout only")
LET_IN_S = 2.0
TOLD_IN_S, PATIENCE_S = 15.0, 30.0
"""A client hears by then that it is not let in, long before its timeout."""


class Place:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca = Authority(folder / "ca")
        self.foreign = Authority(folder / "foreign")
        self.node_ssl = {"cafile": self.ca.cafile, **self.ca.issue("node", "127.0.0.1", "localhost")}
        self.user_ssl = {"cafile": self.ca.cafile, **self.ca.issue("user")}
        self.nodes: list[NodeProcess] = []

    @property
    def a(self) -> NodeProcess:
        return self.nodes[0]

    def client(self, **changes: Any) -> Client:
        given = {**self.user_ssl, **changes}
        given = {key: value for key, value in given.items() if value is not None}
        return Client("127.0.0.1", self.a.port, timeout=PATIENCE_S, ssl=given)


def dotted(prefix: str, values: dict[str, Any]) -> dict[str, Any]:
    return {f"{prefix}.{key}": value for key, value in values.items()}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    place = Place(tmp_path_factory.mktemp("tls"))
    config = dotted("defaults.ssl", place.node_ssl)
    with mesh(place.folder, 3, client={"ssl": place.user_ssl}, **config) as nodes:
        place.nodes = nodes
        yield place


def test_jobs_run_and_are_followed_through_tls(place: Place):
    a, b, c = place.nodes
    with a.client() as client, c.client(refresh=1) as cached:
        client.submit(id="far", pool="p", node="b", args=["echo", "x" * 100_000])
        info = client.wait_for("far", 20)["far"]
        assert (info["state"], info["node"]) == ("done", "b")
        wait_until(lambda: cached.list_jobs(id="far", state="done"))
        assert len(cached.get_job("far")["stdout_data"]) > 100_000
    assert all("linked to node" in node.stderr for node in (a, b, c))


def test_nobody_can_reach_the_sockets_behind(place: Place):
    """What listens on TCP is the tunnel alone: neither port of a node says anything to who speaks no TLS."""
    for port in (place.a.port, place.a.pub_port):
        with socket.create_connection(("127.0.0.1", port)) as raw:
            raw.settimeout(0.5)
            with pytest.raises(TimeoutError):
                raw.recv(1)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(place.ca.cafile)
        with socket.create_connection(("127.0.0.1", port)) as raw:
            raw.settimeout(5)
            with contextlib.suppress(ssl.SSLError, ConnectionError):
                with context.wrap_socket(raw, server_hostname="127.0.0.1") as wrapped:
                    assert wrapped.recv(1) == b"", "it speaks to who has no certificate"


def refused(client: Client, *words: str) -> None:
    with client:
        began = time.monotonic()
        with pytest.raises(AuthenticationFailed) as error:
            client.nodes()
        assert time.monotonic() - began < TOLD_IN_S
    for word in words:
        assert word in str(error.value)


def test_connections_that_say_nothing_cost_little(place: Place, another: NodeProcess):
    before = rss_mb(another)
    with contextlib.ExitStack() as stack:
        for number in range(500):
            port = another.port if number % 2 else another.pub_port
            stack.enter_context(socket.create_connection((another.address, port), 10))
        with another.client() as client:
            assert client.nodes()
        assert rss_mb(another) - before < 20


def test_a_foreign_node_is_not_believed(place: Place):
    refused(place.client(cafile=place.foreign.cafile), "certificate is not accepted")


def test_a_foreign_certificate_is_not_let_in(place: Place):
    refused(place.client(**place.foreign.issue("stranger")), "does it accept our certificate?")
    wait_until(lambda: "turned away 127.0.0.1: TLS" in place.a.stderr, 5, place.a.report)


def test_no_certificate_is_not_let_in(place: Place):
    refused(place.client(cert=None, key=None), "does it accept our certificate?")


@pytest.fixture
def another(place: Place, tmp_path: Path) -> Iterator[NodeProcess]:
    """A node in whose log nothing is, so that the next line is not left out because of one before."""
    with mesh(tmp_path, 1, client={"ssl": place.user_ssl}, **dotted("listen.ssl", place.node_ssl)) as (node,):
        yield node


def test_an_expired_certificate_is_not_let_in_and_the_log_says_why(place: Place, another: NodeProcess):
    late = dotted("ssl", {**place.user_ssl, **place.ca.issue("late", days=-1)})
    conf = {"address": another.address, "port": another.port, **late}
    answer = call(None, "ls", env={"MEESEEKS_CONF": " ".join(f"{key}={value}" for key, value in conf.items())})
    assert answer.code == 4
    assert "does it accept our certificate? its log says why" in answer.err
    wait_until(lambda: "certificate has expired" in another.stderr, 10, another.report)


def test_a_key_that_is_not_authorized_is_in_the_log_with_its_address(another: NodeProcess, tmp_path: Path):
    make_client_key(tmp_path / "stranger", mesh_key().server, "read")
    refused(another.client(timeout=PATIENCE_S, security={"key": tmp_path / "stranger"}), "security.authorized")
    line = r"turned away 127\.0\.0\.1: its key \(.{40}\) is not authorized here"
    wait_until(lambda: re.search(line, another.stderr), 10, another.report)


def test_one_who_only_looks_whether_somebody_is_there_is_not_in_the_log(another: NodeProcess):
    for _ in range(3):
        socket.create_connection((another.address, another.port), 5).close()
    with another.client() as client:
        assert client.nodes()
    with socket.create_connection((another.address, another.port), 5) as other:
        other.sendall(b"GET / HTTP/1.1\r\n\r\n")
        wait_until(lambda: "does not speak TLS" in another.stderr, 10, another.report)
    assert another.stderr.count("turned away") == 1


def test_a_plain_client_is_not_let_in(place: Place):
    refused(Client("127.0.0.1", place.a.port, timeout=PATIENCE_S), "does not let us in", "ssl")


def is_logged(node: NodeProcess) -> None:
    """One line, with the address, however often it was tried."""
    wait_until(lambda: "turned away 127.0.0.1: " in node.stderr, 10, node.report)
    assert node.stderr.count("turned away") <= 2


def test_a_key_of_the_mesh_is_needed_as_well(place: Place, tmp_path: Path):
    refused(place.a.client(timeout=PATIENCE_S, security={"key": tmp_path / "none"}), "there is no key")


def test_a_wrong_host_name_is_told(place: Place, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("name")
    other = {**place.node_ssl, **place.ca.issue("elsewhere", "elsewhere.example")}
    with mesh(folder, 1, client={"ssl": {**place.user_ssl, "verify": "none"}}, **dotted("listen.ssl", other)) as (
        node,
    ):
        refused(node.client(timeout=PATIENCE_S, ssl=place.user_ssl), "not valid for '127.0.0.1'")
        is_logged(node)
        with node.client() as client:
            assert set(client.nodes()) == {"a"}


def test_an_expired_node_is_told(place: Place, tmp_path_factory: pytest.TempPathFactory):
    old = {**place.node_ssl, **place.ca.issue("expired", "127.0.0.1", days=-1)}
    folder = tmp_path_factory.mktemp("old")
    with mesh(folder, 1, client={"ssl": {**place.user_ssl, "verify": "none"}}, **dotted("listen.ssl", old)) as (node,):
        refused(node.client(timeout=PATIENCE_S, ssl=place.user_ssl), "expired")
        is_logged(node)


def test_tls_to_a_plain_node_is_told(place: Place, tmp_path_factory: pytest.TempPathFactory):
    with mesh(tmp_path_factory.mktemp("plain"), 1) as (node,):
        refused(node.client(timeout=PATIENCE_S, ssl=place.user_ssl), "speak TLS")
        with node.client(timeout=PATIENCE_S, ssl=place.user_ssl, refresh=1) as client:
            began = time.monotonic()
            with pytest.raises(AuthenticationFailed):
                client.list_jobs()
            assert time.monotonic() - began < TOLD_IN_S


def test_where_nobody_listens_no_node_is_reached(place: Place):
    with Client("127.0.0.1", free_port(), timeout=1, ssl=place.user_ssl) as client:
        with pytest.raises(NodeUnreachable):
            client.nodes()


def test_every_key_of_ssl(place: Place, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("keys")
    server = {
        "capath": place.ca.capath(folder / "capath"),
        **place.ca.issue("locked", "127.0.0.1", password="server-secret"),
        "ciphers": "ECDHE+AESGCM",
        "options": "OP_NO_TLSv1_3",
        "verify": "required",
    }
    ours = {**server, **place.ca.issue("locked-user", password="user-secret"), "ciphers": None}
    client = {key: value for key, value in ours.items() if value}
    with mesh(folder, 1, client={"ssl": client}, **dotted("listen.ssl", server)) as (node,):
        with node.client() as good:
            shown = good.request({"config": {}})["config"]
            assert shown["listen"]["ssl"]["pass"] == "***"
            good.request({"config": {"wait_in_pool": True}})
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(place.ca.cafile)
        context.load_cert_chain(place.user_ssl["cert"], place.user_ssl["key"])
        with socket.create_connection(("127.0.0.1", node.port)) as raw:
            with context.wrap_socket(raw, server_hostname="127.0.0.1") as wrapped:
                assert wrapped.version() == "TLSv1.2"
                assert "AES" in wrapped.cipher()[0]
                assert "GCM" in wrapped.cipher()[0]
        refused(node.client(timeout=PATIENCE_S, ssl={**client, "ciphers": "ECDHE+CHACHA20"}), "does not let us in")
        refused(node.client(timeout=PATIENCE_S, ssl={**client, "options": ["OP_NO_TLSv1_2"]}), "does not let us in")
        for verify in ("optional", 2, True, "CERT_REQUIRED"):
            with node.client(ssl={**client, "verify": verify}) as good:
                assert good.nodes()
        assert "server-secret" not in node.stderr
        with node.client(ssl=client) as good:
            assert "user-secret" not in repr(good)


def test_a_listener_that_verifies_nobody(place: Place, tmp_path_factory: pytest.TempPathFactory):
    open_to_all = {"cert": place.node_ssl["cert"], "key": place.node_ssl["key"], "verify": "none"}
    client = {"ssl": {"cafile": place.ca.cafile}}
    with mesh(tmp_path_factory.mktemp("open"), 1, client=client, **dotted("listen.ssl", open_to_all)) as (node,):
        with node.client() as good:
            assert good.nodes()


def test_tls_alone_is_enough_where_certificates_are_checked(place: Place, tmp_path_factory: pytest.TempPathFactory):
    config = {"security.mode": "none", "listen.address": "0.0.0.0", **dotted("listen.ssl", place.node_ssl)}
    options = {"ssl": place.user_ssl, "security": {"mode": "none"}, "timeout": PATIENCE_S}
    node = NodeProcess(tmp_path_factory.mktemp("alone"), "a", config, client=options).start()
    try:
        with Client("127.0.0.1", node.port, **options) as client:
            assert client.nodes()
        refused(Client("127.0.0.1", node.port, **{**options, "ssl": {"cafile": place.ca.cafile}}), "certificate")
    finally:
        node.stop()


def test_a_peer_with_tls_of_its_own(place: Place, tmp_path_factory: pytest.TempPathFactory):
    """`nodes.NAME.ssl` is for that peer alone: b has TLS, a has none, and they link."""
    folder = tmp_path_factory.mktemp("peer")
    b = NodeProcess(folder, "b", dotted("listen.ssl", place.node_ssl), client={"ssl": place.user_ssl}).start()
    links = {"nodes.b.address": "127.0.0.1", "nodes.b.port": b.port, **dotted("nodes.b.ssl", place.user_ssl)}
    a = NodeProcess(folder, "a", links).start()
    try:
        wait_linked([a, b])
    finally:
        a.stop()
        b.stop()


def test_a_node_with_tls_on_all_addresses(place: Place, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("all")
    node = NodeProcess(folder, "z", {"listen.address": "*", **dotted("listen.ssl", place.node_ssl)}).start()
    try:
        with Client("127.0.0.1", node.port, ssl=place.user_ssl) as client:
            assert client.nodes()["z"]["online"]
    finally:
        node.stop()


def test_a_node_that_can_make_no_tunnel_says_so_and_goes_on(place: Place, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("tunnels")
    deep = folder / ("x" * 100)  # the name of a socket has at most 107 bytes
    deep.mkdir()
    links = {"nodes.b.address": "127.0.0.1", "nodes.b.port": place.a.port, **dotted("nodes.b.ssl", place.user_ssl)}
    node = NodeProcess(folder, "z", links, environment={"XDG_RUNTIME_DIR": str(deep)}).start()
    try:
        wait_until(lambda: "no TLS tunnel can be made" in node.stderr, 20, node.report)
        with node.client() as client:
            assert client.nodes()["z"]["online"]
        assert "Traceback" not in node.stderr
    finally:
        node.stop()


def test_a_client_that_can_make_no_tunnel_says_so(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
    with Client("127.0.0.1", place.a.port, ssl=place.user_ssl, timeout=1) as client:
        with pytest.raises(NodeUnreachable, match="no TLS tunnel can be made: AF_UNIX path too long"):
            client.ls()


def test_what_tls_lets_out_is_not_to_be_read(place: Place):
    """A stranger who speaks ZeroMQ to a port of TLS hears nothing of it."""
    hears = zmq.Context.instance().socket(zmq.SUB)
    hears.linger = 0
    show(hears)
    hears.subscribe(b"")
    hears.connect(f"tcp://127.0.0.1:{place.a.pub_port}")
    try:
        assert not hears.poll(int(LET_IN_S * 1000))
    finally:
        hears.close()


def test_a_node_with_tls_that_is_started_again_is_found_again(place: Place):
    with place.a.client(timeout=30) as client:
        assert client.nodes()
        place.a.stop()
        place.a.restart()
        assert "a" in client.nodes()
        wait_linked(place.nodes)
    assert not any("Traceback" in node.stderr for node in place.nodes)


WRONG = [
    ({"cafle": "x"}, "did you mean 'cafile'?"),
    ({"verify": "maybe"}, "none, optional or required"),
    ({"options": "OP_DANCE"}, "OP_DANCE"),
    ({"options": -1}, "-1"),
    ({"options": 2**70}, "too large"),
    ({"ciphers": "NO-SUCH"}, "names no cipher"),
    ({"ciphers": "NUL\0"}, "names no cipher"),
    ({"cafile": "/no/such/file"}, "/no/such/file"),
    ({"capath": "/no/such/folder"}, "/no/such/folder"),
    ({"key": "x"}, "give that too"),
    ({"cert": 3}, "non-empty text"),
    ("yes", "must be a map"),
]


@pytest.mark.parametrize(("options", "said"), WRONG)
def test_a_wrong_option_is_named(options: Any, said: str):
    with pytest.raises(InvalidRequest) as error:
        Client(ssl=options)
    assert said in str(error.value)


def test_a_wrong_password_is_told_and_not_shown(place: Place):
    locked = place.ca.issue("wrong-password", password="the-right-one")
    for password in ("a-wrong-one", None):
        with pytest.raises(InvalidRequest) as error:
            Client(ssl={**{key: value for key, value in {**locked, "pass": password}.items() if value}})
        assert "password" in str(error.value)
        assert "a-wrong-one" not in str(error.value)


HALF = [("listen.ssl.cafile=x", "cert"), ("listen.ssl.cert=/none", "cafile or capath")]


@pytest.mark.parametrize(("pair", "said"), HALF)
def test_a_node_does_not_start_with_half_of_it(pair: str, said: str, tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-m", "meeseeks.node", "name=x", f"state.dir={tmp_path}", "listen.port=0", pair],
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert done.returncode == 1
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
