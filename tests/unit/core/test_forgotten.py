"""What `state.expire` may forget, and what comes of it when a node returns that was away for longer than that."""

from __future__ import annotations

import msgspec
import pytest

from meeseeks.core.effects import Adopted
from meeseeks.core.node_state import NodeState
from meeseeks.core.record import Record, Spec, Status
from tests.unit.core.desk import Desk


def ended_and_forgotten(desk: Desk, rc: int = 0, **spec: object) -> Record:
    """A job that ran and expired; the record that a node has of it which was away meanwhile."""
    desk.submit(id="j", **spec)
    (start,) = desk.starts()
    desk.run(start)
    seen = desk.record("j")
    desk.end(start, rc)
    desk.wait(70)
    assert "j" not in desk.state.table
    return seen


def test_a_run_that_was_forgotten_is_not_begun_again() -> None:
    desk = Desk(expire=60.0)
    seen = ended_and_forgotten(desk, retries=5)
    desk.meet("b")
    desk.hear("b", [seen])
    desk.wait(30)
    info = desk.info("j")
    assert (info["state"], info["active"], info["rc"], desk.starts()) == ("killed", False, None, [])
    assert "state.expire" in info["error"]
    assert desk.effects.ended == []
    desk.wait(40)
    assert "j" not in desk.state.table


def test_a_rerun_that_was_forgotten_is_not_begun_again_by_one_who_first_heard_of_the_run_before() -> None:
    desk = Desk(expire=60.0)
    desk.submit(id="j", retries=5)
    seen = []
    for state in ("new", None):
        (start,) = desk.starts()
        desk.run(start)
        seen.append(desk.record("j"))
        desk.end(start, 0)
        if state is not None:
            desk.submit(id="j", state=state)
    desk.wait(70)
    assert "j" not in desk.state.table
    for name, record in zip(("b", "c"), seen, strict=True):
        desk.meet(name)
        desk.hear(name, [record])
        desk.wait(5)
    assert (desk.info("j")["state"], desk.info("j")["active"], desk.starts()) == ("killed", False, [])


@pytest.mark.parametrize("change", [{"active": True, "state": "new"}, {}])
def test_a_forgotten_kill_is_told_again(change: dict[str, object]) -> None:
    desk = Desk(expire=60.0)
    seen = ended_and_forgotten(desk)
    killed = msgspec.structs.replace(seen.spec, killed_generation=1)
    desk.meet("b")
    desk.hear("b", [Record(killed, msgspec.structs.replace(seen.status, **change))])
    assert (desk.info("j")["state"], desk.info("j")["active"]) == ("killed", False)


def test_what_is_young_was_lost_and_counts_as_a_failure() -> None:
    desk = Desk(expire=600.0)
    desk.submit(id="j", retries=1)
    (start,) = desk.starts()
    desk.run(start)
    seen = desk.record("j")
    back = Desk(expire=600.0)
    back.wall = desk.wall
    back.meet("b")
    back.hear("b", [seen])
    back.wait(1)
    assert [one.key.run for one in back.starts()] == [2]


@pytest.mark.parametrize("status", [{}, {"state": "running", "active": True, "node": "b", "rev": 2}])
def test_a_kill_is_kept_until_it_is_carried_out(status: dict[str, object]) -> None:
    desk = Desk(expire=60.0, pools={})
    desk.meet("b")
    desk.submit(id="j", pool="q")
    record = desk.record("j")
    desk.hear("b", [Record(msgspec.structs.replace(record.spec, submit_node="b", lamport=9), record.status)])
    if status:
        desk.hear("b", [Record(desk.record("j").spec, msgspec.structs.replace(record.status, **status))])
    desk.kill("j")
    desk.wait(200)
    assert desk.info("j")["state"] == "killed"
    after = msgspec.structs.replace(desk.record("j").status, rev=9, state="killed", active=False)
    desk.meet("b")
    desk.hear("b", [Record(desk.record("j").spec, after)])
    desk.wait(50)
    desk.hear("b")
    desk.wait(20)
    assert "j" not in desk.state.table


def test_a_job_that_its_submit_node_is_to_run_again_is_kept() -> None:
    desk = Desk(expire=60.0)
    desk.meet("b")
    desk.submit(id="j", resubmit=True)
    (start,) = desk.starts()
    desk.run(start)
    desk.hear("b", [Record(msgspec.structs.replace(desk.record("j").spec, submit_node="b"), desk.record("j").status)])
    desk.turn(lambda: desk.state.ledger.change_spec(desk.record("j"), submit_node="b", adoptions=1))
    desk.end(start)
    desk.wait(200)
    assert desk.info("j")["state"] == "done"


def test_a_date_in_the_future_keeps_no_other_job_from_expiring() -> None:
    desk = Desk(expire=60.0)
    desk.wall += 10**6
    ahead = desk.submit(id="ahead")
    desk.end(desk.starts()[0])
    desk.wall -= 10**6
    desk.submit(id="j")
    desk.end(desk.starts()[0])
    assert ahead["ts"] > desk.wall
    desk.wait(70)
    assert "j" not in desk.state.table
    desk.wait(60)
    assert list(desk.state.table) == []


def of_b(desk: Desk, **status: object) -> Record:
    """A job of the submit node b that is assigned to a."""
    spec = Spec(id="j", pool="p", args=("true",), submit_node="b", ts=desk.wall, lamport=1, writer="b")
    told = {"node": "a", "assign_ts": desk.wall, "ts": desk.wall, **status}
    return Record(spec, Status(epoch=(1, "b"), **told))  # type: ignore[arg-type]


def test_an_end_is_kept_for_its_submit_node_while_that_is_away() -> None:
    desk = Desk(expire=60.0)
    desk.meet("b")
    desk.hear("b", [of_b(desk)])
    desk.end(desk.starts()[0])
    desk.wait(500)
    assert desk.info("j")["state"] == "done"
    desk.meet("b")
    for _ in range(7):
        desk.wait(10)
        desk.hear("b")
    assert "j" not in desk.state.table


def test_an_end_is_kept_for_a_submit_node_that_is_heard_and_does_not_hear() -> None:
    desk = Desk(expire=60.0)
    desk.meet("b")
    desk.hear("b", [of_b(desk)])
    desk.end(desk.starts()[0])
    for _ in range(50):
        desk.wait(10)
        desk.hear("b", ack=False)
    assert desk.info("j")["state"] == "done", "it would ask for the job again, as soon as it hears this node"
    for _ in range(8):
        desk.wait(10)
        desk.hear("b")
    assert "j" not in desk.state.table


def test_an_end_is_not_kept_for_ever_for_a_submit_node_that_is_gone() -> None:
    desk = Desk(expire=60.0)
    desk.meet("b")
    desk.hear("b", [of_b(desk)])
    desk.end(desk.starts()[0])
    desk.wait(60 * 32)
    assert "j" not in desk.state.table


def test_a_submit_node_tells_of_what_it_has_forgotten() -> None:
    desk = Desk(expire=60.0, pools={})
    desk.submit(id="j", pool="q")
    waiting = desk.record("j")
    desk.kill("j")
    desk.wait(70)
    assert "j" not in desk.state.table
    desk.meet("b")
    desk.hear("b", [waiting])
    assert (desk.info("j")["state"], desk.info("j")["node"]) == ("killed", None)
    assert desk.effects.records


def test_an_old_assignment_waits_for_its_submit_node_to_tell() -> None:
    desk = Desk(expire=60.0)
    old = of_b(desk)
    desk.wait(70)
    desk.meet("c")
    desk.hear("c", [old])
    desk.wait(30)
    assert (desk.info("j")["active"], desk.starts()) == (False, [])
    assert "submit node 'b' is to say first" in desk.state.requests.query("j")["reason"]
    desk.meet("b")
    for _ in range(4):
        desk.hear("b")
        desk.wait(1)
    assert len(desk.starts()) == 1


def test_who_knows_more_of_something_old_tells_it_again() -> None:
    desk = Desk(expire=60.0)
    desk.meet("b")
    old = of_b(desk, rev=2, node="b", state="running", active=True)
    desk.wait(40)
    ended = msgspec.structs.replace(old.status, rev=3, state="done", active=False)
    desk.meet("b", "c")
    desk.hear("b", [Record(old.spec, ended)])
    desk.turn()
    assert desk.effects.records == []
    desk.hear("c", [old])
    assert [record.status for record in desk.effects.records] == [ended]


def test_a_node_that_was_away_tells_what_it_knows_of_old_jobs() -> None:
    desk = Desk(expire=60.0)
    desk.meet("b")
    desk.hear("b", [of_b(desk, rev=2, node="b", state="running", active=True)])
    desk.wait(40)
    told = []
    for _ in range(3):
        desk.hear("b")
        desk.turn(after=1.0)
        told += [record.id for record in desk.effects.records]
    assert told == ["j"]


def test_a_rerun_that_was_asked_for_while_its_submit_node_was_down_runs() -> None:
    desk = Desk(expire=3600.0)
    desk.submit(id="j", retries=1)
    for _ in range(2):
        desk.wait(1)
        (start,) = desk.starts()
        desk.end(start, 1)
    ended = desk.record("j")
    rerun = msgspec.structs.replace(ended.spec, generation=2, lamport=9, writer="b", ts=desk.wall + 600)
    desk.now, desk.wall = desk.now + 9000, desk.wall + 7200
    desk.state = NodeState(desk.state.settings, "life", desk.now, desk.wall, boot=1)
    desk.state.restore([(1, ended)], 1)
    desk.events(Adopted())
    desk.meet("b")
    desk.hear("b", [Record(rerun, ended.status)])
    desk.wait(5)
    assert (desk.info("j")["generation"], [start.key.generation for start in desk.starts()]) == (2, [2])


def test_a_node_that_starts_again_forgets_in_a_moment() -> None:
    desk = Desk(expire=3600.0)
    desk.submit(id="j")
    desk.end(desk.starts()[0])
    ended = desk.record("j")
    desk.now, desk.wall = desk.now + 9000, desk.wall + 7200
    desk.state = NodeState(desk.state.settings, "life", desk.now, desk.wall, boot=1)
    desk.state.restore([(1, ended)], 1)
    desk.wait(5)
    assert "j" not in desk.state.table


def test_a_clock_that_is_wrong_for_a_while_expires_nothing() -> None:
    desk = Desk(expire=7200.0)
    desk.submit(id="j")
    desk.end(desk.starts()[0])
    desk.wall += 86400
    desk.wait(1800)
    assert "j" in desk.state.table
    desk.wall -= 86400
    desk.wait(1900)
    assert "j" in desk.state.table
    desk.wall += 86400  # this time it was right
    desk.wait(3599)
    assert "j" in desk.state.table
    desk.wait(2)
    assert "j" not in desk.state.table


def test_who_hears_first_now_of_something_old_tells_it_on_to_who_may_know_its_end() -> None:
    """It had forgotten the end; who told it may hear of that from others in the same moment, and pass on nothing."""
    desk = Desk(expire=60.0)
    old = of_b(desk, rev=2, node="b", state="running", active=True)
    desk.wait(40)
    desk.meet("b", "c")
    desk.hear("b")
    desk.turn(after=3.0)
    desk.hear("c", [old])
    assert own(desk) == [old.status]
    desk.hear("c", [old])
    assert own(desk) == []


def own(desk: Desk) -> list[Status]:
    """What the node tells, this turn, as its own."""
    return [record.status for update in desk.effects.updates if update.topic == "own" for record in update.records]
