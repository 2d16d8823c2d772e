"""Waiting, driven by hand: without a cache, and with one that is told of a job too late."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from meeseeks import Client
from meeseeks.client.cache import Cache
from meeseeks.client.unknown import UNKNOWN_FOR, Unknown
from meeseeks.client.waiting import watch_until_over
from meeseeks.core.record import Record, Spec, Status, jobinfo


def record(state: str, rev: int = 1) -> Record:
    spec = Spec(id="j", pool="p", args=("true",), submit_node="stub")
    return Record(spec, Status(epoch=(1, "stub"), rev=rev, state=state, active=state == "running"))


def info(state: str) -> dict:
    return jobinfo(record(state), 1)


def test_a_job_that_was_seen_and_is_unknown_for_a_moment_is_waited_for(stub):
    with Client("127.0.0.1", stub.port) as client, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.wait_for, "j", 20)
        for said in ({"j": info("running")}, {}, {"j": info("running")}, {}, {"j": info("done")}):
            stub.answer(*stub.receive(), said)
        assert waiting.result(20)["j"]["state"] == "done"


def test_a_suspended_client_does_not_take_a_job_for_unknown():
    """Its clock went on, and the node has been asked once since."""
    unknown = Unknown()
    assert unknown.sort(["j"], {}, 100.0) == []
    assert unknown.sort(["j"], {}, 1000.0) == []
    assert unknown.sort(["j"], {}, 1000.0 + UNKNOWN_FOR - 1.01) == []
    assert unknown.sort(["j"], {}, 1000.0 + UNKNOWN_FOR + 1) == ["j"]


def test_a_job_that_was_seen_in_between_is_unknown_from_then_on():
    unknown = Unknown()
    at = [100.0 + number for number in range(7)]
    assert [unknown.sort(["j"], {}, now) for now in at[:3]] == [[], [], []]
    assert unknown.sort(["j"], {"j": info("running")}, at[3]) == []
    assert [unknown.sort(["j"], {}, now) for now in at[4:]] == [[], [], []]
    assert unknown.sort(["j"], {}, at[6] + 1) == ["j"]


def test_a_job_that_comes_when_it_was_given_up_is_waited_for(monkeypatch):
    """What is returned says of each job that it is over, or that nobody knows it."""
    monkeypatch.setattr("meeseeks.client.unknown.UNKNOWN_FOR", 0.0)
    cache = Cache(expire=60)
    with ThreadPoolExecutor(1) as pool:

        def look_up(jids):
            if "j" in cache:
                return cache.infos(jids)
            cache.apply([record("new")], 1)
            infos = cache.infos(jids)
            pool.submit(cache.apply, [record("done", rev=2)], 2)
            return infos

        infos = watch_until_over(cache, lambda jids: {}, look_up, lambda: None, ["j"], time.monotonic() + 20, 1)
    assert infos["j"]["state"] == "done"
