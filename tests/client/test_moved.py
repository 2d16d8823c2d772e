"""A node that comes back at another address of the network: its name leads there."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from meeseeks import Client
from tests.support.wait import wait_until

NAME = "node.test"


class Names:
    """What a name leads to, in place of a name server; and how often it was asked for."""

    def __init__(self) -> None:
        self.host: str | None = "127.0.0.1"
        self.asked = 0

    def look_up(self, host: str, port: int, **how: Any) -> list[Any]:
        assert host == NAME
        self.asked += 1
        if self.host is None:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (self.host, port))]


@pytest.fixture
def names(monkeypatch) -> Names:
    found = Names()
    monkeypatch.setattr(socket, "getaddrinfo", found.look_up)
    monkeypatch.setattr("meeseeks.client.lookup._PAUSE_MIN", 0.1)
    return found


def test_a_node_that_comes_back_at_another_address_is_found_by_its_name(mesh_of, names):
    (node,) = mesh_of(1)
    with Client(NAME, node.port, timeout=20, refresh=1) as cached:
        first = next(iter(cached.submit_job(pool="p", args=["true"])))
        assert cached.wait_for(first, 30)[first]["state"] == "done"
        node.stop()
        names.host = "127.0.0.2"
        node.config["listen.address"] = "127.0.0.2"
        second = next(iter(cached.submit_job(pool="p", args=["true"])))
        node.restart()
        assert cached.wait_for(second, 30)[second]["state"] == "done"
        assert sorted(cached.query([first, second])) == sorted([first, second])


def test_a_name_that_still_leads_to_the_same_address_changes_nothing(stub, names):
    with Client(NAME, stub.port, timeout=20) as client, ThreadPoolExecutor(1) as pool:
        question = pool.submit(client.query, "x")
        stub.answer(*stub.receive(), False)
        assert question.result() is False
        dealer = client._channel.link._dealer
        stub.close()
        question = pool.submit(client.query, "y")
        asked = names.asked
        wait_until(lambda: names.asked > asked)
        names.host = None  # nor does a name that leads nowhere for a while
        wait_until(lambda: names.asked > asked + 1)
        stub.open()
        stub.answer(*stub.receive(), False)
        assert question.result() is False
        assert client._channel.link._dealer is dealer


def test_a_client_that_never_reached_its_node_finds_it_where_the_name_leads_by_then(stub, names):
    names.host = "127.0.0.2"
    with Client(NAME, stub.port, timeout=20) as client, ThreadPoolExecutor(1) as pool:
        question = pool.submit(client.query, "x")
        wait_until(lambda: names.asked)
        names.host = "127.0.0.1"
        stub.answer(*stub.receive(), False)
        assert question.result() is False
