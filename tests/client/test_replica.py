"""How a cache follows: gaps, new lives, refusals, and a node whose broadcasts can't be reached; driven by hand."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from meeseeks import Client
from meeseeks.client.unknown import UNKNOWN_FOR
from meeseeks.core.effects import Beat, Snapshot, Update
from meeseeks.core.record import Record, Spec, Status
from meeseeks.wire import codec, sockets, transfer
from tests.support.curve import guard
from tests.support.wait import wait_until


def record(jid: str, **status) -> Record:
    spec = Spec(id=jid, pool="p", args=("true",), submit_node="stub", writer="stub", lamport=1)
    return Record(spec, Status(**{"epoch": (1, "stub"), "node": "stub", **status}))


class Publisher:
    """A stub that also publishes, and answers requests as a node with this table would."""

    def __init__(self, stub) -> None:
        self.stub = stub
        self.socket = guard(sockets.publisher())
        self.port = sockets.bind(self.socket, "127.0.0.1", 0)
        self.incarnation = "one"
        self.syncs: list[dict] = []

    def publish(self, prev: int, seq: int, records=()) -> None:
        update = Update(
            node="stub", incarnation=self.incarnation, topic="all", prev=prev, seq=seq, records=list(records)
        )
        transfer.send_nowait(self.socket, [b"all", codec.encode(update)])

    def wait_subscribed(self) -> None:
        assert self.socket.poll(10_000)
        self.socket.recv()

    def answer_sync(self, since: int, seq: int, records=(), *, more: bool = False) -> dict:
        peer, request = self.next("sync")
        beat = Beat(node="stub", incarnation=self.incarnation, number=1, pub_port=self.port)
        snapshot = Snapshot(
            node="stub",
            incarnation=self.incarnation,
            since=since,
            seq=seq,
            more=more,
            records=list(records),
            beats=[beat],
        )
        self.stub.answer(peer, request, snapshot)
        return request.request["sync"]

    def next(self, kind: str):
        """The next request of a kind; nodes and pools, which come in between, are answered with nothing."""
        while True:
            peer, request = self.stub.receive()
            if kind in request.request:
                return peer, request
            self.stub.answer(peer, request, {})


@pytest.fixture
def node(stub) -> Iterator[Publisher]:
    one = Publisher(stub)
    yield one
    sockets.close(one.socket)


@pytest.fixture
def cached(stub) -> Iterator[Client]:
    # Its polls are far away: what comes, comes by push or because a gap was seen.
    client = Client("127.0.0.1", stub.port, refresh=100, poll=200, expire=300, timeout=5)
    yield client
    client.close()


def test_a_snapshot_in_parts_then_broadcasts(cached, node):
    assert node.answer_sync(0, 2, [record("a"), record("b")], more=True) == {}
    node.answer_sync(2, 3, [record("c")])
    assert sorted(cached.list_jobs()) == ["a", "b", "c"]
    node.wait_subscribed()
    node.publish(3, 4, [record("a", rev=1, state="running", active=True)])
    wait_until(lambda: cached.get_job("a")["state"] == "running")
    assert cached.get_job("a")["seq"] == 4


def test_a_gap_is_filled_by_a_sync_since_what_is_here(cached, node):
    node.answer_sync(0, 3, [record("a")])
    node.wait_subscribed()
    node.publish(5, 6, [record("late")])
    asked = node.answer_sync(3, 6, [record("missed"), record("late")])
    assert asked["since"] == 3
    assert asked["incarnation"] == "one"
    wait_until(lambda: sorted(cached.list_jobs()) == ["a", "late", "missed"])


def test_broadcasts_during_a_sync_are_applied_after_it(cached, node):
    node.answer_sync(0, 3, [record("a")])
    node.wait_subscribed()
    node.publish(5, 6)
    peer, request = node.next("sync")
    node.publish(6, 7, [record("meanwhile")])
    beat = Beat(node="stub", incarnation="one", number=2, pub_port=node.port)
    node.stub.answer(peer, request, Snapshot(node="stub", incarnation="one", since=3, seq=6, beats=[beat]))
    wait_until(lambda: sorted(cached.list_jobs()) == ["a", "meanwhile"])


def test_what_is_here_already_is_not_applied_again(cached, node):
    node.answer_sync(0, 5, [record("a", rev=5, state="done", ts=time.time())])
    node.wait_subscribed()
    node.publish(2, 4, [record("a", rev=1, state="running", active=True)])
    node.publish(5, 6, [record("b")])
    wait_until(lambda: "b" in cached.list_jobs())
    assert cached.get_job("a")["state"] == "done"


def test_a_new_life_drops_what_the_node_forgot(cached, node):
    node.answer_sync(0, 9, [record("a"), record("b")])
    node.wait_subscribed()
    node.incarnation = "two"
    node.publish(0, 1, [record("b")])
    node.answer_sync(0, 1, [record("b")])
    wait_until(lambda: list(cached._cache._vanished) == ["a"])
    cached._cache.nodes = {"stub": {"online": True}}
    cached._cache.find_missing(time.monotonic() + UNKNOWN_FOR)
    assert cached.list_jobs() == ["b"]


def test_a_table_of_a_new_life_that_was_cut_short_is_read_anew(cached, node):
    """Or nobody would notice what is not in it."""
    node.answer_sync(0, 9, [record("a"), record("b")])
    node.wait_subscribed()
    node.incarnation = "two"
    node.publish(0, 1, [record("b")])
    node.answer_sync(0, 1, [record("b")], more=True)
    node.stub.refuse(*node.next("sync"), "failed", "not now")
    assert node.answer_sync(0, 1, [record("b")]) == {}
    wait_until(lambda: list(cached._cache._vanished) == ["a"])


def test_a_new_job_that_the_node_refuses_reads_failed_and_the_others_do_not(cached, node):
    node.answer_sync(0, 1)
    good, bad = (next(iter(cached.submit_job(pool="p", args=["true"]))) for _ in range(2))
    left = {good, bad}
    while left:
        peer, request = node.next("submit_many")
        jids = [spec["id"] for spec in request.request["submit_many"]]
        if bad in jids:
            node.stub.refuse(peer, request, "invalid_request", "not this one")
        else:
            node.stub.answer(peer, request, {jid: {"seq": 2} for jid in jids})
        left -= set(jids) if len(jids) == 1 or bad not in jids else set()
    wait_until(lambda: cached.get_job(bad)["state"] == "failed")
    assert cached.get_job(bad)["error"] == "not this one"
    assert cached.get_job(good)["state"] == "new"


def test_a_write_that_was_not_answered_is_sent_again_once_the_table_is_current(cached, node, stub):
    node.answer_sync(0, 1)
    jid = next(iter(cached.submit_job(pool="p", args=["true"])))
    node.next("submit_many")
    stub.close()
    stub.open()
    node.answer_sync(1, 1)
    peer, request = node.next("submit_many")
    assert [spec["id"] for spec in request.request["submit_many"]] == [jid]
    stub.answer(peer, request, {jid: {"seq": 2}})
    wait_until(lambda: cached._cache.unsettled() == [])


def test_a_write_that_was_carried_out_unanswered_is_not_sent_again(cached, node, stub):
    node.answer_sync(0, 1)
    jid = next(iter(cached.submit_job(pool="p", args=["true"])))
    node.next("submit_many")
    stub.close()
    stub.open()
    node.answer_sync(1, 2, [record(jid, rev=3, state="done")])
    wait_until(lambda: cached._cache.unsettled() == [])
    assert cached.get_job(jid)["state"] == "done"


def test_a_node_whose_broadcasts_can_not_be_reached_is_asked_again_and_again(stub, node):
    sockets.close(node.socket)
    with Client("127.0.0.1", stub.port, refresh=0.5, poll=200, expire=300) as cached:
        node.answer_sync(0, 1)
        node.answer_sync(1, 2, [record("a")])
        wait_until(lambda: cached.list_jobs() == ["a"])


def test_a_submit_for_several_nodes_that_was_answered_gives_its_ids_although_no_sync_follows(stub, node):
    with Client("127.0.0.1", stub.port, refresh=100, poll=200, expire=300, timeout=3) as cached:
        node.answer_sync(0, 1)
        with ThreadPoolExecutor(1) as pool:
            began = time.monotonic()
            submitting = pool.submit(cached.submit_job, id="j", pool="p", args=["true"], node="*")
            peer, request = node.next("submit")
            stub.answer(peer, request, {"j@stub": {"id": "j@stub", "state": "new"}})
            assert list(submitting.result(10)) == ["j@stub"]
            assert time.monotonic() - began < 5.7
