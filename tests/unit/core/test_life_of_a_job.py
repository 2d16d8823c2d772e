"""The rows of DESIGN section 3, one by one, on a single core."""

from __future__ import annotations

import msgspec
import pytest

from meeseeks.core.effects import Adopted, Started
from meeseeks.core.lifecycle import (
    TRANSITIONS,
    Event,
    IllegalTransition,
    Phase,
    advance,
    first_status,
    is_over,
    phase_of,
)
from meeseeks.core.record import Record, Spec, Status
from meeseeks.core.settings import PoolSettings
from meeseeks.errors import InvalidRequest
from tests.unit.core.desk import Desk


def spec(**fields: object) -> Spec:
    return Spec(**{"id": "j", "pool": "p", "args": ("true",), "submit_node": "s", **fields})  # type: ignore[arg-type]


IN_PHASE = {
    Phase.UNASSIGNED: {},
    Phase.ASSIGNED: {"node": "x"},
    Phase.CLAIMED: {"node": "x", "active": True},
    Phase.RUNNING: {"node": "x", "active": True, "state": "running"},
    Phase.DONE: {"node": "x", "state": "done"},
    Phase.FAILED: {"node": "x", "state": "failed"},
    Phase.KILLED: {"state": "killed"},
}


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("event", Event)
def test_each_event_in_each_phase(phase: Phase, event: Event) -> None:
    status = msgspec.structs.replace(first_status(spec(), 0.0), **IN_PHASE[phase], epoch=(3, "s"), rev=5)
    assert phase_of(status) is phase
    record = Record(spec(generation=2), status)
    move = TRANSITIONS.get((phase, event))
    if move is None:
        with pytest.raises(IllegalTransition, match=event.name):
            advance(record, event, 1.0)
        return
    after = advance(record, event, 1.0, **({"node": "y"} if event is Event.ASSIGN else {}))
    assert phase_of(after) is move.to
    assert after.key > status.key
    assert after.ts == 1.0


def test_time_never_runs_backwards_for_a_job() -> None:
    record = Record(spec(ts=50.0), Status(epoch=(0, "s"), ts=40.0))
    assert advance(record, Event.KILL, 10.0).ts == 50.0


def test_from_submit_to_done() -> None:
    desk = Desk()
    info = desk.submit(id="j")
    assert (info["state"], info["active"], info["node"], info["submit_node"]) == ("new", True, "a", "a")
    (start,) = desk.starts()
    desk.run(start)
    assert (desk.info("j")["state"], desk.info("j")["pid"], desk.info("j")["start_count"]) == ("running", 42, 1)
    desk.end(start)
    info = desk.info("j")
    assert (info["state"], info["active"], info["rc"], info["error"]) == ("done", False, 0, None)


@pytest.mark.parametrize(("rc", "error"), [(3, None), (-9, "ended by signal SIGKILL"), (None, "can't start")])
def test_ends_that_are_failures(rc: int | None, error: str | None) -> None:
    desk = Desk()
    desk.submit(id="j")
    desk.end(desk.starts()[0], rc, error)
    info = desk.info("j")
    assert (info["state"], info["rc"], info["error"], info["fail_count"]) == ("failed", rc, error, 1)


def test_retries_come_with_a_growing_delay_and_an_end() -> None:
    desk = Desk()
    desk.submit(id="j", retries=2)
    waits = []
    for _ in range(2):
        (start,) = desk.starts()
        desk.run(start)
        desk.end(start, 1)
        assert desk.info("j")["state"] == "new"
        began = desk.now
        while not desk.orders or not any(type(order).__name__ == "Start" for order in desk.orders):
            desk.turn(after=0.01)
        waits.append(desk.now - began)
    assert waits[0] < waits[1]
    (start,) = desk.starts()
    desk.run(start)
    desk.end(start, 1)
    desk.wait(30)
    assert (desk.info("j")["state"], desk.info("j")["start_count"], desk.starts()) == ("failed", 3, [])


def test_restart_after_success_only() -> None:
    desk = Desk()
    desk.submit(id="j", restart=True)
    desk.end(desk.starts()[0], 0)
    desk.wait(1)
    (again,) = desk.starts()
    assert again.key.run == 2
    desk.end(again, 1)
    desk.wait(30)
    assert (desk.info("j")["state"], desk.starts()) == ("failed", [])


def test_resubmit_begins_a_new_epoch() -> None:
    desk = Desk()
    desk.submit(id="j", resubmit=True)
    (start,) = desk.starts()
    desk.end(start, 1)
    assert desk.info("j")["state"] == "new"
    desk.wait(1)
    (again,) = desk.starts()
    assert again.key.epoch > start.key.epoch


@pytest.mark.parametrize("at", ["unassigned", "claimed", "held", "delayed"])
def test_a_kill_before_the_start(at: str) -> None:
    desk = Desk()
    pool = "nowhere" if at == "unassigned" else "p"
    if at == "claimed":
        for other in "xy":
            desk.submit(id=other)
        desk.starts()
    desk.submit(id="j", pool=pool, hold=at == "held", retries=1)
    if at == "delayed":
        desk.end(desk.starts()[0], 1)
    starts = len(desk.starts())
    desk.kill("j")
    info = desk.info("j")
    assert (info["state"], info["active"]) == ("killed", False)
    desk.wait(20)
    assert (desk.starts(), starts) == ([], 0)


def test_a_kill_while_it_runs_reads_killed_at_once_and_active_until_it_is_gone() -> None:
    desk = Desk()
    desk.submit(id="j", restart=True, retries=5, resubmit=True)
    (start,) = desk.starts()
    desk.run(start)
    assert (desk.kill("j")["state"], desk.info("j")["active"]) == ("killed", True)
    (order,) = desk.kills()
    assert order.key == start.key
    desk.kill("j")
    assert desk.kills() == []
    desk.end(start, -15, "killed")
    desk.wait(30)
    assert (desk.info("j")["state"], desk.info("j")["active"], desk.starts()) == ("killed", False, [])


def test_a_kill_after_the_end_changes_nothing() -> None:
    desk = Desk()
    desk.submit(id="j")
    desk.end(desk.starts()[0])
    seq = desk.info("j")["seq"]
    assert desk.kill("j")["state"] == "done"
    assert desk.info("j")["seq"] == seq


def test_a_new_generation_waits_until_the_old_one_is_over() -> None:
    desk = Desk()
    desk.submit(id="j")
    desk.end(desk.starts()[0], 4)
    info = desk.submit(id="j", state="new")
    assert (info["state"], info["generation"], info["start_count"], info["fail_count"]) == ("new", 2, 0, 0)
    (start,) = desk.starts()
    assert (start.key.generation, start.key.run) == (2, 1)


@pytest.mark.parametrize("change", [{"pool": "q"}, {"node": "z"}, {"state": "new"}])
def test_what_an_active_job_refuses(change: dict[str, str]) -> None:
    desk = Desk()
    desk.submit(id="j")
    before = desk.record("j")
    with pytest.raises(InvalidRequest, match="kill it first"):
        desk.submit(id="j", **change)
    assert desk.record("j") is before


def test_a_resent_submit_changes_nothing_whatever_became_of_the_job() -> None:
    desk = Desk()
    request = {"id": "j", "pool": "p", "args": ["true"], "tags": ["x"]}
    desk.turn(lambda: desk.state.requests.submit(request))
    (start,) = desk.starts()

    def resend() -> None:
        before = desk.record("j")
        desk.turn(lambda: desk.state.requests.submit(request))
        assert desk.record("j") is before

    resend()
    desk.run(start)
    resend()
    desk.end(start)
    resend()
    assert desk.starts() == []


def test_hold_of_a_job_and_of_a_pool() -> None:
    desk = Desk(pools={"p": PoolSettings(slots=1, hold=True)})
    desk.submit(id="j", hold=True)
    assert desk.info("j")["active"]
    desk.submit(id="j", hold=False)
    assert desk.starts() == []
    settings = msgspec.structs.replace(desk.state.settings, pools={"p": PoolSettings(slots=1)})
    desk.turn(lambda: desk.state.configure(settings))
    assert len(desk.starts()) == 1


def test_held_jobs_take_no_slot() -> None:
    desk = Desk()
    for i in range(50):
        desk.submit(id=f"h{i}", hold=True)
    desk.submit(id="j")
    assert [start.key.job for start in desk.starts()] == ["j"]


def test_slots_are_kept_and_filled_again() -> None:
    desk = Desk()
    for i in range(5):
        desk.submit(id=f"j{i}")
    first = desk.starts()
    assert [start.key.job for start in first] == ["j0", "j1"]
    desk.end(first[0], 0)
    assert [start.key.job for start in desk.starts()][:1] == ["j2"]


def test_executor_death_fails_what_may_have_started() -> None:
    desk = Desk()
    desk.submit(id="j")
    desk.submit(id="k", retries=1)
    for start in desk.starts():
        desk.run(start)
    desk.turn(desk.state.on_executor_gone)
    desk.wait(3)
    assert (desk.info("j")["state"], desk.starts()) == ("running", [])  # its process may still live
    desk.events(Adopted())
    assert (desk.info("j")["state"], desk.info("j")["error"]) == ("failed", "executor lost")
    assert desk.info("k")["state"] == "new"


def test_a_hold_that_meets_a_started_job_lets_it_run() -> None:
    desk = Desk()
    desk.submit(id="j")
    (start,) = desk.starts()
    desk.submit(id="j", hold=True)
    (order,) = desk.kills()
    assert order.only_waiting
    desk.events(Started(start.key, 7, desk.wall))
    assert desk.info("j")["state"] == "running"
    desk.kill("j")
    (order,) = desk.kills()
    assert not order.only_waiting


@pytest.mark.parametrize(("rc", "later"), [(0, {"restart": True}), (3, {"retries": 2})])
def test_what_is_asked_for_after_the_end_counts_from_the_next_run_on(rc: int, later: dict[str, object]) -> None:
    desk = Desk()
    desk.submit(id="j")
    desk.end(desk.starts()[0], rc)
    desk.submit(id="j", **later)
    desk.wait(30.0)
    assert desk.starts() == []
    assert is_over(desk.record("j"))
    assert desk.kill("j")["state"] == ("done" if rc == 0 else "failed")
    desk.submit(id="j", state="new")
    desk.end(desk.starts()[0], rc)
    desk.wait(1.0)
    assert [start.key.run for start in desk.starts()] == [2]


def test_resubmit_after_the_end_is_a_rerun_whatever_else_is_asked_for() -> None:
    desk = Desk()
    desk.submit(id="j")
    desk.end(desk.starts()[0], 3)
    desk.submit(id="j", resubmit=True, retries=5)
    desk.wait(1.0)
    assert [start.key.run for start in desk.starts()] == [2]


def assigned_and_cut_off(**spec: object) -> Desk:
    """A job that b may have begun: nothing of b has come since it was assigned to it."""
    desk = Desk(pools={})
    desk.meet("b")
    desk.submit(id="j", **spec)
    assert desk.info("j")["node"] == "b"
    return desk


def pass_without_b(desk: Desk, seconds: int) -> None:
    for _ in range(seconds):
        desk.hear("c")
        desk.wait(1)


def test_a_killed_job_is_active_until_the_node_that_may_run_it_has_said_that_it_has_ended() -> None:
    desk = assigned_and_cut_off()
    desk.kill("j")
    assert (desk.info("j")["state"], desk.info("j")["active"]) == ("killed", True)
    with pytest.raises(InvalidRequest, match="active on 'b': it is being killed: wait for active=False"):
        desk.submit(id="j", state="new")
    status = msgspec.structs.replace(desk.record("j").status, rev=1, state="killed")
    desk.hear("b", [Record(desk.record("j").spec, status)])
    assert desk.info("j")["active"] is False
    assert desk.submit(id="j", state="new")["generation"] == 2


def test_a_killed_job_on_a_lost_node_may_be_run_again_at_the_risk_of_its_user() -> None:
    desk = assigned_and_cut_off()
    desk.meet("c")
    desk.kill("j")
    pass_without_b(desk, 90)
    assert (desk.info("j")["state"], desk.info("j")["active"]) == ("killed", False)
    desk.submit(id="j", state="new")
    assert (desk.info("j")["generation"], desk.info("j")["node"]) == (2, "c")


def test_a_rerun_waits_for_the_run_that_its_user_did_not_know_of() -> None:
    desk = assigned_and_cut_off()
    desk.meet("c")
    spec = desk.record("j").spec
    rerun = msgspec.structs.replace(spec, generation=2, killed_generation=1, lamport=9, writer="c")
    desk.hear("c", [Record(rerun, Status(epoch=(0, "a")))])  # c had not heard that it was assigned
    pass_without_b(desk, 200)
    assert desk.record("j").status.node == "b"
    assert "earlier run has not ended yet on node 'b'" in desk.state.requests.query("j")["reason"]
    desk.kill("j")  # who sees it wait for a node that is gone for good has this way out
    pass_without_b(desk, 90)
    assert (desk.info("j")["state"], desk.info("j")["active"]) == ("killed", False)
