"""Who is next: the order in which jobs are assigned and handed over, and what is taken back out of a line."""

from __future__ import annotations

import msgspec
import pytest

from meeseeks.core.effects import Adopted, Dropped, Exited, PoolStatus, Started, TaskKey
from meeseeks.core.record import Record
from meeseeks.core.settings import PoolSettings
from tests.unit.core.desk import Desk


def set_pool(desk: Desk, **pool: object) -> None:
    settings = msgspec.structs.replace(desk.state.settings, pools={"p": PoolSettings(**pool)})  # type: ignore[arg-type]
    desk.turn(lambda: desk.state.configure(settings))


def hand_over_in_advance(desk: Desk) -> list[str]:
    """One slot that has had short jobs only, and then a long one: what the executor has beyond it."""
    for i in range(5):
        desk.submit(id=f"short{i}")
        desk.end(desk.starts()[0])
    desk.submit(id="long")
    for i in range(3):
        desk.submit(id=f"j{i}")
    first, *others = desk.starts()
    desk.run(first)
    assert first.key.job == "long"
    return [start.key.job for start in others]


def drop_what_is_recalled(desk: Desk) -> list[str]:
    """The executor gives back what has not started."""
    orders = desk.kills()
    assert all(order.only_waiting for order in orders)
    desk.events(*(Dropped(order.key) for order in orders))
    return [order.key.job for order in orders]


def test_a_job_for_one_node_is_not_overtaken_by_younger_ones_for_any() -> None:
    desk = Desk(pools={"p": PoolSettings(slots=1)})
    for i in range(3):
        desk.submit(id=f"any{i}")
    desk.submit(id="here", node="a")
    order = []
    for i in range(3, 9):
        desk.submit(id=f"any{i}")
        (start,) = desk.starts()
        order.append(start.key.job)
        desk.events(Exited(key=start.key, rc=0, start_ts=desk.wall - 60, end_ts=desk.wall))
    assert order == ["any0", "any1", "any2", "here", "any3", "any4"]


def test_groups_share_the_slots_that_there_are() -> None:
    desk = Desk(pools={})
    desk.submit(id="x0", node="b")
    for i in range(4):
        desk.submit(id=f"y{i}")
    desk.submit(id="x1", node="b")
    desk.meet("b")
    assert [desk.record(jid).status.node for jid in ("x0", "y0", "y1", "x1")] == ["b", "b", None, None]
    desk.hear("b", pools={"p": PoolStatus(slots=6)})
    assert [desk.record(jid).status.node for jid in ("y1", "y2", "y3", "x1")] == ["b"] * 4


def test_a_pool_on_hold_takes_back_what_was_handed_over_in_advance() -> None:
    desk = Desk(pools={"p": PoolSettings(slots=1)})
    ahead = hand_over_in_advance(desk)
    assert ahead
    set_pool(desk, slots=1, hold=True)
    assert drop_what_is_recalled(desk) == ahead
    assert desk.starts() == []
    set_pool(desk, slots=1)
    assert {start.key.job for start in desk.starts()} >= set(ahead)


def test_what_was_handed_over_in_advance_goes_to_a_node_with_room_if_a_long_job_is_before_it() -> None:
    desk = Desk(pools={"p": PoolSettings(slots=1)})
    ahead = hand_over_in_advance(desk)
    desk.meet("b")
    desk.wait(3)
    assert drop_what_is_recalled(desk) == ahead
    assert desk.starts() == []
    for _ in range(4):
        desk.hear("b", pools={"p": PoolStatus(slots=9)})
        desk.wait(1)
    assert [desk.info(jid)["node"] for jid in ahead] == ["b"] * len(ahead)


def test_what_was_handed_over_in_advance_comes_back_also_where_jobs_have_become_long() -> None:
    desk = Desk(pools={"p": PoolSettings(slots=1)})
    ahead = hand_over_in_advance(desk)
    (key,) = [task.key for task in desk.state.owner.tasks if task.key.job == "long"]
    desk.events(Exited(key=key, rc=0, start_ts=desk.wall - 60, end_ts=desk.wall))  # none is kept ready any more
    desk.events(Started(TaskKey(ahead[0], 1, (1, "a"), 1), 42, desk.wall))
    desk.wait(3)
    assert drop_what_is_recalled(desk) == ahead[1:]


def test_what_was_handed_over_in_advance_and_is_changed_comes_back_and_starts_as_it_is_now() -> None:
    desk = Desk(pools={"p": PoolSettings(slots=1)})
    ahead = hand_over_in_advance(desk)
    desk.submit(id=ahead[0], args=["new"], tags=["t"])
    assert drop_what_is_recalled(desk) == ahead[:1]
    (start,) = desk.starts()
    assert (start.key.job, start.args, start.env["MEESEEKS_TAGS"]) == (ahead[0], ("new",), "t")
    desk.submit(id=ahead[0], restart=True)  # of this its executor need not know
    assert desk.kills() == []


def test_what_waits_at_the_executor_of_an_earlier_life_comes_back_since_it_may_be_another_command() -> None:
    desk = Desk(pools={"p": PoolSettings(slots=1)})
    desk.turn(desk.state.on_executor_gone)
    desk.submit(id="j", node="a", args=["new"])
    key = TaskKey("j", 1, (1, "a"), 1)
    desk.events(Adopted(waiting=(key,)))
    assert desk.starts() == []
    assert drop_what_is_recalled(desk) == ["j"]
    assert [start.args for start in desk.starts()] == [("new",)]


def test_a_hold_does_not_free_the_slot_of_a_job_that_runs() -> None:
    desk = Desk(pools={"p": PoolSettings(slots=1)}, wait_in_pool=True)
    desk.submit(id="j", node="a")
    desk.run(desk.starts()[0])
    desk.meet("b")
    desk.submit(id="j", hold=True)
    assert desk.state.requests.pools()["p"] == {"a": 0, "b": 2}
    desk.submit(id="k")
    assert desk.info("k")["node"] == "b"


@pytest.mark.parametrize("again", [{"restart": True}, {"retries": 2}])
def test_a_job_that_runs_again_stays_on_its_node(again: dict[str, object]) -> None:
    desk = Desk(pools={"p": PoolSettings(slots=2)})
    desk.submit(id="j", **again)
    (start,) = desk.starts()
    desk.run(start)
    set_pool(desk, slots=2, hold=True)
    desk.end(start, 0 if "restart" in again else 1)
    desk.meet("b")
    for _ in range(6):
        desk.hear("b")
        desk.wait(1)
    assert (desk.info("j")["node"], desk.info("j")["active"]) == ("a", True)


def test_a_job_whose_submit_node_is_away_is_not_given_back() -> None:
    desk = Desk(pools={"p": PoolSettings(slots=2, hold=True)})
    desk.submit(id="j")
    desk.meet("s")
    of_s = msgspec.structs.replace(desk.record("j").spec, submit_node="s", lamport=9)
    desk.hear("s", [Record(of_s, desk.record("j").status)], pools={})
    desk.wait(4)
    desk.meet("b")
    for _ in range(4):
        desk.hear("b")
        desk.wait(1)
    assert (desk.info("j")["node"], desk.info("j")["active"]) == ("a", True)


def test_a_node_that_stops_shortens_the_grace_of_what_is_being_killed() -> None:
    desk = Desk(pools={"p": PoolSettings(slots=1, grace=60.0)})
    desk.submit(id="j")
    (start,) = desk.starts()
    desk.run(start)
    desk.kill("j")
    desk.kill("j")
    assert [order.grace for order in desk.kills()] == [60.0]
    desk.turn(desk.state.stop)
    desk.turn()
    assert [order.grace for order in desk.kills()] == [5.0]
