"""What is left of a tunnel that is closed at the worst moment: nothing."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl

import pytest

from meeseeks.wire.tunnels import Tunnels
from tests.support.certificates import Authority


@pytest.fixture(scope="module")
def contexts(tmp_path_factory):
    authority = Authority(tmp_path_factory.mktemp("tunnels") / "ca")
    certificate = authority.issue("node", "127.0.0.1")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate["cert"], certificate["key"])
    return server, ssl.create_default_context(cafile=authority.cafile)


def test_a_tunnel_that_is_closed_during_its_goodbye_leaves_nothing_open(contexts):
    server, client = contexts
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        tunnels = Tunnels()
        try:
            path = tunnels.forward("127.0.0.1", listener.getsockname()[1], "127.0.0.1", client).path
            with socket.socket(socket.AF_UNIX) as inner:
                inner.connect(str(path))
                taken, _ = listener.accept()
                taken.settimeout(10)
                far = server.wrap_socket(taken, server_side=True)
                inner.sendall(b"x")
                assert far.recv(1) == b"x"
            with far:
                assert far.recv(1) == b""  # its goodbye has come, and we don't answer it
                tunnels.close()
                assert ended(far.detach())
        finally:
            tunnels.close()
    gc.collect()  # what is not closed complains, and pytest fails the test for it


class Stopping(ssl.SSLObject):
    """TLS as it is; the loop is told to stop in the very turn in which the handshake ends, as by `close`."""

    def do_handshake(self) -> None:
        super().do_handshake()
        asyncio.get_running_loop().stop()


def test_a_forwarder_that_is_closed_just_when_its_handshake_is_over_leaves_nothing_open(contexts, monkeypatch):
    server, client = contexts
    monkeypatch.setattr(client, "sslobject_class", Stopping)
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket(socket.AF_UNIX) as inner:
        listener.settimeout(10)
        tunnels = Tunnels()
        try:
            inner.connect(str(tunnels.forward("127.0.0.1", listener.getsockname()[1], "127.0.0.1", client).path))
            taken, _ = listener.accept()
            taken.settimeout(10)
            far = server.wrap_socket(taken, server_side=True)
            tunnels._thread.join(10)
        finally:
            tunnels.close()
        assert ended(far.detach())
    gc.collect()


def test_a_terminator_that_is_closed_just_when_a_handshake_is_over_leaves_nothing_open(contexts, monkeypatch, tmp_path):
    server, client = contexts
    monkeypatch.setattr(server, "sslobject_class", Stopping)
    tunnels = Tunnels()
    try:
        port = tunnels.terminate("127.0.0.1", 0, tmp_path / "none", server, lambda *_: None).port
        connection = socket.create_connection(("127.0.0.1", port), timeout=10)
        far = client.wrap_socket(connection, server_hostname="127.0.0.1")
        tunnels._thread.join(10)
    finally:
        tunnels.close()
    assert ended(far.detach())
    gc.collect()


def ended(fd: int) -> bool:
    """Whether a connection has ended, after whatever was said before that."""
    with socket.socket(fileno=fd) as connection:
        connection.settimeout(10)
        try:
            while connection.recv(4096):
                pass
        except ConnectionResetError:
            pass
    return True
