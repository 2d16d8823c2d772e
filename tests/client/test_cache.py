"""The cache by itself: what it shows while a write is on its way, and what of it is gone when."""

from __future__ import annotations

import threading
import time

import msgspec
import pytest

from meeseeks import InvalidRequest, RequestFailed
from meeseeks.client.arguments import is_exited
from meeseeks.client.cache import Cache, is_final
from meeseeks.client.outputs import Outputs
from meeseeks.client.settings import Address, Place
from meeseeks.client.unknown import UNKNOWN_FOR
from meeseeks.core.record import Record, Spec, Status, jobinfo
from tests.support.wait import wait_until

A, B = Place(Address("a", 1), "10.0.0.1"), Place(Address("a", 1), "10.0.0.2")
"""Two nodes behind one name."""
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


def deliver(cache: Cache, at: Place = A) -> list:
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
        cache.acknowledge([single], {})


def test_a_kill_shows_at_once_and_is_not_over_before_the_node_says_so(cache):
    told = []
    cache.apply([record(status={"state": "running", "active": True})], 1)
    cache.watch("j", told.append)
    assert cache.kill(["j", "unknown"]) == ["j"]
    assert (cache.info("j")["state"], cache.info("j")["active"]) == ("killed", True)
    assert told == []
    cache.apply([record(lamport=2, killed_generation=1, status={"rev": 1, "state": "killed"})], 2)
    assert told == ["j"]


def test_a_job_that_is_killed_before_it_was_sent_is_not_over_before_the_node_says_so(cache):
    told = []
    submit(cache)
    cache.kill(["j"])
    cache.watch("j", told.append)
    (made,) = deliver(cache)
    # Between the two the job may have begun to run.
    cache.acknowledge([made], {"j": {"seq": 1}})
    cache.apply([record(status={"node": None})], 1)
    cache.stand_at(1)
    assert (cache.info("j")["state"], cache.info("j")["active"]) == ("killed", True)
    assert not is_exited(cache.info("j"))
    assert told == []
    cache.acknowledge(deliver(cache), {"j": {"seq": 2}})
    cache.apply([record(lamport=2, killed_generation=1, status={"rev": 1, "state": "killed"})], 2)
    cache.stand_at(2)
    assert (cache.info("j")["state"], cache.info("j")["active"]) == ("killed", False)
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
    cache.retry(deliver(cache), A)
    assert deliver(cache, at=B) == []
    assert cache.info("j")["state"] == "unknown"
    assert len(deliver(cache, at=A)) == 1


def test_a_kill_and_a_change_may_go_to_any_node_and_a_rerun_may_not(cache):
    cache.apply([record("k"), record("c"), record("r", status={"state": "done"})], 1)
    cache.kill(["k"])
    submit(cache, "c", tags=("x",))
    submit(cache, "r", state="new")
    while batch := deliver(cache):
        cache.retry(batch, A)
        for write in batch:
            write.asked = True
    for write in cache._outbox:
        write.asked = False
    again = [*deliver(cache, at=B), *deliver(cache, at=B), *deliver(cache, at=B)]
    assert [write.jid for write in again] == ["k", "c"]
    assert [write.jid for write in deliver(cache, at=A)] == ["r"]


def test_what_was_not_sent_may_go_to_another_node(cache):
    submit(cache)
    cache.retry(deliver(cache), None)
    assert len(deliver(cache, at=B)) == 1


def test_a_job_that_shows_up_elsewhere_needs_no_answer(cache):
    submit(cache)
    cache.retry(deliver(cache), A)
    cache.apply([record()], 7)
    cache.stand_at(7)
    assert cache.unsettled() == []
    assert cache.info("j")["state"] == "new"


def test_a_rerun_that_can_be_seen_is_not_asked_for_again(cache):
    cache.apply([record(status={"state": "done", "rev": 3})], 1)
    submit(cache, state="new")
    assert cache.info("j")["state"] == "new"
    cache.retry(deliver(cache), A)
    cache.apply([record(lamport=2, generation=2, status={"generation": 2, "state": "done"})], 2)
    assert deliver(cache) == []
    assert cache.last_serial() == 0
    assert cache.info("j")["state"] == "done"


def test_a_rerun_that_can_not_be_seen_is_asked_for_again(cache):
    cache.apply([record(status={"state": "done", "rev": 3})], 1)
    submit(cache, state="new")
    cache.retry(deliver(cache), A)
    assert len(deliver(cache)) == 1


def test_a_move_while_active_is_refused_at_once(cache):
    cache.apply([record(status={"state": "running", "active": True})], 1)
    with pytest.raises(InvalidRequest, match="active on 'a': kill it first"):
        submit(cache, node="b")
    assert cache.unsettled() == []


@pytest.mark.parametrize("change", [{"state": "new"}, {"pool": "other"}])
def test_a_rerun_or_a_move_is_refused_while_the_kill_before_it_is_on_its_way(cache, change):
    submit(cache)
    cache.kill(["j"])
    assert (cache.info("j")["state"], cache.info("j")["active"]) == ("killed", True)
    with pytest.raises(InvalidRequest, match="^job 'j' is active: it is being killed: wait for active=False"):
        submit(cache, **change)
    assert [write.kind for write in deliver(cache)] == ["submit"]


def test_what_the_node_forgot_goes_unless_it_comes_back_or_was_never_told(cache):
    told = []
    cache.apply([record("old"), record("kept"), record("back")], 1)
    cache.watch("old", told.append)
    submit(cache, "unsent")
    cache.keep_only({"kept"})
    now = time.monotonic()
    cache.nodes = {"a": {"online": True}}
    cache.find_missing(now)
    assert told == []
    cache.apply([record("back", status={"rev": 1})], 2)
    cache.find_missing(now + UNKNOWN_FOR + 1)
    assert sorted(cache.select({})) == ["back", "kept", "unsent"]
    assert told == []
    cache.find_missing(now + 2 * UNKNOWN_FOR + 2)
    assert told == ["old"]


def test_what_a_node_that_is_away_may_have_reads_unknown_and_is_waited_for(cache):
    told = []
    cache.apply([record("its"), record("ended", status={"state": "done"})], 1)
    cache.watch("its", told.append)
    cache.keep_only(set())
    cache.nodes = {"a": {"online": False}}
    now = time.monotonic()
    for later in (0, 10, 20):
        cache.find_missing(now + later)
    assert cache.infos(["its", "ended"]).keys() == {"its"}
    assert cache.info("its")["state"] == "unknown"
    assert (cache.select({"state": "unknown"}), cache.select({"state": "new"})) == (["its"], [])
    assert told == []
    cache.apply([record("its", status={"rev": 1, "state": "done"})], 2)
    assert told == ["its"]


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


def test_what_reads_ended_and_is_not_over_for_good_stays_and_is_waited_for():
    cache, told = Cache(expire=0.05), []
    running, done = {"state": "running", "active": True}, {"state": "done"}
    cache.apply([record("killed", killed_generation=1, status=running)], 1)
    cache.apply([record("again", resubmit=True, status=done), record("ended", status=done)], 2)
    cache.watch("killed", told.append)

    def left() -> list[str]:
        cache.upkeep()
        return cache.select({})

    wait_until(lambda: "ended" not in left(), describe=left)
    for later in (0, UNKNOWN_FOR):
        cache.find_missing(time.monotonic() + later)
    assert left() == ["killed", "again"]
    assert told == []
    cache.apply([record("killed", killed_generation=1, status={"rev": 1, "state": "killed"})], 3)
    assert told == ["killed"]
    wait_until(lambda: left() == ["again"])


def test_old_jobs_that_stay_keep_no_others_from_leaving(monkeypatch):
    monkeypatch.setattr("meeseeks.client.cache._EXPIRE_BATCH", 2)
    cache = Cache(expire=0.05)
    staying = [record(f"again{n}", resubmit=True, status={"state": "done"}) for n in range(3)]
    cache.apply([*staying, record("ended", status={"state": "done"})], 1)

    def left() -> list[str]:
        cache.upkeep()
        return cache.select({})

    wait_until(lambda: len(left()) == 3, describe=left)


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
        ({"resubmit": True}, {"state": "failed"}, False),
        ({"resubmit": True, "killed_generation": 1}, {"state": "killed"}, True),
        ({"generation": 2}, {"state": "done"}, False),
    ],
)
def test_over_means_that_no_rerun_follows(fields, status, over):
    one = record(**fields, status=status)
    assert is_final(one) is over
    assert is_exited(jobinfo(one, 1)) is over


def test_the_books_of_a_cache_are_as_long_as_its_list_of_jobs():
    cache = Cache(expire=0.05)
    cache.apply([record("old", status={"state": "done", "ts": 10.0})], 1, old_before=20.0)
    cache.apply([record(f"j{n}", status={"state": "done"}) for n in range(50)], 2)
    cache.keep_output("j2", {"stdout_data": "eA==", "stderr_data": None})
    submit(cache, "j3", tags=("x",))
    cache.acknowledge(deliver(cache), {"j3": {"seq": 2}})
    cache.stand_at(2)
    cache.keep_only({"j1"})

    def left() -> dict[str, int]:
        cache.upkeep()
        books = {name: book for name, book in vars(cache).items() if isinstance(book, (dict, set))}
        books |= {"_table": cache._table, "_outputs": cache._outputs}
        return {name: len(book) for name, book in books.items() if book}

    wait_until(lambda: not left(), describe=left)


def test_who_is_interrupted_while_he_reads_may_read_again(cache):
    """As the handler of a signal does, in the same thread."""
    answers = []

    def interrupted() -> None:
        with cache.lock:
            answers.append(cache.select({}))

    thread = threading.Thread(target=interrupted, daemon=True)
    thread.start()
    thread.join(10)
    assert answers == [[]]


def test_fetched_outputs_are_bounded_in_bytes():
    outputs = Outputs()
    for number in range(100):
        outputs.keep(record(f"j{number}"), {"stdout_data": "x" * 1_000_000, "stderr_data": None})
    assert len(outputs) == 67
    assert outputs.of(record("j32")) == {}
    assert len(outputs.of(record("j33"))["stdout_data"]) == 1_000_000
    outputs.keep(record("huge"), {"stdout_data": "x" * 100_000_000, "stderr_data": ""})
    assert len(outputs) == 1
    outputs.forget("huge")
    outputs.forget("huge")
    outputs.keep(record("j"), {"stdout_data": "x", "stderr_data": "y"})
    assert outputs.of(record("j")) == {"stdout_data": "x", "stderr_data": "y"}


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


def test_a_job_that_nobody_knows_is_told_after_a_while(cache):
    told = []
    cache.watch("j", told.append)
    for seconds in (100.0, 100.1, 100.2):
        cache.find_missing(seconds)
    assert told == []
    cache.find_missing(100.0 + UNKNOWN_FOR)
    assert told == ["j"]


def test_eight_threads_write_while_one_delivers(cache):
    done = threading.Event()

    def node() -> None:
        seq = 0
        while not done.is_set() or cache.unsettled():
            batch = cache.next_batch(A, 50, 10**6)
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
