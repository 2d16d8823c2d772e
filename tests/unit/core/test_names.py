"""Whose name is whose: what is said in a node's name by another identity changes nothing."""

from __future__ import annotations

import pytest

from meeseeks.core.effects import OWN, Beat, Snapshot, Update
from meeseeks.core.names import NameTaken, identity_of
from meeseeks.core.record import Record, Spec, Status
from meeseeks.errors import InvalidRequest

from .desk import Desk

JOB = Record(Spec(id="j", pool="p", args=("true",), submit_node="b"), Status(epoch=(0, "b")))


def met(desk: Desk, name: str = "b", incarnation: str = "B.1") -> None:
    desk.turn(lambda: desk.state.on_met(name, incarnation, "host", 1, 2))


def update(incarnation: str, *beats: Beat, node: str = "b", seq: int = 1) -> Update:
    return Update(
        node=node, incarnation=incarnation, topic=OWN, prev=seq - 1, seq=seq, records=[JOB], beats=list(beats)
    )


def beat(incarnation: str, node: str = "b", number: int = 1) -> Beat:
    return Beat(node=node, incarnation=incarnation, number=number)


def test_an_incarnation_begins_with_its_identity() -> None:
    assert [identity_of(one) for one in ("B.1", "B.1.2", "life", "", ".x")] == ["B", "B", "", "", ""]


def test_a_hello_by_another_identity_is_refused_however_long_the_node_is_silent() -> None:
    desk = Desk(expire=100.0)
    met(desk)
    desk.turn(lambda: desk.state.on_update(update("B.1", beat("B.1"))))
    desk.wait(90)
    for incarnation in ("X.1", "life"):
        with pytest.raises(NameTaken, match="node 'b' is known with another identity.*mks forget b"):
            met(desk, incarnation=incarnation)
    met(desk, incarnation="B.2")


def test_a_name_is_free_once_its_node_is_forgotten_by_age() -> None:
    desk = Desk(expire=100.0)
    met(desk)
    desk.turn(lambda: desk.state.on_update(update("B.1", beat("B.1"))))
    desk.wait(102)
    assert desk.state.mesh.names.known == {}
    met(desk, incarnation="X.1")


def test_so_is_one_that_is_only_known_from_an_earlier_run() -> None:
    desk = Desk(expire=100.0)
    desk.state.mesh.names.known["z"] = "Z"
    desk.wait(98)
    assert "z" in desk.state.mesh.names.known
    desk.wait(4)
    assert "z" not in desk.state.mesh.names.known


def test_a_broadcast_of_another_identity_is_dropped_with_all_that_is_in_it() -> None:
    desk = Desk()
    met(desk)
    desk.turn(lambda: desk.state.on_update(update("X.1", beat("X.1"))))
    assert "j" not in desk.state.table
    assert not desk.state.mesh.is_online("b", desk.now)
    assert desk.state.mesh.names.turned_away == {"b"}
    answer = Snapshot(node="b", incarnation="X.1", since=0, seq=9, records=[JOB], beats=[beat("X.1")])
    desk.turn(lambda: desk.state.on_snapshot(answer))
    assert "j" not in desk.state.table
    desk.turn(lambda: desk.state.on_update(update("B.1", beat("B.1"))))
    assert "j" in desk.state.table
    assert desk.state.mesh.is_online("b", desk.now)


def test_a_heartbeat_that_is_passed_on_is_dropped_and_what_came_with_it_is_not() -> None:
    desk = Desk()
    met(desk)
    met(desk, "c", "C.1")
    desk.turn(lambda: desk.state.on_update(update("C.1", beat("C.1", "c"), beat("X.1"), node="c")))
    assert "j" in desk.state.table
    assert desk.state.mesh.is_online("c", desk.now)
    assert not desk.state.mesh.is_online("b", desk.now)


def test_forget_frees_a_name_unless_its_node_is_there() -> None:
    desk = Desk()
    met(desk)
    desk.turn(lambda: desk.state.on_update(update("B.1", beat("B.1"))))
    with pytest.raises(InvalidRequest, match="node 'b' is online: stop it"):
        desk.state.requests.forget("b")
    for wrong in ("a", "", 3):
        with pytest.raises(InvalidRequest, match="forget takes|the asked node itself"):
            desk.state.requests.forget(wrong)
    desk.wait(16)
    assert desk.state.requests.forget("b") == {"node": "b", "known": True}
    assert desk.state.requests.forget("b") == {"node": "b", "known": False}
    met(desk, incarnation="X.1")
    assert desk.state.mesh.names.known == {"b": "X"}
