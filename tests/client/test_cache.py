"""The cache by itself: what it shows while a write is on its way, and what of it is gone when."""

from __future__ import annotations

import threading
import time

import msgspec
import pytest

from meeseeks import InvalidRequest, RequestFailed
from meeseeks.client.cache import Cache, is_final
from meeseeks.core.record import Record, Spec, Status
from tests.support.wait import wait_until

RAW = msgspec.Raw(msgspec.msgpack.encode({}))


def record(jid: str = "j", *, lamport: int = 1, status: dict | None = None, **spec) -> Record:
    fields = {"pool": "p", "args": ("true",), "submit_node": "a", "writer": "a", **spec}
    return Record(Spec(id=jid, lamport=lamport, **fields), Status(**{"epoch": (1, "a"), "node": "a", **(status or {})}))


@pytest.fixture
def cache() -> Cache:
    return Cache(expire=60)


def submit(cache: Cache, jid: str = "j", **changes) -> dict:
    fields = {"pool": "p", "args": ("true",)} if jid not in cache else {}
    return cache.submit(jid, RAW, {"id": jid, **fields, **changes}, "a")


def deliver(cache: Cache, at: int = 0) -> list:
    return cache.next_batch(at, 100, 1000)


def test_a_new_job_shows_at_once_and_any_record_of_the_node_wins(cache):
    info = submit(cache)
    assert (info["state"], info["active"], info["submit_node"]) == ("new", False, "a")
    batch = deliver(cache)
    cache.acknowledge(batch, {"j": {"seq": 5}})
    assert cache.last_serial() == batch[0].serial
    cache.apply([record(status={"rev": 2, "state": "running", "active": True})], 5)
    cache.stand_at(5)
    assert cache.info("j")["state"] == "running"
    assert cache.info("j")["seq"] == 5
    assert cache.last_serial() == 0


def test_a_change_shows_at_once_and_stays_until_the_node_has_told_its_own(cache):
    cache.apply([record(hold=True)], 1)
    cache.stand_at(1)
    assert submit(cache, hold=False)["hold"] is False
    batch = deliver(cache)
    cache.apply([record(hold=True, status={"rev": 1, "active": True})], 2)
    cache.stand_at(2)
    assert (cache.info("j")["hold"], cache.info("j")["active"]) == (False, True)
    cache.acknowledge(batch, {"j": {"seq": 3}})
    assert cache.info("j")["hold"] is False
    cache.apply([record(lamport=2, hold=False)], 3)
    cache.stand_at(3)
    assert cache.info("j")["hold"] is False
    assert cache.unsettled() == []


def test_a_refused_change_reads_as_it_was(cache):
    cache.apply([record(tags=("x",))], 1)
    submit(cache, tags=("y",))
    assert cache.select({"tag": "y"}) == ["j"]
    cache.refuse(deliver(cache), InvalidRequest("no"))
    assert cache.select({"tag": "y"}) == []
    assert cache.info("j")["tags"] == ["x"]


def test_a_refused_new_job_reads_failed_with_the_reason(cache):
    told = []
    submit(cache)
    cache.watch("j", told.append)
    cache.refuse(deliver(cache), RequestFailed("no room"))
    info = cache.info("j")
    assert (info["state"], info["active"], info["error"]) == ("failed", False, "no room")
    assert told == ["j"]


def test_a_refused_batch_is_asked_again_one_by_one(cache):
    for jid in "abc":
        submit(cache, jid)
    batch = deliver(cache)
    assert len(batch) == 3
    cache.refuse(batch, InvalidRequest("one of you"))
    for jid in "abc":
        (single,) = deliver(cache)
        assert single.jid == jid
        cache.acknowledge([single], {jid: {"seq": 0}})


def test_a_kill_shows_at_once_and_is_not_over_before_the_node_says_so(cache):
    told = []
    cache.apply([record(status={"state": "running", "active": True})], 1)
    cache.watch("j", told.append)
    assert cache.kill(["j", "unknown"]) == ["j"]
    assert (cache.info("j")["state"], cache.info("j")["active"]) == ("killed", True)
    assert told == []
    cache.apply([record(lamport=2, killed_generation=1, status={"rev": 1, "state": "killed"})], 2)
    assert told == ["j"]


def test_a_job_stands_once_in_a_batch_and_its_writes_keep_their_order(cache):
    cache.apply([record()], 1)
    submit(cache, hold=True)
    submit(cache, hold=False)
    submit(cache, "k")
    first = deliver(cache)
    assert [write.jid for write in first] == ["j"]
    assert [write.jid for write in deliver(cache)] == ["k"]
    cache.acknowledge(first, {"j": {"seq": 1}})
    cache.stand_at(1)
    assert [write.changes["hold"] for write in deliver(cache)] == [False]


def test_what_one_node_may_have_goes_to_no_other(cache):
    submit(cache)
    cache.retry(deliver(cache), 0)
    assert deliver(cache, at=1) == []
    assert cache.info("j")["state"] == "unknown"
    assert len(deliver(cache, at=0)) == 1


def test_what_was_not_sent_may_go_to_another_node(cache):
    submit(cache)
    cache.retry(deliver(cache), None)
    assert len(deliver(cache, at=1)) == 1


def test_a_job_that_shows_up_elsewhere_needs_no_answer(cache):
    submit(cache)
    cache.retry(deliver(cache), 0)
    cache.apply([record()], 7)
    cache.stand_at(7)
    assert cache.unsettled() == []
    assert cache.info("j")["state"] == "new"


def test_a_rerun_that_can_be_seen_is_not_asked_for_again(cache):
    cache.apply([record(status={"state": "done", "rev": 3})], 1)
    submit(cache, state="new")
    assert cache.info("j")["state"] == "new"
    cache.retry(deliver(cache), 0)
    cache.apply([record(lamport=2, generation=2, status={"generation": 2, "state": "done"})], 2)
    assert deliver(cache) == []
    assert cache.last_serial() == 0
    assert cache.info("j")["state"] == "done"


def test_a_rerun_that_can_not_be_seen_is_asked_for_again(cache):
    cache.apply([record(status={"state": "done", "rev": 3})], 1)
    submit(cache, state="new")
    cache.retry(deliver(cache), 0)
    assert len(deliver(cache)) == 1


def test_a_move_while_active_is_refused_at_once(cache):
    cache.apply([record(status={"state": "running", "active": True})], 1)
    with pytest.raises(InvalidRequest, match="active on 'a': kill it first"):
        submit(cache, node="b")
    assert cache.unsettled() == []


def test_what_the_node_forgot_goes_unless_it_comes_back_or_was_never_told(cache):
    told = []
    cache.apply([record("old"), record("kept"), record("back")], 1)
    cache.watch("old", told.append)
    submit(cache, "unsent")
    cache.keep_only({"kept"})
    cache.find_missing()
    assert told == []
    cache.apply([record("back", status={"rev": 1})], 2)
    cache.find_missing()
    assert sorted(cache.select({})) == ["back", "kept", "unsent"]
    cache.find_missing()
    cache.find_missing()
    assert told == ["old"]


def test_a_kill_waits_until_a_node_that_came_back_empty_knows_the_job_again(cache):
    cache.apply([record(status={"state": "running", "active": True})], 1)
    cache.kill(["j"])
    cache.keep_only(set())
    assert deliver(cache) == []
    cache.apply([record(status={"state": "running", "active": True})], 1)
    assert [write.kind for write in deliver(cache)] == ["kill"]


def test_ended_jobs_leave_after_expire_and_others_stay():
    cache = Cache(expire=0.05)
    cache.apply([record("ended", status={"state": "done"}), record("new")], 1)

    def left() -> list[str]:
        cache.upkeep()
        return cache.select({})

    wait_until(lambda: left() == ["new"])


def test_a_snapshot_leaves_out_what_ended_long_ago_unless_somebody_waits_for_it(cache):
    told = []
    cache.watch("waited", told.append)
    ended = {"state": "done", "ts": 10.0}
    cache.apply([record("waited", status=ended), record("other", status=ended)], 1, old_before=20.0)
    assert cache.select({}) == ["waited"]
    assert told == ["waited"]


@pytest.mark.parametrize(
    ("fields", "status", "over"),
    [
        ({}, {"state": "done"}, True),
        ({}, {"state": "running", "active": True}, False),
        ({"restart": True}, {"state": "done"}, True),  # it was asked for after the end
        ({"restart": True}, {"state": "failed", "fail_count": 1}, True),
        ({"retries": 1}, {"state": "failed", "fail_count": 1}, True),  # the same
        ({"retries": 1}, {"state": "failed", "fail_count": 2}, True),
        ({"resubmit": True}, {"state": "done"}, False),
        ({"resubmit": True, "killed_generation": 1}, {"state": "killed"}, True),
        ({"generation": 2}, {"state": "done"}, False),
    ],
)
def test_over_means_that_no_rerun_follows(fields, status, over):
    assert is_final(record(**fields, status=status)) is over


def test_a_watcher_is_told_once_and_only_for_its_job(cache):
    told = []
    cache.watch("j", told.append)
    cache.watch("k", told.append)
    ended = record(status={"state": "done"})
    cache.apply([ended], 1)
    cache.apply([record(status={"state": "done", "rev": 1})], 2)
    assert told == ["j"]
    cache.watch("j", told.append)
    assert told == ["j", "j"]
    cache.unwatch("k", told.append)


def test_a_job_that_nobody_knows_any_more_is_told_after_two_looks(cache):
    told = []
    cache.watch("j", told.append)
    cache.find_missing()
    assert told == []
    cache.find_missing()
    assert told == ["j"]


def test_eight_threads_write_while_one_delivers(cache):
    done = threading.Event()

    def node() -> None:
        seq = 0
        while not done.is_set() or cache.unsettled():
            batch = cache.next_batch(0, 50, 10**6)
            seq += 1
            cache.apply([record(write.jid) for write in batch], seq)
            cache.acknowledge(batch, {write.jid: {"seq": seq} for write in batch})
            cache.stand_at(seq)

    def user(number: int) -> None:
        for i in range(100):
            submit(cache, f"{number}-{i}")

    server = threading.Thread(target=node)
    server.start()
    users = [threading.Thread(target=user, args=(n,)) for n in range(8)]
    for thread in users:
        thread.start()
    for thread in users:
        thread.join()
    done.set()
    server.join(20)
    assert not server.is_alive()
    assert len(cache.select({})) == 800
    assert cache.wait_until(lambda: cache.settled(10**9), time.monotonic() + 1, lambda: None)
