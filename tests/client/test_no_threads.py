"""What a Client does where no thread can be started: there are too many, or (Python >= 3.12) the process ends."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pytest

from meeseeks.client.cache import Cache
from meeseeks.client.channel import Channel
from meeseeks.client.courier import Courier
from meeseeks.client.lookup import Lookup
from meeseeks.client.settings import Address, Place
from tests.support.wait import wait_until

HERE, THERE = Place(Address("127.0.0.1", 1), "127.0.0.1"), Place(Address("127.0.0.1", 2), "127.0.0.1")


@contextmanager
def no_threads() -> Iterator[None]:
    """With stacks that are larger than the address space no thread can be started."""
    before = threading.stack_size(1 << 50)
    try:
        with pytest.raises(RuntimeError):
            threading.Thread(target=print).start()
        yield
    finally:
        threading.stack_size(before)


def test_a_name_is_looked_up_later():
    lookup = Lookup(Address("localhost", 1))
    with no_threads():
        for now in (0.0, 10.0, 20.0):
            assert lookup.look(now) == []
    assert wait_until(lambda: lookup.look(100.0))


def test_what_is_in_doubt_is_asked_for_later(free_port):
    cache = Cache(expire=60)
    request = {"id": "j", "pool": "p", "args": ["true"]}
    raw = msgspec.Raw(msgspec.msgpack.encode(request))
    cache.submit("j", raw, {**request, "args": ("true",)}, "a")
    cache.retry(cache.next_batch(THERE, 1, 100), THERE)
    opened: list[Channel] = []
    port = free_port()

    def channel_to(place: Place) -> Channel:
        opened.append(Channel([Address("127.0.0.1", port)], 5))
        return opened[-1]

    courier = Courier(cache, channel_to)
    files = len(os.listdir("/proc/self/fd"))
    with no_threads():
        courier.tick(HERE, 0.0)
    assert len(os.listdir("/proc/self/fd")) == files
    courier.tick(HERE, 100.0)
    assert [channel.closed for channel in opened] == [True, False]
    courier.end()
