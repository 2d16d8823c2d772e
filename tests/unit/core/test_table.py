"""The table: filters by index, changes since a seq, expiry; and that an event costs what it changes."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import msgspec
import pytest

from meeseeks.core.record import Record, Spec, Status
from meeseeks.core.table import Table
from meeseeks.errors import InvalidRequest
from tests.unit.core.desk import Desk


def record(jid: str, **fields: Any) -> Record:
    state, node = fields.pop("state", "new"), fields.pop("on", None)
    spec = Spec(**{"id": jid, "pool": "p", "args": ("true",), "submit_node": "s", **fields})
    return Record(spec, Status(epoch=(1, "s"), state=state, node=node))


@pytest.fixture
def table() -> Table:
    table = Table()
    table.apply(record("a1", tags=("x", "red"), state="done", on="n1"), 10.0)
    table.apply(record("a2", tags=("y",), pool="q"), 11.0)
    table.apply(record("b1", tags=("x",), state="failed", on="n2", runtime=5.0, hold=True), 12.0)
    return table


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({}, ["a1", "a2", "b1"]),
        ({"id": "a1"}, ["a1"]),
        ({"node": "none"}, ["a2"]),
        ({"id": ["a2", "a1", "a2", "no", 3]}, ["a1", "a2"]),
        ({"id": "a*"}, ["a1", "a2"]),
        ({"id": ["b1", "none", "a1"]}, ["a1", "b1"]),
        ({"tag": "x"}, ["a1", "b1"]),
        ({"tag": "re*"}, ["a1"]),
        ({"tag": "x", "state": "done"}, ["a1"]),
        ({"pool": "*"}, ["a1", "a2", "b1"]),
        ({"node": "n*", "state": "failed"}, ["b1"]),
        ({"runtime": 5}, ["b1"]),
        ({"runtime": "5"}, ["b1"]),
        ({"hold": "true"}, ["b1"]),
        ({"hold": False}, ["a1", "a2"]),
        ({"rc": None}, ["a1", "a2", "b1"]),
        ({"state": "running"}, []),
        ({"tag": "none", "pool": "p"}, []),
    ],
)
def test_filters(table: Table, filters: dict[str, Any], found: list[str]) -> None:
    assert sorted(table.select(filters)) == found


def test_an_unknown_filter_is_named(table: Table) -> None:
    with pytest.raises(InvalidRequest, match="colour"):
        table.select({"colour": "red"})


def test_the_index_follows_a_change_and_an_expiry(table: Table) -> None:
    old = table.get("a2")
    assert old is not None
    spec = msgspec.structs.replace(old.spec, tags=("z",), lamport=9)
    table.apply(Record(spec, Status(epoch=(1, "s"), rev=1, state="running", node="n9")), 13.0)
    assert table.select({"tag": "y"}) == []
    assert table.select({"tag": "z", "node": "n9", "state": "running"}) == ["a2"]
    table.forget("a1")
    assert (table.select({"tag": "red"}), table.select({"node": "n1"}), len(table)) == ([], [], 2)


def test_changes_since_a_seq_in_parts(table: Table) -> None:
    for i in range(10):
        table.apply(record(f"c{i}"), 20.0)
    table.apply(record("a1", tags=("later",), lamport=5, state="done", on="n1"), 21.0)
    got, seq, parts = [], 2, 0
    while seq < table.seq:
        part, seq = table.changes_since(seq, 3)
        got += [one.spec.id for one in part]
        parts += 1
    assert got == ["b1", *(f"c{i}" for i in range(10)), "a1"]
    assert parts == 4
    assert table.changes_since(table.seq) == ([], table.seq)


def test_expiry_takes_the_oldest_ended_jobs_and_no_others(table: Table) -> None:
    assert table.ages.expired(before=11.5, limit=9) == ["a1"]
    assert table.ages.expired(before=99.0, limit=1) == ["a1"]
    assert table.ages.expired(before=99.0, limit=9) == ["a1", "b1"]


def test_an_old_record_of_a_peer_does_not_come_back() -> None:
    desk = Desk(expire=60.0)
    desk.submit(id="j")
    desk.end(desk.starts()[0])
    old = desk.record("j")
    desk.wait(70)
    assert "j" not in desk.state.table
    desk.meet("b")
    desk.hear("b", [old])
    assert "j" not in desk.state.table


def test_what_is_live_and_old_is_found_by_its_earliest_time() -> None:
    table = Table()
    table.apply(record("early", ts=1_000.0, state="running"), 0.0)
    table.apply(record("late", ts=9_000.0), 0.0)
    table.apply(record("over", ts=1_000.0, state="done"), 0.0)
    began = record("began", ts=9_000.0, state="running")
    table.apply(Record(began.spec, msgspec.structs.replace(began.status, claim_ts=1_500.0)), 0.0)
    assert sorted(table.ages.live_since(3_000.0)) == ["began", "early"]
    early = table.get("early")
    assert early is not None
    table.apply(Record(early.spec, msgspec.structs.replace(early.status, rev=9, state="done")), 0.0)
    table.forget("began")
    assert table.ages.live_since(3_000.0) == []
    assert table.ages.live_since(9_000.0) == ["late"]


def lines_run(call: Callable[[], object]) -> int:
    """How many lines of Python a call runs: a measure of work that no other process disturbs."""
    count = 0

    def trace(_frame: object, event: str, _arg: object) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


def full_desk(jobs: int) -> Desk:
    desk = Desk()
    done = [record(f"old{i}", state="done", on="b", ts=desk.wall, lamport=1) for i in range(jobs)]
    desk.meet("b")
    desk.hear("b", done)
    desk.turn(
        lambda: desk.state.requests.submit_many(
            [{"id": f"held{i}", "pool": "p", "args": ["true"], "hold": True} for i in range(jobs // 10)]
        )
    )
    desk.settle()
    desk.wait(2)
    return desk


def cost_of_a_job(jobs: int) -> int:
    desk = full_desk(jobs)

    def one() -> None:
        desk.submit(id="j", node="a")
        (start,) = desk.starts()
        desk.run(start)
        desk.end(start)
        desk.state.sync("life", desk.state.table.seq - 1, None, 100)
        desk.turn(after=1.0)  # a heartbeat, with all that is looked at once a heartbeat

    return lines_run(one)


def test_what_a_job_costs_does_not_grow_with_the_table() -> None:
    assert cost_of_a_job(20_000) <= 1.1 * cost_of_a_job(20)


def cost_of_a_return(jobs: int) -> int:
    desk = full_desk(jobs)

    def back() -> None:
        desk.meet("c")
        desk.turn(after=1.0)

    return lines_run(back)


def test_what_the_return_of_a_node_costs_does_not_grow_with_the_jobs_that_wait() -> None:
    assert cost_of_a_return(5_000) <= 1.1 * cost_of_a_return(50)


def test_a_job_may_change_its_group_and_be_forgotten(table: Table) -> None:
    table.apply(record("g@a", lamport=1), 20.0)
    table.apply(record("g@a", lamport=2, group="g"), 21.0)
    assert table.group("g") == ["g@a"]
    table.forget("g@a")
    assert table.group("g") == []


@pytest.mark.parametrize(
    "field", [{"lamport": 2**60}, {"generation": -1}, {"killed_generation": 2**63}, {"lost": (1, (-1, ""), 0)}]
)
def test_numbers_that_no_node_writes_are_refused_on_arrival(field: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(msgspec.msgpack.encode(record("j", **field)), type=Record)


@pytest.mark.parametrize("when", [math.nan, math.inf, -math.inf])
def test_a_time_that_is_none_is_refused_on_arrival(when: float) -> None:
    status = msgspec.structs.replace(record("j").status, claim_ts=when)
    for one in (record("j", ts=when), Record(record("j").spec, status)):
        with pytest.raises(msgspec.ValidationError):
            msgspec.msgpack.decode(msgspec.msgpack.encode(one), type=Record)


def test_a_state_that_no_node_writes_is_refused_on_arrival() -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(msgspec.msgpack.encode(record("j", state="odd")), type=Record)


def test_a_snapshot_is_limited_in_bytes_and_goes_on_where_it_stopped() -> None:
    desk = Desk(pools={})
    for i in range(20):
        desk.submit(id=f"j{i}", args=["x" * 900_000])
    got, since, parts = [], 0, 0
    while since < desk.state.table.seq:
        part = desk.state.sync("life", since, None, 2000)
        assert sum(len(one.spec.args[0]) for one in part.records) < 10_000_000
        got += [one.spec.id for one in part.records]
        since, parts = part.seq, parts + 1
        assert part.more == (since < desk.state.table.seq)
    assert got == [f"j{i}" for i in range(20)]
    assert parts > 1


def test_a_broadcast_can_be_halved_without_a_gap() -> None:
    desk = Desk(pools={})
    desk.turn(lambda: desk.state.requests.submit_many([{"id": f"j{i}", "pool": "p", "args": ["x"]} for i in range(9)]))
    (update,) = [one for one in desk.effects.updates if one.topic == "own"]
    first, second = desk.state.halves(update)
    assert (first.prev, first.seq, second.seq) == (update.prev, second.prev, update.seq)
    assert sorted(one.spec.id for one in first.records + second.records) == [f"j{i}" for i in range(9)]


def test_jobs_on_several_nodes_don_t_take_an_id_that_is_there() -> None:
    desk = Desk()
    desk.submit(id="x@a", hold=True)
    before = desk.record("x@a")
    with pytest.raises(InvalidRequest, match="'x@a' is taken"):
        desk.submit(id="x", node=["a"])
    assert desk.record("x@a") is before


@pytest.mark.parametrize("what", [{"id": ["q"]}, {"id": 5}])
def test_an_id_that_is_no_text_is_refused(what: dict[str, Any]) -> None:
    desk = Desk()
    with pytest.raises(InvalidRequest, match="id must be"):
        desk.turn(lambda: desk.state.requests.submit({"pool": "p", "args": ["true"], **what}))
    with pytest.raises(InvalidRequest, match="every job"):
        desk.turn(lambda: desk.state.requests.kill({}))


def test_many_jobs_expire_in_parts_that_follow_each_other_at_once() -> None:
    desk = Desk(expire=60.0)
    for at in range(0, 650, 50):
        desk.turn(lambda at=at: desk.state.requests.submit_many([job(f"j{n}") for n in range(at, at + 50)]))
    desk.turn(lambda: desk.state.requests.kill({"id": "j*"}))
    desk.wait(59.0)
    assert len(desk.state.table) == 650
    desk.wall += 60.0
    desk.turn(after=1.0)
    assert len(desk.state.table) == 400
    for _ in range(2):
        desk.turn(after=0.03)
    assert len(desk.state.table) == 0


def job(jid: str) -> dict[str, object]:
    return {"id": jid, "pool": "nowhere", "args": ["true"]}


def test_a_start_with_many_jobs_takes_many_turns_and_goes_on_at_once() -> None:
    full = Desk()
    full.turn(
        lambda: full.state.requests.submit_many(
            [{"id": f"j{i}", "pool": "nowhere", "args": ["true"]} for i in range(3_500)]
        )
    )
    full.settle()
    rows = [(full.state.table.seq_of(one.spec.id), one) for one in full.state.table]
    desk = Desk()
    desk.state.restore(rows, full.state.table.seq)
    desk.turn(after=10)
    assert len(desk.state.ledger.dirty) == 2_500  # the rest has its time, and requests are answered in between
    assert desk.state.next_turn_at <= desk.now
    desk.kill("j3499")  # of those that were not looked at
    for _ in range(3):
        desk.turn()
    assert not desk.state.ledger.dirty
    assert desk.state.next_turn_at > desk.now
    assert desk.info("j3499")["state"] == "killed"
    assert len(desk.state.submitter.waiting) == 3_499


def test_many_held_jobs_are_assigned_in_many_turns_in_their_order() -> None:
    desk = Desk()
    desk.turn(
        lambda: desk.state.requests.submit_many(
            [{"id": f"j{i}", "pool": "p", "args": ["true"], "hold": True} for i in range(3_500)]
        )
    )
    counts = [0]
    while counts[-1] < 3_500:
        assert desk.state.next_turn_at <= desk.now
        assigned = {one.spec.id for one in desk.state.table if one.status.node is not None}
        assert assigned == {f"j{i}" for i in range(len(assigned))}
        counts.append(len(assigned))
        desk.turn()
    assert max(after - before for before, after in pairwise(counts)) == 1_000


def test_a_node_that_stops_gives_back_all_that_waits_but_not_in_one_turn() -> None:
    desk = Desk()
    desk.turn(
        lambda: desk.state.requests.submit_many(
            [{"id": f"j{i}", "pool": "p", "args": ["true"], "hold": True} for i in range(3_500)]
        )
    )
    desk.settle()
    assert len(desk.state.ledger.loads.on("a")) == 3_500
    desk.turn(desk.state.stop)
    assert not desk.state.is_idle
    assert len(desk.state.ledger.loads.on("a")) >= 2_500
    desk.settle()
    assert desk.state.is_idle
    assert not desk.state.ledger.loads.on("a")
