"""Several addresses, of which one takes connections and says nothing: what a stopped node does."""

from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from meeseeks import Client
from meeseeks.client.link import Link, LinkState
from meeseeks.client.settings import Address
from tests.support.wait import wait_until


@pytest.fixture
def mute():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield Address("127.0.0.1", listener.getsockname()[1])


@pytest.fixture
def other_mute():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield Address("127.0.0.1", listener.getsockname()[1])


def wait_until_accepted(link):
    def is_accepted() -> bool:
        link.tick(time.monotonic())
        link.read_monitor(time.monotonic())
        return link.state is LinkState.ACCEPTED

    wait_until(is_accepted)


@pytest.mark.parametrize("before", [1, 3])
def test_every_address_has_its_turn_within_the_timeout(stub, mute, before):
    addresses = [*[str(mute)] * before, f"127.0.0.1:{stub.port}"]
    with Client(addresses, timeout=9) as client, ThreadPoolExecutor(1) as pool:
        future = pool.submit(client.ls)
        stub.answer(*stub.receive(), ["j"])
        assert future.result() == ["j"]


def test_an_address_that_was_just_begun_is_not_called_mute(mute, other_mute):
    link = Link([mute, other_mute], timeout=100)
    try:
        wait_until_accepted(link)
        assert str(link.failure()).startswith(f"no node answers at {mute}: it was asked only just now")
        link.move_on(time.monotonic())
        for is_begun in (False, True):
            if is_begun:
                wait_until_accepted(link)
            first, second = str(link.failure()).split("; no node answers at ")
            assert first.startswith(f"no node answers at {mute}: the connection is accepted, and nobody speaks")
            assert second == f"{other_mute}: it was asked only just now, and had no time to answer"
    finally:
        link.end()


def test_one_that_waits_for_its_next_turn_keeps_its_reason(mute, free_port):
    gone = Address("127.0.0.1", free_port())
    link = Link([gone, mute], timeout=100)
    try:
        wait_until_accepted(link)
        link.move_on(time.monotonic())
        assert f"no node answers at {gone}: connection refused" in str(link.failure())
    finally:
        link.end()
