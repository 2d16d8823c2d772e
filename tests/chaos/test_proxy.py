"""The proxy ends all its connections when it ends, whatever is on its way and whoever does not read it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import struct

import pytest

from tests.chaos.proxy import Ports, Proxy, host
from tests.support.ports import free_ports
from tests.support.wait import wait_until


def test_a_proxy_that_ends_during_a_goodbye_leaves_nothing_open() -> None:
    end_during_a_goodbye()
    gc.collect()  # what is not closed complains, and pytest fails the test for it


def test_a_proxy_that_can_t_have_an_address_says_so_and_leaves_nothing_open() -> None:
    ports = [Ports(*free_ports(2)) for _ in range(2)]
    with socket.create_server((host(1, 0), ports[0].publisher)), pytest.raises(OSError, match="in use"), Proxy(ports):
        pass
    gc.collect()


def end_during_a_goodbye() -> None:
    ports = [Ports(*free_ports(2)) for _ in range(2)]
    with contextlib.ExitStack() as later, socket.create_server(("127.0.0.1", ports[1].router)) as listener:
        listener.settimeout(10)
        with Proxy(ports) as proxy:
            near = later.enter_context(socket.create_connection((host(0, 1), ports[1].router)))
            far, _ = listener.accept()
            far.setblocking(False)
            wait_until(lambda: send(far) and any(map(has_more, proxy.ends())), 10, "what waits for who does not read")
            far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            far.close()  # at once: what `near` has not read is on its way still
            wait_until(lambda: near.send(b"x") and any(end.is_closing() for end in proxy.ends()), 10, "a goodbye")


def send(connection: socket.socket) -> bool:
    """Send what there is room for."""
    with contextlib.suppress(BlockingIOError):
        connection.send(bytes(1 << 20))
    return True


def has_more(end: asyncio.StreamWriter) -> bool:
    return end.transport.get_write_buffer_size() > 0
