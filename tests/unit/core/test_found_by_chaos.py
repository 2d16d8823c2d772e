"""What tools/chaos found in the core, each as its smallest case."""

from __future__ import annotations

from meeseeks.core.effects import Adopted, Exited, PoolStatus, Start, Started
from tests.unit.core.desk import Desk
from tests.unit.core.test_found_by_simulation import restored


def came_back_to_a_mute_executor() -> tuple[Desk, Start]:
    """A job was claimed and ordered; then its node died and came back, while its executor is frozen."""
    desk = Desk()
    desk.submit(id="j")
    (start,) = desk.starts()
    back = restored(desk)
    back.meet("b")
    back.wait(10)
    return back, start


def test_a_job_is_not_given_back_while_the_executor_may_have_it() -> None:
    """Seed 3000: it was given to another node, and the executor of the first one then started it as well."""
    back, start = came_back_to_a_mute_executor()
    back.turn(lambda: back.state.owner.rebalance({"p": 2}))
    for _ in range(5):
        back.hear("b", pools={"p": PoolStatus(slots=2)})
        back.wait(3)
    record = back.record("j")
    assert (record.status.node, record.status.active, record.status.epoch) == ("a", True, start.key.epoch)
    back.events(Adopted(), Started(start.key, 42, back.wall))
    assert back.info("j")["state"] == "running"
    assert back.starts() == []
    back.end(start)
    assert (back.info("j")["state"], back.info("j")["start_count"]) == ("done", 1)


def test_a_killed_job_is_active_while_the_executor_may_have_it() -> None:
    back, start = came_back_to_a_mute_executor()
    back.kill("j")
    back.wait(2)
    assert (back.info("j")["state"], back.info("j")["active"]) == ("killed", True)
    back.events(Adopted(running=[Started(start.key, 42, back.wall)]))
    assert [order.key for order in back.kills()] == [start.key]
    assert back.info("j")["active"]
    back.end(start, rc=None, error="killed")
    assert not back.info("j")["active"]


def test_a_killed_job_that_the_executor_has_not_is_over_once_it_says_so() -> None:
    back, _ = came_back_to_a_mute_executor()
    back.kill("j")
    back.events(Adopted())
    assert (back.info("j")["state"], back.info("j")["active"]) == ("killed", False)


def test_a_copy_that_starts_late_and_is_not_wanted_is_killed() -> None:
    """Its executor was frozen with the order in its socket, and had said before that it has nothing."""
    back, start = came_back_to_a_mute_executor()
    back.kill("j")
    back.events(Adopted())
    assert back.kills() == []
    back.events(Started(start.key, 42, back.wall))
    assert [order.key for order in back.kills()] == [start.key]
    back.events(Exited(key=start.key, rc=None, error="killed", start_ts=back.wall, end_ts=back.wall))
    assert (back.info("j")["state"], back.info("j")["active"]) == ("killed", False)
    assert not list(back.state.owner.tasks)
