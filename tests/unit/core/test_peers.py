"""What a node concludes of others: who gets a job, who is silent, who is lost; and what a lease is worth."""

from __future__ import annotations

import msgspec
import pytest

from meeseeks.core.effects import ALL, OWN, Beat, PoolStatus, Renew, Snapshot, Update
from meeseeks.core.lifecycle import Event, advance
from meeseeks.core.record import Record, Spec, Status, merge
from meeseeks.core.settings import PoolSettings
from meeseeks.errors import InvalidRequest
from tests.unit.core.desk import Desk

NO_POOLS: dict[str, PoolSettings] = {}


def given_to_a(retries: int = 0) -> Record:
    """A job of submit node s that is assigned to node a."""
    spec = Spec(id="j", pool="p", args=("true",), submit_node="s", retries=retries, lamport=1, writer="s")
    status = Status(epoch=(1, "s"), node="a", leased=retries > 0)
    return Record(spec, status)


def test_a_job_goes_to_the_most_free_slots_and_waits_where_there_are_none() -> None:
    desk = Desk(pools=NO_POOLS)
    desk.meet("b", "c")
    desk.hear("c", pools={"p": PoolStatus(slots=3)})
    placed = [desk.submit(id=f"j{i}")["node"] for i in range(7)]
    assert placed[0] == "c"
    assert (placed.count("c"), placed.count("b"), placed[5:]) == (3, 2, [None, None])
    assert desk.state.requests.query("j6")["reason"] == "all 5 slots of 'p' are taken, 2nd in line"


def test_wait_in_pool_takes_more_than_there_are_slots_for() -> None:
    desk = Desk(pools=NO_POOLS)
    desk.meet("b")
    desk.hear("b", pools={"p": PoolStatus(slots=1, wait=True)})
    assert [desk.submit(id=f"j{i}")["node"] for i in range(4)] == ["b"] * 4


def test_use_loadavg_prefers_the_idle_machine() -> None:
    desk = Desk(pools=NO_POOLS, use_loadavg=True)
    desk.meet("b", "c")
    desk.hear("b", loadavg=5.0, pools={"p": PoolStatus(slots=9)})
    desk.hear("c", loadavg=0.5, pools={"p": PoolStatus(slots=2)})
    assert desk.submit(id="j")["node"] == "c"


def test_a_silent_node_is_passed_over_then_offline_then_lost() -> None:
    desk = Desk(pools=NO_POOLS)
    desk.meet("b")
    desk.wait(2)
    assert desk.submit(id="j1")["node"] == "b"
    desk.wait(3)
    assert desk.submit(id="j2")["node"] is None
    assert desk.state.nodes()["b"]["state"] == "online"
    desk.wait(15)
    assert desk.state.nodes()["b"]["state"] == "offline"
    assert desk.info("j1")["state"] == "new"
    desk.wait(60)
    assert desk.state.nodes()["b"]["state"] == "lost"
    info = desk.info("j1")
    assert (info["state"], info["active"], info["error"]) == ("failed", False, "node b lost")


def test_a_job_with_retries_is_taken_back_from_a_lost_node_and_the_late_copy_loses() -> None:
    desk = Desk(pools=NO_POOLS)
    desk.meet("b")
    desk.submit(id="j", retries=1)
    given = desk.record("j")
    claimed = Record(given.spec, advance(given, Event.CLAIM, desk.wall))
    running = Record(given.spec, advance(claimed, Event.START, desk.wall, start_ts=1.0))
    desk.hear("b", [running])
    assert desk.info("j")["state"] == "running"
    desk.wait(65)
    info = desk.info("j")
    assert (info["state"], info["node"], info["fail_count"], info["error"]) == ("new", None, 1, "node b lost")
    desk.hear("b", [running])
    assert desk.info("j")["state"] == "new"


def test_lost_is_refuted_by_a_later_rev() -> None:
    desk = Desk(pools=NO_POOLS)
    desk.meet("b")
    desk.submit(id="j")
    desk.wait(65)
    lost = desk.record("j")
    assert desk.info("j")["state"] == "failed"
    desk.hear("b", [Record(lost.spec, advance(lost, Event.REFUTE, desk.wall))])
    assert desk.info("j")["state"] == "new"


def test_a_frozen_node_does_not_judge_by_its_own_deafness() -> None:
    desk = Desk(pools=NO_POOLS)
    desk.meet("b")
    desk.submit(id="j")
    desk.turn(after=500.0)
    desk.wait(10)
    assert desk.info("j")["state"] == "new"


def test_a_leased_job_starts_on_a_fresh_lease_only_with_its_deadlines() -> None:
    desk = Desk()
    desk.meet("s")
    desk.wait(20)
    desk.hear("s", [given_to_a(retries=1)], ack=False)
    assert desk.info("j")["active"]
    assert desk.starts() == []
    sent_at = desk.now
    desk.turn(after=1.0)
    desk.hear("s")
    (start,) = desk.starts()
    assert start.lessor == "s"
    assert start.start_by_at is not None
    assert start.kill_at is not None
    assert sent_at < start.start_by_at - 15.0 <= desk.now
    assert start.kill_at - start.start_by_at == pytest.approx(0.8 * 60 - 15)


def test_a_lease_is_renewed_by_each_acknowledged_heartbeat() -> None:
    desk = Desk()
    desk.meet("s")
    desk.hear("s", [given_to_a(retries=1)])
    (start,) = desk.starts()
    desk.wait(2)
    desk.orders.clear()
    desk.hear("s")
    (renew,) = [order for order in desk.orders if isinstance(order, Renew)]
    assert start.kill_at is not None
    assert renew.kill_at > start.kill_at


def test_a_heartbeat_behind_a_gap_is_life_but_no_lease() -> None:
    desk = Desk()
    desk.meet("s")
    desk.wait(20)
    peer = desk.state.mesh.peers["s"]
    lease_at = peer.lease_at
    beat = Beat(node="s", incarnation="life-s", number=900, acks={"a": ("life", desk.state.mesh.number)})
    update = Update(node="s", incarnation="life-s", topic=OWN, prev=7, seq=9, beats=[beat])
    desk.turn(lambda: desk.state.on_update(update))
    assert desk.state.mesh.is_alive("s", desk.now)
    assert peer.lease_at == lease_at
    (wanted,) = desk.effects.syncs
    assert (wanted.peer, wanted.since, wanted.origin) == ("s", 0, None)
    desk.turn(lambda: desk.state.on_snapshot(Snapshot(node="s", incarnation="life-s", since=0, seq=9, beats=[])))
    assert peer.lease_at > lease_at


def test_a_job_without_reruns_needs_no_lease() -> None:
    desk = Desk()
    desk.meet("s")
    desk.hear("s", [given_to_a()], ack=False)
    (start,) = desk.starts()
    assert (start.lessor, start.kill_at) == (None, None)


def test_a_copy_whose_epoch_is_over_is_fenced() -> None:
    desk = Desk()
    desk.meet("s")
    desk.hear("s", [given_to_a()])
    (start,) = desk.starts()
    desk.run(start)
    mine = desk.record("j")
    desk.hear("s", [Record(mine.spec, Status(epoch=(2, "s"), node="b", ts=desk.wall))])
    (kill,) = desk.kills()
    assert kill.key == start.key
    before = desk.record("j")
    desk.end(start, -15)
    assert desk.record("j") is before


def test_pools_that_are_not_there_bounce() -> None:
    desk = Desk(pools=NO_POOLS)
    desk.meet("s")
    desk.hear("s", [given_to_a()], pools={})
    status = desk.record("j").status
    assert (status.node, status.rev, status.active) == (None, 1, False)


def test_a_name_can_only_be_taken_once() -> None:
    desk = Desk()
    desk.meet("b")
    with pytest.raises(InvalidRequest, match="a node named 'b' already"):
        desk.turn(lambda: desk.state.on_met("b", "another life", "elsewhere", 3, 4))
    with pytest.raises(InvalidRequest, match="a node named 'a' already"):
        desk.turn(lambda: desk.state.on_met("a", "another life", "elsewhere", 3, 4))


def test_who_is_seen_only_through_another_is_followed_there() -> None:
    desk = Desk()
    desk.meet("b")
    assert desk.state.mesh.peers["b"].topic == OWN
    desk.hear("b", sees=("a", "z"))
    desk.wait(1)
    assert desk.state.mesh.peers["b"].topic == ALL
    desk.hear("b", sees=("a",))
    desk.wait(1)
    assert desk.state.mesh.peers["b"].topic == OWN


def test_links_are_those_that_are_heard_without_another_in_between() -> None:
    desk = Desk()

    def own() -> tuple[list[str], list[str]]:
        status = desk.turn(desk.state.nodes)["a"]
        return status["sees"], status["links"]

    desk.meet("b")
    assert own() == (["b"], ["b"])
    z = Beat(node="z", incarnation="life-z", number=1, links=("b",))
    desk.turn(lambda: desk.state.on_update(_update_of("b", desk, beats=[z])))
    assert own() == (["b", "z"], ["b"])
    assert desk.turn(desk.state.nodes)["z"]["links"] == ["b"]
    desk.wait(16)
    assert own() == ([], [])


def _update_of(name: str, desk: Desk, beats: list[Beat]) -> Update:
    at = desk.state.mesh.peers[name]
    return Update(node=name, incarnation=f"life-{name}", topic=at.topic, prev=at.applied, seq=at.applied, beats=beats)


def test_what_a_dead_node_said_last_is_asked_of_those_who_heard_it() -> None:
    desk = Desk()
    desk.meet("b", "c")
    desk.wait(5)
    desk.hear("c", tails={"b": ("life-b", 4)})
    desk.wait(1)
    (wanted,) = [sync for sync in desk.effects.syncs if sync.origin == "b"] or [None]
    assert wanted is not None
    assert (wanted.peer, wanted.since) == ("c", 0)


def test_two_submits_of_one_id_at_two_nodes_end_as_one() -> None:
    a, b = Desk("a"), Desk("b")
    for desk in (a, b):
        desk.submit(id="j", tags=[desk.state.settings.name])
    one, other = a.record("j"), b.record("j")
    both = merge(one, other)
    assert both == merge(other, one)
    a.meet("b")
    a.hear("b", [other])
    b.meet("a")
    b.hear("a", [one])
    assert a.record("j") == b.record("j")
    (start,) = a.starts()
    assert [kill.key for kill in a.kills()] == [start.key]
    assert b.kills() == []


def test_leaving_gives_back_what_has_not_started() -> None:
    desk = Desk()
    desk.submit(id="run")
    desk.submit(id="held", hold=True)
    (start,) = desk.starts()
    desk.run(start)
    desk.turn(desk.state.stop)
    assert any(beat.leaving for update in desk.effects.updates for beat in update.beats)
    assert [kill.key for kill in desk.kills()] == [start.key]
    assert desk.info("held")["active"] is False
    assert not desk.state.is_idle
    desk.end(start, -15, "node a stopped")
    assert desk.state.is_idle
    assert (desk.info("run")["state"], desk.info("run")["error"]) == ("failed", "node a stopped")


def test_the_status_of_a_loss_travels_with_the_spec() -> None:
    desk = Desk(pools=NO_POOLS)
    desk.meet("b")
    desk.submit(id="j")
    desk.wait(65)
    record = desk.record("j")
    assert record.spec.lost == record.status.key
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(record), type=Record) == record


def test_a_peer_that_was_taken_out_of_the_configuration_stays_out() -> None:
    desk = Desk()
    desk.meet("b")
    desk.turn(lambda: desk.state.mesh.on_unlinked("b"))
    with pytest.raises(InvalidRequest, match="told to unlink from node 'b'"):
        desk.turn(lambda: desk.state.on_met("b", "life-b", "host", 1, 2))


def test_a_rerun_of_a_job_whose_end_nobody_heard_of_stays_with_its_submit_node() -> None:
    """Found by seed 309358: a node that had been cut off took such a job over, while its submit node had it running."""
    desk = Desk()
    desk.meet("s")
    unassigned = Record(given_to_a().spec, Status(epoch=(0, "s")))
    desk.hear("s", [unassigned])
    desk.wait(20)
    desk.kill("j")
    desk.submit(id="j", state="new")
    assert desk.info("j")["submit_node"] == "s"
    assert desk.starts() == []
    assert "submit node 's' is offline since " in desk.state.requests.query("j")["reason"]


@pytest.mark.parametrize("frozen_s", [0.0, 10.0])
def test_nobody_is_judged_before_leases_of_all_earlier_settings_are_over(frozen_s: float) -> None:
    desk = Desk(pools=NO_POOLS)
    desk.meet("b")
    desk.submit(id="j", retries=1)
    began = desk.now
    for lost_after in (40.0, 31.0):
        changed = msgspec.structs.replace(desk.state.settings, lost_after=lost_after)
        desk.turn(lambda changed=changed: desk.state.configure(changed))  # type: ignore[misc]
    desk.turn(after=frozen_s)
    while desk.info("j")["node"] == "b":
        desk.wait(1)
    assert desk.now - began >= 60.0


def test_a_node_that_does_not_hear_this_one_gets_no_job_and_the_reason_says_so() -> None:
    desk = Desk(pools={})
    desk.meet("b")
    desk.hear("b", ack=False)
    assert desk.state.requests.pools() == {"p": {"b": 2}}  # it is online, and others may use it
    desk.submit(id="any")
    desk.submit(id="there", node="b")
    for jid in ("any", "there"):
        assert desk.info(jid)["node"] == ("b" if jid == "there" else None)
        assert "node 'b' does not hear node 'a'" in desk.state.requests.query(jid)["reason"]
    assert [desk.record(jid).status.node for jid in ("any", "there")] == [None, None]
    desk.hear("b")
    assert [desk.record(jid).status.node for jid in ("any", "there")] == ["b", "b"]
    desk.hear("b", ack=False)
    assert "does not hear node 'a'" in desk.state.requests.query("any")["reason"]


def test_who_is_heard_for_the_first_time_learns_at_once_that_he_is() -> None:
    desk = Desk()
    desk.turn(lambda: desk.state.on_met("b", "life-b", "host", 1, 2))
    desk.hear("b")
    assert [beat.acks for update in desk.effects.updates if update.topic == "own" for beat in update.beats] == [
        {"b": ("life-b", 1)}
    ]
    desk.hear("b")
    assert [beat.node for update in desk.effects.updates for beat in update.beats] == ["b"]  # passed on, no more


def test_old_jobs_of_a_node_that_is_heard_all_the_time_are_told_once_however_short_the_expiry() -> None:
    desk = Desk(expire=2.0, pools=NO_POOLS)
    desk.meet("b")
    running = Status(epoch=(1, "b"), node="b", state="running", active=True, rev=2, ts=desk.wall)
    desk.hear("b", [Record(Spec(id="j", pool="p", args=("x",), submit_node="b", ts=desk.wall), running)])
    told = []
    for _ in range(10):
        desk.turn(after=0.5)
        desk.hear("b")
        desk.turn(after=0.5)
        told += [record.spec.id for record in desk.effects.records]
    assert told == ["j"]


def test_what_was_heard_of_a_silent_node_comes_in_parts_where_it_is_too_much_for_one() -> None:
    knows, asks = Desk("b"), Desk("c")
    for desk, other in ((knows, "c"), (asks, "b")):
        desk.meet("x", other)
    for i in range(14):
        spec = Spec(id=f"j{i}", pool="p", args=("x", "y" * 900_000), submit_node="x", ts=knows.wall)
        knows.hear("x", [Record(spec, Status(epoch=(0, "x"), ts=knows.wall))])
    asks.wait(20)
    asks.hear("b", tails={"x": ("life-x", 14)})
    asks.turn(after=1.0)
    parts, wanted = 0, [sync for sync in asks.effects.syncs if sync.origin]
    while wanted:
        (sync,) = wanted
        told = knows.turn(lambda sync=sync: knows.state.sync(sync.incarnation, sync.since, sync.origin, 1000))
        asks.turn(lambda told=told: asks.state.on_snapshot(told))
        parts, wanted = parts + 1, [sync for sync in asks.effects.syncs if sync.origin]
    assert (parts, len(asks.state.table)) == (2, 14)
