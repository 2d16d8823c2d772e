"""Every request method of API.md against real nodes: one, three in a line with the client at the far end, a cycle."""

from __future__ import annotations

import base64
from concurrent.futures import ThreadPoolExecutor

import pytest

from meeseeks import InvalidRequest, RequestTimeout
from tests.support.wait import wait_until

JOBINFO = (
    *("id", "pool", "args", "node", "stdin", "stdout", "stderr", "runtime", "hold", "restart", "retries", "resubmit"),
    *("config", "tags", "state", "submit_node", "active", "rc", "error", "stdout_data", "stderr_data", "ts", "seq"),
    *("submit_ts", "start_ts", "end_ts", "start_count", "fail_count"),
)


def test_submit_runs_a_job_on_the_node_that_was_asked_for(client, place):
    for name in place.names:
        ((jid, info),) = client.submit(pool="p", args=["sh", "-c", "echo $MEESEEKS_NODE"], node=name).items()
        assert set(JOBINFO) <= set(info)
        assert info["submit_node"] == place.far.name
        done = client.wait_for(jid, 30)[jid]
        assert (done["state"], done["rc"], done["node"], done["active"]) == ("done", 0, name, False)
        assert base64.b64decode(done["stdout_data"]).decode().strip() == name


def test_many_ids_are_sent_in_parts(client, tag, monkeypatch):
    monkeypatch.setattr("meeseeks.client.arguments._AT_ONCE", 2)
    jids = [f"{tag}-{number}" for number in range(5)]
    client.submit_many({"id": jid, "pool": "held", "args": ["true"]} for jid in jids)
    assert sorted(client.query([*jids, "nowhere"])) == jids
    killed = client.kill([*jids, "nowhere"])
    assert {jid: info["state"] for jid, info in killed.items()} == dict.fromkeys(jids, "killed")
    assert sorted(client.wait_for([*jids, "nowhere"], 20)) == sorted([*jids, "nowhere"])
    assert client.query([]) == client.kill([]) == {}


def test_submit_with_an_id_again_changes_that_job(client, tag):
    client.submit(id=tag, pool="held", args=["true"])
    changed = client.submit(id=tag, tags=[tag], hold=True)
    assert list(changed) == [tag]
    assert (changed[tag]["tags"], changed[tag]["hold"]) == ([tag], True)
    assert client.submit(id=tag, pool="held", args=["true"], tags=[tag], hold=True)[tag]["seq"] == changed[tag]["seq"]
    client.kill(tag)


def test_submit_for_several_nodes_makes_a_job_on_each(client, place):
    jobs = client.submit(pool="p", args=["true"], node="*")
    assert sorted(info["node"] for info in jobs.values()) == place.names
    ended = client.wait_for(jobs, 30)
    assert {info["state"] for info in ended.values()} == {"done"}
    named = client.submit(pool="p", args=["true"], node=place.names)
    assert sorted(info["node"] for info in named.values()) == place.names
    client.wait_for(named, 30)


def test_submit_many_starts_all_or_none(client, tag):
    jobs = client.submit_many([{"pool": "p", "args": ["true"], "tags": [tag]}] * 50)
    assert len(jobs) == 50
    assert {info["state"] for info in client.wait_for(jobs, 60).values()} == {"done"}
    with pytest.raises(InvalidRequest):
        client.submit_many([{"pool": "p", "args": ["true"], "tags": [tag]}, {"pool": "p"}])
    assert len(client.ls(tag=tag)) == 50


def test_query_and_ls_by_id_ids_and_filters(client, tag):
    jids = list(client.submit_many([{"pool": "held", "args": ["true"], "tags": [tag, tag + "x"]}] * 3))
    assert client.query(jids[0])["id"] == jids[0]
    assert client.query("no such job") is False
    assert sorted(client.query([*jids[:2], "no such job"])) == sorted(jids[:2])
    assert sorted(client.query(tag=tag)) == sorted(jids)
    assert sorted(client.query(tag=tag, state="new")) == sorted(jids)
    assert client.query(tag=tag, state="done") == {}
    assert sorted(client.ls(tag=tag + "*", pool="hel*")) == sorted(jids)
    assert client.ls(tag="no such tag") == []
    with pytest.raises(InvalidRequest):
        client.ls(colour="green")
    client.kill(tag=tag)


def test_kill_by_id_ids_and_filters(client, tag):
    spec = {"pool": "p", "args": ["sleep", "60"], "tags": [tag]}
    jids = list(client.submit_many([spec] * 4))
    wait_until(lambda: client.ls(tag=tag, state="running"), 30)
    assert client.kill(jids[0])["state"] == "killed"
    assert client.kill("no such job") is False
    assert list(client.kill([jids[1], "no such job"])) == [jids[1]]
    assert sorted(client.kill(tag=tag)) == sorted(jids)
    ended = client.wait_for(jids, 30)
    assert {(info["state"], info["active"]) for info in ended.values()} == {("killed", False)}
    with pytest.raises(InvalidRequest):
        client.kill()


def test_nodes_and_pools_show_the_mesh(client, place):
    nodes = client.nodes()
    assert sorted(nodes) == place.names
    assert all(status["online"] for status in nodes.values())
    pools = client.pools()
    assert sorted(pools["p"]) == place.names
    wait_until(lambda: set(client.pools()["p"].values()) == {4}, 30, client.pools)
    assert set(client.pools()["held"].values()) == {None}


def test_a_raw_request_and_a_pushed_configuration(client, place):
    assert list(client.request({"ls": {}})) == ["ls"]
    answer = client.request({"config": {"pools": {"extra": {"slots": 3}}}})
    assert answer["config"]["pools"]["extra"]["slots"] == 3
    wait_until(lambda: client.pools().get("extra") == {place.far.name: 3}, 10, client.pools)
    client.request({"config": {"pools": {"extra": None}}})
    wait_until(lambda: "extra" not in client.pools(), 10, client.pools)
    with pytest.raises(InvalidRequest):
        client.request({"config": {"poools": {}}})
    with pytest.raises(InvalidRequest):
        client.request({})


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"args": ["true"]}, "pool"),
        ({"pool": "p"}, "args"),
        ({"pool": "p", "args": []}, "args"),
        ({"pool": "p", "args": "true"}, "args"),
        ({"pool": "p", "args": ["sleep", 5]}, "args"),
        ({"pool": "p", "args": ["true"], "retires": 1}, "retries"),
        ({"pool": "p", "args": ["true"], "runtime": -1}, "runtime"),
        ({"pool": "p", "args": ["true"], "state": "done"}, "state"),
        ({"pool": "p", "args": ["true"], "tags": "x"}, "tags"),
    ],
)
def test_a_wrong_jobspec_is_refused_and_changes_nothing(client, spec, said):
    before = sorted(client.ls())
    for call in (lambda: client.submit(**spec), lambda: client.submit_many([spec])):
        with pytest.raises(InvalidRequest, match=said) as caught:
            call()
        assert isinstance(caught.value, ValueError)
        assert "\n" not in str(caught.value)
    assert sorted(client.ls()) == before


def test_wait_for_any_all_and_not_in_time(client, tag):
    long = next(iter(client.submit(pool="p", args=["sleep", "60"])))
    short = next(iter(client.submit(pool="p", args=["true"])))
    infos = client.wait_for([long, short], 30, any=True)
    assert (infos[short]["state"], infos[long]["active"]) == ("done", True)
    with pytest.raises(RequestTimeout, match="1 of 2 jobs"):
        client.wait_for([long, short], 0.1)
    assert client.wait_for(["no such job"], 5) == {"no such job": False}
    assert client.wait_for([]) == {}
    client.kill(long)
    assert client.wait_for(long, 30)[long]["state"] == "killed"


def test_long_output_comes_with_the_query_of_that_job(client, place):
    size = 20_000
    jid = next(iter(client.submit(pool="p", args=["sh", "-c", f"head -c {size} /dev/zero | tr '\\0' x"], node="a")))
    client.wait_for(jid, 30)
    assert client.query([jid])[jid]["stdout_data"] is None
    assert base64.b64decode(client.query(jid)["stdout_data"]) == b"x" * size


def test_eight_threads_share_a_client(client, tag):
    def work(number: int) -> None:
        mine = f"{tag}-{number}"
        for _ in range(5):
            jobs = client.submit(pool="p", args=["true"], tags=[mine])
            assert client.query(list(jobs)).keys() == jobs.keys()
        assert len(client.ls(tag=mine)) == 5
        ended = client.wait_for(client.ls(tag=mine), 60)
        assert {info["state"] for info in ended.values()} == {"done"}

    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(work, number) for number in range(8)]:
            future.result()
