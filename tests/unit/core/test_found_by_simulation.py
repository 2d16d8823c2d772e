"""What the simulator found in the core, each as its smallest case; and what it means to come back from a store."""

from __future__ import annotations

import msgspec
import pytest

from meeseeks.core.effects import OWN, Adopted, Beat, Snapshot, Started, Update
from meeseeks.core.lifecycle import Event, advance
from meeseeks.core.node_state import NodeState
from meeseeks.core.record import Record, Spec, Status, merge
from meeseeks.core.settings import PoolSettings, Settings
from meeseeks.errors import InvalidRequest
from tests.unit.core.desk import Desk

NO_POOLS: dict[str, PoolSettings] = {}


def a_record(jid: str = "j", **spec: object) -> Record:
    """A job of submit node s, given to node a."""
    asked = Spec(id=jid, pool="p", args=("true",), submit_node="s", lamport=1, writer="s")
    return Record(msgspec.structs.replace(asked, **spec), Status(epoch=(1, "s"), node="a"))


def of_life(desk: Desk, name: str, life: str, number: int, records: list[Record] | None = None) -> None:
    """A broadcast of some life of a peer."""
    beat = Beat(node=name, incarnation=life, number=number)
    update = Update(node=name, incarnation=life, topic=OWN, prev=0, seq=number, records=records or [], beats=[beat])
    desk.turn(lambda: desk.state.on_update(update))


# --- lives of a peer


def test_a_late_message_of_an_earlier_life_ends_no_later_one() -> None:
    desk = Desk()
    desk.meet("b")
    desk.wait(20)
    of_life(desk, "b", "second", 1)
    of_life(desk, "b", "life-b", 2)
    assert desk.state.mesh.peers["b"].incarnation == "second"
    with pytest.raises(InvalidRequest, match="this hello is of an earlier one"):
        desk.turn(lambda: desk.state.on_met("b", "life-b", "host", 1, 2))


def test_two_lives_told_in_the_wrong_order_are_sorted_out_by_silence() -> None:
    """Seed 328: the present life was taken for a former one, and never heard again."""
    desk = Desk()
    desk.meet("b")
    of_life(desk, "b", "third", 1)
    of_life(desk, "b", "second", 1)  # overtaken on its way: it looks like the latest now
    of_life(desk, "b", "third", 2)
    assert desk.state.mesh.peers["b"].incarnation == "second"
    for number in range(3, 30):
        desk.wait(1)
        of_life(desk, "b", "third", number)
    peer = desk.state.mesh.peers["b"]
    assert (peer.incarnation, desk.state.mesh.is_alive("b", desk.now)) == ("third", True)


def test_the_last_words_of_a_life_are_told_again() -> None:
    """Seed 3406: what only one node had heard of a life that ended, no other ever heard."""
    desk = Desk(pools=NO_POOLS)
    desk.meet("b")
    heard = Record(a_record().spec, Status(epoch=(1, "s"), node="c"))
    desk.hear("b", [heard])
    seq = desk.state.table.seq
    of_life(desk, "b", "second", 1)
    (own,) = [update for update in desk.effects.updates if update.topic == OWN]
    assert own.records == [heard]
    assert desk.state.sync(desk.state.incarnation, seq, None, 10).records == [heard]


# --- losses


def test_a_loss_that_is_refuted_again_and_again_costs_one_change_a_heartbeat() -> None:
    """Seed 328: changes of b came through, its heartbeats did not; both sides wrote thousands of times a second."""
    desk = Desk(pools=NO_POOLS)
    desk.meet("b")
    desk.submit(id="j")
    desk.wait(61)
    lost = desk.record("j")
    assert desk.info("j")["state"] == "failed"
    refuted = Record(lost.spec, advance(lost, Event.REFUTE, desk.wall))
    change = Update(node="b", incarnation="life-b", topic=OWN, prev=0, seq=99, records=[refuted])
    desk.turn(lambda: desk.state.on_update(change))
    assert desk.record("j").spec.lamport == lost.spec.lamport
    assert desk.info("j")["state"] == "new"


def test_a_copy_of_the_same_epoch_on_another_node_is_fenced() -> None:
    """A submit node that lost its last second may give a job away twice under one number: the later rev wins."""
    desk = Desk()
    desk.meet("s")
    desk.hear("s", [a_record()])
    (start,) = desk.starts()
    desk.run(start)
    there = Record(a_record().spec, Status(epoch=(1, "s"), node="b", rev=9, active=True))
    desk.hear("s", [there])
    assert [order.key for order in desk.kills()] == [start.key]


def test_a_copy_whose_end_the_table_knows_is_fenced() -> None:
    desk = Desk()
    desk.meet("s")
    desk.hear("s", [a_record()])
    (start,) = desk.starts()
    desk.run(start)
    ended = msgspec.structs.replace(desk.record("j").status, rev=9, state="done", active=False)
    desk.hear("s", [Record(a_record().spec, ended)])
    assert [order.key for order in desk.kills()] == [start.key]
    desk.turn(desk.state.on_executor_gone)
    desk.events(Adopted())  # and its executor dies before it has told of the end
    assert desk.info("j")["state"] == "done"
    assert len(desk.state.owner.tasks) == 0


# --- merge


@pytest.mark.parametrize("swap", [False, True])
def test_a_generation_keeps_the_submit_node_that_it_began_with(swap: bool) -> None:
    """Or a change of tags, made without knowledge of the rerun, gives it to a second node that assigns it."""
    rerun = a_record(generation=2, submit_node="a", lamport=5, writer="a")
    tagged = a_record(tags=("x",), lamport=9, writer="b")
    both = merge(tagged, rerun) if swap else merge(rerun, tagged)
    assert (both.spec.generation, both.spec.submit_node, both.spec.tags) == (2, "a", ("x",))


# --- coming back from a store


def restored(desk: Desk, boot: int = 1) -> Desk:
    """Another life of the process of a desk's node, with the same store."""
    table = desk.state.table
    rows = sorted(((table.seq_of(record.spec.id), record) for record in table), key=lambda row: row[0])
    other = Desk()
    settings: Settings = desk.state.settings
    other.now, other.wall = desk.now, desk.wall
    other.state = NodeState(settings, desk.state.incarnation, other.now, other.wall, boot=boot)
    other.state.restore(rows, table.seq)
    other.orders.clear()
    return other


def test_a_restored_node_listens_before_it_starts_anything() -> None:
    desk = Desk()
    desk.submit(id="j")
    desk.orders.clear()
    back = restored(desk)
    back.events(Adopted())
    assert back.starts() == []
    back.wait(4)
    assert [start.key.job for start in back.starts()] == ["j"]


def test_the_time_to_listen_begins_when_a_large_store_is_read() -> None:
    desk = Desk()
    desk.submit(id="j")
    desk.orders.clear()
    back = restored(desk)
    back.now, back.wall = back.now + 4, back.wall + 4  # it took longer than that time
    back.events(Adopted())
    back.wait(1)
    assert back.starts() == []
    back.wait(4)
    assert [start.key.job for start in back.starts()] == ["j"]


def test_a_kill_that_was_sent_meanwhile_is_obeyed_before_the_start() -> None:
    desk = Desk()
    desk.submit(id="j")
    desk.orders.clear()
    back = restored(desk)
    back.events(Adopted())
    killed = msgspec.structs.replace(desk.record("j").spec, killed_generation=1, lamport=9, writer="b")
    back.turn(lambda: back.state.on_met("b", "life-b", "host", 1, 2))
    snapshot = Snapshot(
        node="b", incarnation="life-b", since=0, seq=1, records=[Record(killed, Status(epoch=(0, "a")))]
    )
    back.turn(lambda: back.state.on_snapshot(snapshot))
    back.wait(5)
    assert back.starts() == []
    assert back.info("j")["state"] == "killed"
    assert not back.info("j")["active"]


def test_a_restored_node_uses_no_number_twice() -> None:
    desk = Desk(pools=NO_POOLS)
    desk.submit(id="j")
    desk.wait(3)
    old_seq, old_number = desk.state.table.seq, desk.state.mesh.number
    back = restored(desk)
    back.wait(2)
    assert back.state.mesh.number > old_number
    back.submit(id="k")
    assert back.state.table.seq_of("k") > old_seq + 1000
    (own,) = [update for update in back.effects.updates if update.topic == OWN]
    assert own.prev > old_seq  # whoever stands at the old end sees a gap, and asks
    assert [r.spec.id for r in back.state.sync(back.state.incarnation, old_seq, None, 10).records] == ["k"]


def test_what_was_running_is_taken_over_or_has_failed() -> None:
    desk = Desk()
    desk.submit(id="j")
    desk.submit(id="k")
    first, second = desk.starts()
    desk.run(first)
    desk.run(second)
    back = restored(desk)
    assert back.info("j")["state"] == "running"
    back.events(Adopted(running=[Started(first.key, 42, 1.0)]))
    assert (back.info("j")["state"], back.info("j")["pid"]) == ("running", 42)
    assert (back.info("k")["state"], back.info("k")["error"]) == ("failed", "executor lost")
    back.end(first)
    assert back.info("j")["state"] == "done"


def test_no_broadcast_counts_between_two_parts_of_a_sync() -> None:
    """Seed 701044: a job that moved on in the peer's table between two parts was in neither, nor in a broadcast."""
    desk = Desk(pools=NO_POOLS)
    desk.meet("b")
    peer = desk.state.mesh.peers["b"]
    part = Snapshot(node="b", incarnation="life-b", since=peer.applied, seq=peer.applied + 5, more=True)
    desk.turn(lambda: desk.state.on_snapshot(part))
    reached = peer.applied
    update = Update(node="b", incarnation="life-b", topic=OWN, prev=reached, seq=reached + 3, records=[])
    desk.turn(lambda: desk.state.on_update(update))
    assert peer.applied == reached
    last = Snapshot(node="b", incarnation="life-b", since=reached, seq=reached + 3, records=[a_record()])
    desk.turn(lambda: desk.state.on_snapshot(last))
    assert (peer.applied, peer.synced, "j" in desk.state.table) == (reached + 3, True, True)
