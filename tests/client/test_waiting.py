"""Waiting without a cache, driven by hand."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from meeseeks import Client
from meeseeks.core.record import Record, Spec, Status, jobinfo


def info(state: str) -> dict:
    spec = Spec(id="j", pool="p", args=("true",), submit_node="stub")
    return jobinfo(Record(spec, Status(epoch=(1, "stub"), state=state, active=state == "running")), 1)


def test_a_job_that_was_seen_and_is_unknown_for_a_moment_is_waited_for(stub):
    with Client("127.0.0.1", stub.port) as client, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.wait_for, "j", 20)
        for said in ({"j": info("running")}, {}, {"j": info("running")}, {}, {"j": info("done")}):
            stub.answer(*stub.receive(), said)
        assert waiting.result(20)["j"]["state"] == "done"
