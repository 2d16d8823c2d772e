"""Every cached method of API.md against real nodes: one, three in a line with the client at the far end, a cycle."""

from __future__ import annotations

import base64
import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from meeseeks import Client, ClientClosed, InvalidRequest, Job, NodeUnreachable, RequestTimeout
from tests.support.wait import wait_until


def test_submit_job_shows_at_once_and_runs(cached, place):
    for name in place.names:
        ((jid, info),) = cached.submit_job(pool="p", args=["sh", "-c", "echo $MEESEEKS_NODE"], node=name).items()
        assert (info["state"], cached.get_job(jid)["id"]) == ("new", jid)
        done = cached.wait_for(jid, 30)[jid]
        assert (done["state"], done["rc"], done["node"], done["submit_node"]) == ("done", 0, name, place.far.name)
        assert base64.b64decode(done["stdout_data"]).decode().strip() == name


def test_submit_job_for_several_nodes_gives_the_ids_of_the_node(cached, place):
    jobs = cached.submit_job(pool="p", args=["true"], node="*")
    assert sorted(info["node"] for info in jobs.values()) == place.names
    assert sorted(cached.get(list(jobs))) == sorted(jobs)
    assert {info["state"] for info in cached.wait_for(jobs, 30).values()} == {"done"}


def test_submit_job_changes_a_job(cached, tag):
    cached.submit_job(id=tag, pool="held", args=["true"])
    cached.wait()
    assert cached.submit_job(id=tag, tags=[tag])[tag]["tags"] == [tag]
    assert cached.list_jobs(tag=tag) == [tag]
    cached.wait()
    assert cached.query(tag)["tags"] == [tag]
    assert cached.get_job(tag)["tags"] == [tag]
    cached.kill_jobs(tag)


def test_list_jobs_get_job_and_get(cached, tag):
    jids = [next(iter(cached.submit_job(pool="held", args=["true"], tags=[tag]))) for _ in range(3)]
    assert sorted(cached.list_jobs(tag=tag)) == sorted(jids)
    assert cached.list_jobs(tag=tag, state="done") == []
    assert cached.get_job("no such job") is False
    assert sorted(cached.get([*jids[:2], "no such job"])) == sorted(jids[:2])
    assert sorted(cached.get(tag=tag, pool="hel*")) == sorted(jids)
    cached.wait()
    wait_until(lambda: _comparable(cached.query(tag=tag)) == _comparable(cached.get(tag=tag)), 15)
    with pytest.raises(InvalidRequest):
        cached.list_jobs(colour="green")
    cached.kill_jobs(tag=tag)


def _comparable(infos):
    # Why a job waits is computed by the node that is asked; seq is exact to the broadcast, not to the job.
    hidden = ("reason", "seq")
    return {jid: {key: info[key] for key in info if key not in hidden} for jid, info in infos.items()}


def test_kill_jobs_by_id_ids_and_filters(cached, tag):
    jids = [next(iter(cached.submit_job(pool="p", args=["sleep", "60"], tags=[tag]))) for _ in range(4)]
    wait_until(lambda: cached.list_jobs(tag=tag, state="running"), 30)
    assert cached.kill_jobs(jids[0])["state"] == "killed"
    assert cached.kill_jobs("no such job") is False
    assert list(cached.kill_jobs([jids[1], "no such job"])) == [jids[1]]
    assert {info["state"] for info in cached.kill_jobs(tag=tag).values()} == {"killed"}
    ended = cached.wait_for(jids, 30)
    assert {(info["state"], info["active"]) for info in ended.values()} == {("killed", False)}
    assert {info["state"] for info in cached.query(jids).values()} == {"killed"}


def test_get_nodes_and_get_pools_equal_what_the_node_says(cached, client, place):
    assert sorted(cached.get_nodes()) == place.names
    assert cached.get_nodes()[place.far.name].keys() == client.nodes()[place.far.name].keys()
    wait_until(lambda: cached.get_pools() == client.pools(), 15, lambda: (cached.get_pools(), client.pools()))
    client.request({"config": {"pools": {"p": {"slots": 7}}}})
    wait_until(lambda: cached.get_pools()["p"][place.far.name] == 7, 15, cached.get_pools)
    client.request({"config": {"pools": {"p": {"slots": 4}}}})


def test_wait_returns_when_the_node_has_all_that_was_written(cached, client, tag):
    for _ in range(200):
        cached.submit_job(pool="held", args=["true"], tags=[tag])
    cached.wait()
    assert len(client.ls(tag=tag)) == 200
    client.kill(tag=tag)
    cached.wait()
    assert cached.list_jobs(tag=tag, state="killed") == cached.list_jobs(tag=tag)


def test_a_change_on_any_node_comes_by_push(place, tag):
    # `poll` and `refresh` are far away: nothing but a broadcast can bring it in time.
    with place.far.client(refresh=50, poll=100, expire=200) as cached, place.near.client() as near:
        assert cached.list_jobs(tag=tag) == []
        wait_until(lambda: cached._channel.link.is_followed, 15)
        jid = next(iter(near.submit(pool="held", args=["true"], tags=[tag])))
        wait_until(lambda: cached.list_jobs(tag=tag) == [jid], 15)
        near.submit(id=jid, tags=[tag, "more"])
        wait_until(lambda: cached.get_job(jid)["tags"] == [tag, "more"], 15)
        near.kill(jid)
        assert cached.wait_for(jid, 15)[jid]["state"] == "killed"


def test_a_rerun_of_an_ended_job(cached):
    jid = next(iter(cached.submit_job(pool="p", args=["true"])))
    assert cached.wait_for(jid, 30)[jid]["generation"] == 1
    assert cached.submit_job(id=jid, state="new")[jid]["state"] == "new"
    again = cached.wait_for(jid, 30)[jid]
    assert (again["state"], again["generation"]) == ("done", 2)


@pytest.mark.parametrize("spec", [{"pool": "p"}, {"args": ["true"]}, {"pool": "p", "args": [1]}, {"colour": "green"}])
def test_a_wrong_jobspec_is_refused_at_once(cached, spec):
    before = sorted(cached.list_jobs())
    with pytest.raises(InvalidRequest):
        cached.submit_job(**spec)
    assert sorted(cached.list_jobs()) == before


def test_long_output_is_fetched_once_for_that_job(cached, place):
    size = 20_000
    args = ["sh", "-c", f"head -c {size} /dev/zero | tr '\\0' x"]
    jid = next(iter(cached.submit_job(pool="p", args=args, node="a")))
    cached.wait_for(jid, 30)
    assert cached.get([jid])[jid]["stdout_data"] is None
    assert base64.b64decode(cached.get_job(jid)["stdout_data"]) == b"x" * size
    assert cached.get([jid])[jid]["stdout_data"] is not None


def test_ended_jobs_expire_from_the_cache_and_are_found_by_wait_for(place):
    with place.far.client(refresh=0.05, poll=0.1, expire=0.3) as cached:
        jid = next(iter(cached.submit_job(pool="p", args=["true"])))
        cached.wait_for(jid, 30)
        wait_until(lambda: cached.get_job(jid) is False, 15)
        assert cached.wait_for(jid, 30)[jid]["state"] == "done"


def test_a_killed_job_is_waited_for_as_long_as_it_is_active(mesh_of, tmp_path):
    """However long its end takes: a move is allowed only after `active` is False."""
    (node,) = mesh_of(1, **{"pools.p.grace": 60})
    os.mkfifo(tmp_path / "end")
    with node.client(refresh=0.05, poll=0.1, expire=0.2) as cached:
        args = ["sh", "-c", f"trap '' TERM; echo > {tmp_path}/ready; read end < {tmp_path}/end"]
        slow = next(iter(cached.submit_job(pool="p", args=args)))
        wait_until((tmp_path / "ready").exists)
        cached.kill_jobs(slow)
        cached.wait()
        later = next(iter(cached.submit_job(pool="p", args=["true"])))
        cached.wait_for(later, 30)
        wait_until(lambda: cached.get_job(later) is False, 15)
        info = cached.get_job(slow)
        assert (info["state"], info["active"]) == ("killed", True)
        (tmp_path / "end").write_text("now\n")
        info = cached.wait_for(slow, 30)[slow]
        assert (info["state"], info["active"]) == ("killed", False)


def test_a_lost_job_that_has_left_the_cache_is_killed_once_its_node_is_back(mesh_of):
    a, b = mesh_of(2, **{"state.timeout": 1, "state.lost_after": 2})
    with a.client(refresh=0.1, poll=0.2, expire=0.3) as cached:
        cached.submit_job(id="j", pool="p", node="b", args=["sleep", "60"])
        wait_until(lambda: cached.list_jobs(state="running"), 20)
        b.freeze()
        wait_until(lambda: not cached.list_jobs(), 20)
        assert cached.kill_jobs("j")["state"] == "killed"
        assert list(cached.kill_jobs(["j", "nowhere"])) == ["j"]
        assert cached.kill_jobs("nowhere") is False
        b.thaw()
        wait_until(lambda: cached.query("j")["rc"] == -15, 20)
        assert (cached.query("j")["state"], cached.query("j")["active"]) == ("killed", False)


def test_wait_for_a_job_that_the_push_has_not_brought_yet(cached, tag):
    jobs = cached.submit_many([{"pool": "p", "args": ["true"], "tags": [tag]}] * 20)
    ended = cached.wait_for(jobs, 30)
    assert {info["state"] for info in ended.values()} == {"done"}
    assert cached.wait_for("no such job", 10) == {"no such job": False}


def test_eight_threads_write_and_read(cached, tag):
    def work(number: int) -> None:
        mine = f"{tag}-{number}"
        jids = []
        for _ in range(10):
            jids += cached.submit_job(pool="p", args=["true"], tags=[mine])
            assert cached.get_job(jids[-1])
        assert sorted(cached.list_jobs(tag=mine)) == sorted(jids)
        cached.kill_jobs(jids[0])
        ended = cached.wait_for(jids, 60)
        assert all(not info["active"] for info in ended.values())
        cached.wait()

    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(work, number) for number in range(8)]:
            future.result()


def test_close_delivers_what_was_written(place, client, tag):
    cached = place.far.client(refresh=1)
    for _ in range(100):
        cached.submit_job(pool="held", args=["true"], tags=[tag])
    cached.close()
    assert len(client.ls(tag=tag)) == 100
    client.kill(tag=tag)


def test_a_closed_client_tells_nothing_of_its_cache(place, tag):
    with place.far.client(refresh=1) as cached:
        cached.wait()
        cached.get_nodes(), cached.get_pools()
    for call in (
        cached.list_jobs,
        cached.get,
        lambda: cached.get_job(tag),
        cached.get_nodes,
        cached.get_pools,
        cached.wait,
        lambda: cached.wait_for(tag),
        lambda: cached.look_up([tag]),
        lambda: cached.watch(tag, print),
        lambda: cached.kill_jobs(tag),
        lambda: cached.submit_job(pool="p", args=["true"]),
    ):
        with pytest.raises(ClientClosed, match="this Client is closed"):
            call()
    assert not cached.connected


def test_reading_a_cache_without_a_node_ends_by_the_deadline(free_port):
    cached = Client("127.0.0.1", free_port(), timeout=0.3, refresh=1)
    began = time.monotonic()
    for call in (cached.list_jobs, cached.get_nodes, cached.wait):
        with pytest.raises(NodeUnreachable, match="refused"):
            call()
    assert time.monotonic() - began < 10
    cached.submit_job(pool="p", args=["true"])
    with pytest.raises(RequestTimeout, match="closed with 1 jobs"):
        cached.close()


def test_output_that_is_too_much_for_a_query_is_left_out_with_the_reason(place):
    with place.far.client(refresh=1) as client:
        job = Job("sh", "-c", "head -c 17000000 /dev/zero", client=client, pool="p")
        job.start()
        for info in (job.wait(30), client.get_job(job.jid)):
            assert info["stdout_data"] is None
            assert "17000000 bytes of stdout are more than a query brings" in info["output_error"]
        assert job.output_error == info["output_error"]
        assert job.reason is None
