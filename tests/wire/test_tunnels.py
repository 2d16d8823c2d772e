"""What is left of a tunnel that is closed while it says goodbye to a side that does not answer."""

from __future__ import annotations

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


def ended(fd: int) -> bool:
    with socket.socket(fileno=fd) as connection:
        connection.settimeout(10)
        try:
            return connection.recv(1) == b""
        except ConnectionResetError:
            return True
