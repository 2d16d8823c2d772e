"""What clients may ask of a node's core: jobs for several nodes, changes, refusals, moves, and the reasons to wait."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest

from meeseeks.core.effects import PoolStatus
from meeseeks.core.placement import CONFIG_POOL
from meeseeks.core.record import Record
from meeseeks.core.settings import PoolSettings
from meeseeks.errors import InvalidRequest
from tests.unit.core.desk import Desk


def refused(desk: Desk, spec: Any) -> str:
    """Why a submit is refused; it must have changed nothing."""
    seq, lamport = desk.state.table.seq, desk.state.ledger.lamport
    with pytest.raises(InvalidRequest) as caught:
        desk.turn(lambda: desk.state.requests.submit(spec))
    assert (desk.state.table.seq, desk.state.ledger.lamport) == (seq, lamport)
    desk.turn()
    assert desk.effects.records == []
    return str(caught.value)


def ended(desk: Desk, jid: str = "j", rc: int = 0, **spec: Any) -> None:
    """A job that ran on this node and has ended."""
    desk.submit(id=jid, **spec)
    (start,) = desk.starts()
    desk.run(start)
    desk.end(start, rc)


# --- refusals


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ({"args": ["x"]}, "a new job needs 'pool'"),
        ({"pool": "p"}, "a new job needs 'args'"),
        ({"pool": "p", "args": []}, "args"),
        ({"pool": "p", "args": "ls"}, "args"),
        ({"pool": "p", "args": ["x", 1]}, "args[1]"),
        ({"pool": "p", "args": ["x"], "retires": 1}, "did you mean 'retries'"),
        ({"pool": "p", "args": ["x"], "runtime": -1}, "runtime"),
        ({"pool": "p", "args": ["x"], "state": "done"}, "state"),
        ({"pool": "p", "args": ["x"], "rc": 0}, "'rc' is set by the node"),
        ({"pool": "p", "args": ["x"], "node": "z*"}, "matches no online node"),
        ([], "a map"),
    ],
)
def test_what_is_refused_changes_nothing(spec: Any, text: str) -> None:
    desk = Desk()
    desk.meet("b")
    assert text in refused(desk, spec)
    assert len(desk.state.table) == 0


def test_submit_many_takes_all_or_none() -> None:
    desk = Desk()
    good = {"id": "j", "pool": "p", "args": ["x"]}
    for second, text in (({"pool": "p"}, "needs 'args'"), (dict(good), "stands twice")):
        with pytest.raises(InvalidRequest, match=text):
            desk.turn(lambda second=second: desk.state.requests.submit_many([good, second]))
        assert len(desk.state.table) == 0
    desk.turn(lambda: desk.state.requests.submit_many([good, {**good, "id": "k"}]))
    assert desk.state.requests.ls({}) == ["j", "k"]


def test_several_nodes_are_for_new_jobs_only() -> None:
    desk = Desk()
    ended(desk)
    assert "for new jobs only" in refused(desk, {"id": "j", "node": ["a", "b"]})
    assert "for new jobs only" in refused(desk, {"id": "j", "node": "*"})


# --- several nodes


def test_a_pattern_makes_a_job_on_each_online_node_that_has_the_pool() -> None:
    desk = Desk()
    desk.meet("n1", "n2", "x")
    desk.hear("n2", pools={"q": PoolStatus()})
    infos = desk.turn(lambda: desk.state.requests.submit({"id": "g", "pool": "p", "args": ["x"], "node": "n*"}))
    assert {jid: info["node"] for jid, info in infos.items()} == {"g@n1": "n1"}
    infos = desk.turn(lambda: desk.state.requests.submit({"id": "h", "pool": "p", "args": ["x"], "node": "*"}))
    assert set(infos) == {"h@a", "h@n1", "h@x"}


def test_a_list_names_nodes_that_need_not_be_there_yet() -> None:
    desk = Desk()
    infos = desk.turn(lambda: desk.state.requests.submit({"id": "g", "pool": "p", "args": ["x"], "node": ["a", "z"]}))
    assert set(infos) == {"g@a", "g@z"}
    assert desk.state.requests.query("g@z")["reason"] == "there is no node 'z' (nodes are: a)"


def test_the_id_of_a_group_stands_for_its_jobs() -> None:
    desk = Desk()
    spec = {"id": "g", "pool": "p", "args": ["x"], "node": ["a", "z"]}
    first = desk.turn(lambda: desk.state.requests.submit(spec))
    seq = desk.state.table.seq
    again = desk.turn(lambda: desk.state.requests.submit(spec))
    assert (set(again), desk.state.table.seq) == (set(first), seq)
    infos = desk.turn(lambda: desk.state.requests.submit({"id": "g", "tags": ["t"]}))
    assert {jid: (info["node"], info["tags"]) for jid, info in infos.items()} == {
        "g@a": ("a", ["t"]),
        "g@z": ("z", ["t"]),
    }


@pytest.mark.parametrize("node", ["c", ["a", "c"], None])
def test_the_jobs_of_a_group_keep_their_nodes(node: object) -> None:
    desk = Desk()
    desk.turn(lambda: desk.state.requests.submit({"id": "g", "pool": "p", "args": ["x"], "node": ["a", "z"]}))
    assert "'g' are several jobs, each for a node of its own" in refused(desk, {"id": "g", "node": node})


def test_one_request_makes_so_many_jobs_and_no_more() -> None:
    desk = Desk()
    names = [f"n{i}" for i in range(5001)]
    specs = [{"id": f"g{i}", "pool": "p", "args": ["x"], "node": names} for i in range(4)]
    with pytest.raises(
        InvalidRequest, match="up to 20000 jobs, .* these are more with jobspec 4 of 4; send them in parts"
    ):
        desk.turn(lambda: desk.state.requests.submit_many(specs))
    assert len(desk.state.table) == 0


def test_a_configuration_is_for_the_node_that_it_names() -> None:
    desk = Desk()
    desk.submit(id="c", pool=CONFIG_POOL, node="z", args={"use_loadavg": True})
    assert "name the node" in refused(desk, {"id": "c", "node": None})
    desk.meet("b")
    desk.submit(id="d", pool=CONFIG_POOL, node="b", args={"use_loadavg": True})
    desk.hear("b", ack=False)
    desk.submit(id="e", pool=CONFIG_POOL, node="b", args={"use_loadavg": True})
    assert "does not hear node 'a'" in desk.state.requests.query("e")["reason"]


# --- kill, query, list


def test_unknown_ids_are_false_or_left_out() -> None:
    desk = Desk()
    ended(desk)
    requests = desk.state.requests
    assert requests.query("nope") is False
    assert requests.kill("nope") is False
    assert set(requests.query(["nope", "j"])) == {"j"}
    assert set(requests.kill(["nope", "j"])) == {"j"}
    assert requests.query({"tag": "nope"}) == {}


@pytest.mark.parametrize("what", [1, [1], None])
def test_what_names_no_jobs_is_refused(what: Any) -> None:
    with pytest.raises(InvalidRequest):
        Desk().state.requests.kill(what)


def test_kill_by_filter_kills_those_and_no_others() -> None:
    desk = Desk(pools={"p": PoolSettings(slots=1)})
    for i in range(4):
        desk.submit(id=f"j{i}", tags=["odd" if i % 2 else "even"])
    killed = desk.turn(lambda: desk.state.requests.kill({"tag": "odd"}))
    assert set(killed) == {"j1", "j3"}
    assert [desk.info(f"j{i}")["state"] for i in range(4)] == ["new", "killed", "new", "killed"]


def test_a_job_may_be_born_killed() -> None:
    desk = Desk()
    assert desk.submit(id="j", state="killed")["state"] == "killed"
    assert desk.starts() == []


# --- rerun and move


def test_a_rerun_counts_from_the_start() -> None:
    desk = Desk()
    ended(desk, rc=3)
    assert (desk.info("j")["fail_count"], desk.info("j")["start_count"], desk.info("j")["rc"]) == (1, 1, 3)
    info = desk.submit(id="j", state="new", args=["other"])
    assert (info["generation"], info["args"], info["fail_count"], info["rc"]) == (2, ["other"], 0, None)
    (start,) = desk.starts()
    assert (start.key.generation, start.key.run, start.args) == (2, 1, ("other",))


def test_moving_a_job_is_kill_wait_and_new() -> None:
    desk = Desk()
    desk.meet("b")
    desk.submit(id="j", node="a")
    (start,) = desk.starts()
    desk.run(start)
    assert "active on 'a': kill it first" in refused(desk, {"id": "j", "node": "b", "state": "new"})
    desk.kill("j")
    assert (desk.info("j")["state"], desk.info("j")["active"]) == ("killed", True)
    assert "it is being killed: wait for active=False" in refused(desk, {"id": "j", "node": "b", "state": "new"})
    desk.end(start, -15)
    assert (desk.info("j")["state"], desk.info("j")["active"]) == ("killed", False)
    info = desk.submit(id="j", node="b", state="new")
    assert (info["node"], info["state"], desk.record("j").status.epoch) == ("b", "new", (1, "a"))


@pytest.mark.parametrize(("retries", "home"), [(0, "a"), (2, "s")])
def test_who_schedules_a_rerun_whose_submit_node_is_offline(retries: int, home: str) -> None:
    """Only its submit node knows whether a copy of a job that may be given to others lives somewhere."""
    desk = Desk()
    desk.meet("s")
    ended(desk, retries=retries)
    table = desk.state.table
    record = desk.record("j")
    elsewhere = type(record.spec)(**{**_fields(record.spec), "submit_node": "s", "lamport": 99, "writer": "s"})
    desk.hear("s", [type(record)(elsewhere, record.status)])
    assert table.info("j")["submit_node"] == "s"
    desk.wait(20)
    desk.submit(id="j", state="new")
    assert desk.info("j")["submit_node"] == home


def _fields(spec: Any) -> dict[str, Any]:
    return {name: getattr(spec, name) for name in spec.__struct_fields__}


# --- reasons


def reason(desk: Desk, jid: str = "j") -> Any:
    """Why it waits."""
    return desk.state.requests.query(jid).get("reason")


@pytest.mark.parametrize(
    ("pool", "spec", "text"),
    [
        ({"slots": 1}, {}, "1st in line for a slot of pool 'p' on node 'a'"),
        ({"slots": 1}, {"hold": True}, "held"),
        ({"slots": 1, "drain": True}, {}, "node 'a' is draining pool 'p'"),
        ({"slots": 2, "hold": True}, {}, "pool 'p' of node 'a' is on hold"),
        ({"slots": 1}, {"pool": "nope"}, "no online node has pool 'nope' (pools are: p)"),
        ({"slots": 1}, {"node": "z"}, "there is no node 'z' (nodes are: a)"),
        ({"slots": 1}, {"pool": "q", "node": "a"}, "node 'a' has no pool 'q' (its pools are: p)"),
    ],
)
def test_why_a_job_waits(pool: dict[str, Any], spec: dict[str, Any], text: str) -> None:
    desk = Desk(pools={"p": PoolSettings(**pool)}, wait_in_pool=True)
    desk.submit(id="first")
    desk.submit(id="j", **spec)
    assert reason(desk) == text


def test_all_slots_are_taken_is_a_reason_too() -> None:
    desk = Desk(pools={"p": PoolSettings(slots=1)})
    desk.submit(id="first")
    desk.submit(id="j")
    desk.submit(id="k")
    assert (reason(desk), reason(desk, "k")) == tuple(
        f"the only slot of 'p' is taken, {place} in line" for place in ("1st", "2nd")
    )
    desk.kill("j")
    desk.wait(2)
    assert reason(desk, "k") == "the only slot of 'p' is taken, 1st in line"
    (start,) = desk.starts()
    desk.run(start)
    desk.end(start)
    assert [order.key.job for order in desk.starts()] == ["k"]


def test_since_when_a_node_is_away_is_a_time_of_day() -> None:
    desk = Desk(pools={"p": PoolSettings(slots=1)})
    desk.meet("b")
    desk.wait(20)
    desk.submit(id="j", node="b")
    assert re.fullmatch(r"node 'b' is offline since \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", reason(desk))


def test_why_many_jobs_wait_is_counted_for_all_at_once() -> None:
    desk = Desk(pools={"p": PoolSettings(slots=1)})
    specs = [{"id": f"j{i}", "pool": "p", "args": ["true"]} for i in range(2001)]
    desk.turn(lambda: desk.state.requests.submit_many(specs))
    desk.settle()
    counted, line = [], desk.state.submitter.waiting.line
    desk.state.submitter.waiting.line = lambda group: counted.append(group) or line(group)  # type: ignore[method-assign]
    infos = desk.state.requests.query([f"j{i}" for i in range(2001)])
    assert infos["j2000"]["reason"] == "the only slot of 'p' is taken, 2000th in line"
    assert len(counted) == 1


def test_a_job_that_runs_or_has_ended_waits_for_nothing() -> None:
    desk = Desk()
    ended(desk)
    assert reason(desk) is None


# --- the mesh, as clients see it


def test_pools_show_free_slots_of_online_nodes() -> None:
    desk = Desk()
    desk.meet("b")
    desk.hear("b", pools={"p": PoolStatus(slots=3), "q": PoolStatus(), "r": PoolStatus(slots=4, drain=True)})
    desk.submit(id="j", node="b")
    assert desk.state.requests.pools() == {"p": {"a": 2, "b": 2}, "q": {"b": None}, "r": {"b": 0}}
    desk.wait(5)
    assert "b" in desk.state.requests.pools()["p"], "silent for three heartbeats, but online, as nodes() has it"
    desk.wait(15)
    assert desk.state.requests.pools() == {"p": {"a": 2}}


def test_nodes_show_themselves_and_who_is_silent() -> None:
    desk = Desk()
    desk.meet("b")
    assert {name: info["state"] for name, info in desk.state.nodes().items()} == {"a": "online", "b": "online"}
    desk.wait(20)
    assert desk.state.nodes()["b"]["state"] == "offline"
    desk.wait(60)
    assert desk.state.nodes()["b"]["state"] == "lost"


def test_a_configuration_job_goes_to_the_node_itself_unless_it_names_one() -> None:
    desk = Desk()
    info = desk.submit(id="c", pool=CONFIG_POOL, args={"use_loadavg": True})
    assert info["node"] == "a"
    (start,) = desk.starts()
    assert (start.pool, start.config, start.args) == (CONFIG_POOL, {"use_loadavg": True}, ())
    assert "args" in refused(desk, {"id": "d", "pool": CONFIG_POOL, "args": ["x"]})
    assert "args" in refused(desk, {"id": "d", "pool": "p", "args": {"x": 1}})


@pytest.mark.parametrize(
    "requests",
    [
        [{"id": "g@a", "hold": True}, {"id": "g", "tags": ["x"]}],
        [{"id": "g", "tags": ["x"]}, {"id": "g@a", "hold": True}],
        [{"id": "n", "node": "a*", "pool": "p", "args": ["true"]}, {"id": "n", "pool": "p", "args": ["true"]}],
        [{"id": "n", "pool": "p", "args": ["true"]}, {"id": "n", "node": "a*", "pool": "p", "args": ["true"]}],
    ],
)
def test_a_group_and_one_of_its_jobs_do_not_go_into_one_submit_many(requests: list[dict[str, Any]]) -> None:
    desk = Desk()
    desk.submit(id="g", node=["a"])
    before = desk.state.table.seq
    with pytest.raises(InvalidRequest, match="stands twice"):
        desk.turn(lambda: desk.state.requests.submit_many(requests))
    assert desk.state.table.seq == before


def test_an_id_that_would_be_too_long_with_a_node_is_refused() -> None:
    desk = Desk()
    with pytest.raises(InvalidRequest, match="id has 254 characters, and 256 with @ and the node"):
        desk.submit(id="x" * 254, node="*")
    assert desk.info(next(iter(desk.turn(lambda: desk.state.requests.submit(job("x" * 253))))))["hold"] is False


def job(jid: str) -> dict[str, Any]:
    return {"id": jid, "node": "*", "pool": "p", "args": ["true"]}


def test_a_place_in_line_is_told_without_another_count_of_the_line() -> None:
    desk = Desk(pools={"p": PoolSettings(slots=1)})
    desk.submit(id="runs")
    places = []
    for i in range(4):
        desk.submit(id=f"j{i}")
        places.append(desk.state.requests.query(f"j{i}")["reason"].rpartition("taken, ")[2])
    assert places == ["1st in line", "2nd in line", "3rd in line", "4th in line"]


def test_an_edit_that_was_not_heard_where_a_loss_was_judged_is_not_undone_by_it() -> None:
    desk = Desk(pools={})
    desk.meet("b", "c")
    desk.submit(id="j", node="b")
    known = desk.record("j")
    for i in range(5):  # so that the numbers of this node are the higher ones
        desk.submit(id=f"j{i}", hold=True, pool="q")
    desk.wait(70)
    assert desk.info("j")["error"] == "node b lost"
    ended = msgspec.structs.replace(known.status, state="done", rev=9)
    rerun = msgspec.structs.replace(
        known.spec, args=("new",), node="c", generation=2, submit_node="c", lamport=known.spec.lamport + 1, writer="c"
    )
    desk.meet("c")
    desk.hear("c", [Record(rerun, ended)])
    assert (desk.info("j")["args"], desk.info("j")["node"], desk.info("j")["submit_node"]) == (["new"], "c", "c")
