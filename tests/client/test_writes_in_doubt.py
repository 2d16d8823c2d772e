"""The cache by itself: writes whose job the node gave up, does not know yet, or had known all along."""

from __future__ import annotations

import time

import msgspec
import pytest

from meeseeks import RequestFailed
from meeseeks.client.cache import Cache
from meeseeks.client.settings import Address, Place
from meeseeks.client.unknown import UNKNOWN_FOR
from meeseeks.core.record import Record, Spec, Status, jobinfo

A, B = Place(Address("a", 1), "10.0.0.1"), Place(Address("b", 1), "10.0.0.2")
RAW = msgspec.Raw(msgspec.msgpack.encode({}))


@pytest.fixture
def cache() -> Cache:
    return Cache(expire=60)


def record(*, status: dict | None = None, **spec) -> Record:
    fields = {"pool": "p", "args": ("true",), "submit_node": "a", "writer": "a", "lamport": 1, **spec}
    return Record(Spec(id="j", **fields), Status(**{"epoch": (1, "a"), "node": "a", **(status or {})}))


def submit(cache: Cache, **changes) -> None:
    fields = {"pool": "p", "args": ("true",)} if "j" not in cache else {}
    cache.submit("j", RAW, {"id": "j", **fields, **changes}, "a")


def deliver(cache: Cache, at: Place = A) -> list:
    return cache.next_batch(at, 100, 1000)


def test_a_job_that_was_given_up_as_lost_can_be_killed(cache):
    running = {"state": "running", "active": True, "rev": 3}
    cache.apply([record(status=running, lost=(1, (1, "a"), 3))], 1)
    cache.stand_at(1)
    assert (cache.info("j")["state"], cache.info("j")["active"]) == ("failed", False)
    assert cache.kill(["j"]) == ["j"]
    assert (cache.info("j")["state"], cache.info("j")["active"]) == ("killed", False)
    assert [write.kind for write in deliver(cache)] == ["kill"]
    # Its node is back before the kill has come to it.
    cache.apply([record(status={**running, "rev": 4}, lost=(1, (1, "a"), 3))], 2)
    assert (cache.info("j")["state"], cache.info("j")["active"]) == ("killed", True)


@pytest.mark.parametrize("killed", [False, True])
def test_an_ended_job_that_had_left_the_cache_and_is_submitted_again_reads_as_it_ended(cache, killed):
    told = []
    cache.stand_at(5)
    submit(cache)
    cache.watch("j", told.append)
    if killed:
        cache.kill(["j"])
    answer = {"j": jobinfo(record(status={"state": "done", "rev": 2, "rc": 0}), 3)}
    while batch := deliver(cache):
        cache.acknowledge(batch, answer)
    assert cache.unsettled() == []
    assert (cache.info("j")["state"], cache.info("j")["rc"]) == ("done", 0)
    assert told == ["j"]


def test_a_kill_waits_until_our_node_knows_the_job_that_another_one_took(cache):
    submit(cache)
    cache.retry(deliver(cache, A), A)
    cache.kill(["j"])
    assert deliver(cache, B) == []
    (doubtful,) = cache.strays(B, {})[A, False]
    cache.acknowledge([doubtful], {})
    assert deliver(cache, B) == []
    assert cache.unsettled() == ["j"]
    cache.apply([record()], 1)
    assert [write.kind for write in deliver(cache, B)] == ["kill"]


def test_a_kill_of_a_job_that_the_node_does_not_know_yet_is_not_done(cache):
    cache.apply([record(status={"state": "running", "active": True})], 1)
    cache.stand_at(1)
    cache.kill(["j"])
    cache.acknowledge(deliver(cache), {})
    assert cache.unsettled() == ["j"]
    assert deliver(cache) == []
    cache.apply([record(status={"state": "running", "active": True})], 2)
    (again,) = deliver(cache)
    cache.acknowledge([again], {"j": {"seq": 2}})
    cache.stand_at(2)
    assert cache.unsettled() == []


def test_a_kill_of_a_job_that_nobody_knows_is_done_once_the_job_is_given_up(cache):
    cache.nodes = {"a": {"online": True}}
    submit(cache)
    cache.acknowledge(deliver(cache), {"j": {"seq": 9}})
    cache.kill(["j"])
    cache.acknowledge(deliver(cache), {})
    cache.find_missing(time.monotonic())
    assert "j" in cache
    cache.find_missing(time.monotonic() + UNKNOWN_FOR)
    assert "j" not in cache
    cache.acknowledge(deliver(cache), {})
    assert cache.unsettled() == []


def test_a_kill_behind_a_submit_that_was_refused_is_done_and_the_reason_stays(cache):
    submit(cache)
    cache.kill(["j"])
    cache.refuse(deliver(cache), RequestFailed("the disk is full"))
    cache.acknowledge(deliver(cache), {})
    cache.find_missing(time.monotonic() + UNKNOWN_FOR)
    assert cache.unsettled() == []
    assert cache.info("j")["error"] == "the disk is full"


def test_a_kill_before_a_new_submit_of_the_id_does_not_keep_it_waiting(cache):
    cache.apply([record()], 1)
    cache.stand_at(1)
    cache.kill(["j"])
    cache.keep_only(set())
    submit(cache, pool="p", args=("true",))
    cache.acknowledge(deliver(cache), {})
    assert [write.kind for write in deliver(cache)] == ["submit"]


def test_a_job_that_was_refused_and_is_submitted_again_is_a_new_one(cache):
    told = []
    for why in ("the disk is full", "it still is"):
        submit(cache, pool="p", args=("true",))
        assert (cache.info("j")["state"], cache.info("j")["error"]) == ("new", None)
        cache.watch("j", told.append)
        assert told == []
        (write,) = deliver(cache)
        assert write.happens_once
        cache.refuse([write], RequestFailed(why))
        assert cache.info("j")["error"] == why
        assert told.pop() == "j"


def test_a_kill_is_kept_for_as_long_as_the_node_that_took_the_job_is_not_reached(cache):
    submit(cache)
    cache.retry(deliver(cache, A), A)
    cache.kill(["j"])
    cache.acknowledge(cache.strays(B, {})[A, False], {})
    for later in (0, 10, 20):
        cache.find_missing(time.monotonic() + later)
    assert cache.info("j")["state"] == "unknown"
    assert (deliver(cache, B), cache.unsettled()) == ([], ["j"])
    cache.apply([record()], 1)
    assert [write.kind for write in deliver(cache, B)] == ["kill"]
