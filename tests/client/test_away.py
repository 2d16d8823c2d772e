"""What a Client does while its node is away: stopped and started again, frozen, or gone for good."""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from meeseeks import Client, Job, NodeUnreachable, RequestTimeout
from meeseeks.client.call import Call
from meeseeks.client.notify import notify_when_over
from tests.support.wait import wait_until


def test_what_was_submitted_while_the_node_was_away_runs_once(mesh_of, tmp_path):
    (node,) = mesh_of(1, **{"pools.p.slots": 8})
    marks = tmp_path / "marks"
    with node.client(refresh=1, timeout=30) as cached:
        cached.wait()
        node.stop()
        jobs = [
            next(iter(cached.submit_job(pool="p", args=["sh", "-c", f"echo $MEESEEKS_JOB_ID >> {marks}"])))
            for _ in range(50)
        ]
        assert {info["state"] for info in cached.get(jobs).values()} == {"new"}
        node.restart()
        ended = cached.wait_for(jobs, 60)
    assert {info["state"] for info in ended.values()} == {"done"}
    assert Counter(marks.read_text().split()) == Counter(jobs)


def test_nothing_is_lost_or_doubled_while_the_node_restarts_under_load(mesh_of, tmp_path):
    # The jobs run on a; b, which takes them, is restarted, and gets its table back from a.
    a, b = mesh_of(2, per_node={"a": {"pools.p.slots": 8}, "b": {"pools.p.slots": None}})
    marks = tmp_path / "marks"
    jobs: list[str] = []
    enough = threading.Event()

    def work() -> None:
        args = ["sh", "-c", f"echo $MEESEEKS_JOB_ID >> {marks}"]
        while not enough.wait(0.002):
            jobs.extend(cached.submit_job(pool="p", args=args))

    with b.client(refresh=1, timeout=60) as cached:
        cached.wait()
        thread = threading.Thread(target=work)
        thread.start()
        try:
            wait_until(lambda: len(jobs) > 50, 30)
            b.stop()
            had = len(jobs)
            wait_until(lambda: len(jobs) > had + 20, 30)
            b.restart()
            had = len(jobs)
            wait_until(lambda: len(jobs) > had + 20, 30)
        finally:
            enough.set()
            thread.join()
        ended = cached.wait_for(jobs, 60)
    assert Counter(info["state"] for info in ended.values()) == {"done": len(jobs)}
    assert Counter(marks.read_text().split()) == Counter(jobs)


def test_a_kill_that_was_written_while_the_node_was_away_is_obeyed(mesh_of):
    a, b = mesh_of(2, per_node={"a": {"pools.p.slots": 8}, "b": {"pools.p.slots": None}})
    with b.client(refresh=1, timeout=30) as cached, a.client() as client:
        jid = next(iter(cached.submit_job(pool="p", args=["sleep", "60"])))
        wait_until(lambda: cached.get_job(jid)["state"] == "running", 30)
        b.stop()
        assert cached.kill_jobs(jid)["state"] == "killed"
        assert client.query(jid)["state"] == "running"
        b.restart()
        assert cached.wait_for(jid, 30)[jid]["state"] == "killed"


def test_requests_wait_for_a_node_that_is_restarted(mesh_of):
    (node,) = mesh_of(1)
    with node.client(timeout=30) as client:
        client.nodes()
        node.stop()
        restart = threading.Thread(target=node.restart)
        restart.start()
        try:
            assert list(client.nodes()) == ["a"]
        finally:
            restart.join()


def test_a_node_that_is_gone_is_told_by_name_and_address(mesh_of):
    (node,) = mesh_of(1)
    with node.client(timeout=20) as client:
        client.nodes()
        client._channel.timeout = 2
        node.stop()
        with pytest.raises(NodeUnreachable) as caught:
            client.nodes()
    assert f"node a at {node.endpoint}" in str(caught.value)
    assert "refused" in str(caught.value)


def test_a_cache_whose_node_is_gone_costs_no_cpu(mesh_of):
    (node,) = mesh_of(1)
    with node.client(refresh=1) as cached:
        cached.wait()
        node.stop()
        wait_until(lambda: not cached.connected)
        used = time.pthread_getcpuclockid(cached._channel._thread.ident)
        began, spent = time.monotonic(), time.clock_gettime(used)
        wait_until(lambda: time.monotonic() - began > 0.5)
        assert time.clock_gettime(used) - spent < 0.1


def test_a_frozen_node_is_told_and_used_again_when_it_thaws(mesh_of):
    (node,) = mesh_of(1)
    with node.client(timeout=20) as client:
        client.nodes()
        client._channel.timeout = 0.5
        node.freeze()
        try:
            began = time.monotonic()
            with pytest.raises(RequestTimeout) as caught:
                client.ls()
            assert time.monotonic() - began < 10
        finally:
            node.thaw()
        assert str(caught.value) == f"node a at {node.endpoint} did not answer 'ls' within 0.5 s"
        wait_until(lambda: _answers(client), 20)


def _answers(client: Client) -> bool:
    try:
        return client.ls() == []
    except RequestTimeout:
        return False


@pytest.mark.parametrize("end", ["killed", "frozen"])
def test_a_service_goes_on_through_the_next_node_of_its_list(mesh_of, end):
    a, b = mesh_of(2, per_node={"a": {"pools.p.slots": 0}})
    told: queue.Queue[str] = queue.Queue()
    # The jobs are a's own: nothing of them is lost with b.
    with a.client() as client, Client(f"{b.endpoint},{a.endpoint}", refresh=1, timeout=6) as cached:
        assert cached._channel.link.address.port == b.port
        held = client.submit_many([{"pool": "p", "args": ["true"], "hold": True, "node": "a"}] * 100)
        cached.wait()
        for jid in held:
            notify_when_over(cached, [jid], told.put, jid)
        if end == "killed":
            b.kill()
            b.sweep()
        else:
            b.freeze()
        for jid in held:
            cached.submit_job(id=jid, hold=False)
        assert sorted(told.get(timeout=60) for _ in held) == sorted(held)
        assert told.empty()
        assert cached._channel.link.address.port == a.port
        new = next(iter(cached.submit_job(pool="p", args=["true"], node="a")))
        assert cached.wait_for(new, 30)[new]["state"] == "done"
        assert sorted(cached.list_jobs(state="done")) == sorted([*held, new])


def test_a_submit_that_was_not_answered_is_in_doubt_and_runs_once_when_it_is_tried_again(mesh_of, tmp_path):
    a, b = mesh_of(2)
    marks = tmp_path / "marks"
    job = {"id": "doubtful", "pool": "p", "args": ["sh", "-c", f"echo $MEESEEKS_JOB_ID >> {marks}"], "node": "a"}
    with a.client() as other, Client([b.endpoint, a.endpoint], timeout=3) as client:
        client.nodes()
        b.freeze()
        for _ in range(2):  # the second time the Client is at a, and must not ask it
            with pytest.raises(RequestTimeout, match=f"{b.endpoint}.*job doubtful reads state='unknown'"):
                client.submit(**job)
            assert client.query("doubtful")["state"] == client.query(["doubtful"])["doubtful"]["state"] == "unknown"
            assert "did not answer its submit" in client.query("doubtful")["error"]
        assert client._channel.link.address.port == a.port
        assert other.query("doubtful") is False
        with pytest.raises(RequestTimeout):
            client.wait_for("doubtful", 0.5)
        b.thaw()
        assert client.submit(**job)["doubtful"]["submit_node"] == "b"
        assert client.wait_for("doubtful", 30)["doubtful"]["state"] == "done"
        assert client.submit(**job)["doubtful"]["state"] == "done"
    assert marks.read_text().split() == ["doubtful"]


def test_a_started_job_is_the_same_job_when_its_start_is_tried_again(mesh_of, tmp_path):
    (node,) = mesh_of(1)
    marks = tmp_path / "marks"
    with node.client(timeout=1) as client:
        client.nodes()
        job = Job("sh", "-c", f"echo $MEESEEKS_JOB_ID >> {marks}", client=client, pool="p")
        node.freeze()
        with pytest.raises(RequestTimeout):
            job.start()
        node.thaw()
        jid = wait_until(lambda: _started(job), 20)
        assert job.wait(30)["state"] == "done"
        assert client.ls() == [jid]
    assert marks.read_text().split() == [jid]


def _started(job: Job) -> object:
    try:
        return job.start()
    except RequestTimeout:
        return None


def test_a_rerun_of_a_job_that_has_left_the_cache_is_never_lost_without_a_word(mesh_of, tmp_path):
    """The node dies before it answers. That the next one knows the job says nothing: it knew it before."""
    a, b = mesh_of(2)
    marks = tmp_path / "marks"
    job = {"id": "again", "pool": "p", "args": ["sh", "-c", f"echo run >> {marks}"], "node": "a", "state": "new"}
    options = {"refresh": 0.05, "poll": 0.1, "expire": 0.2, "timeout": 20}
    with Client([b.endpoint, a.endpoint], **options) as cached, ThreadPoolExecutor(1) as pool:
        cached.submit_job(**job)
        assert cached.wait_for("again", 30)["again"]["state"] == "done"
        wait_until(lambda: cached.get_job("again") is False, 15)
        b.freeze()
        rerun = pool.submit(cached.submit_job, **job)
        wait_until(lambda: any(call.kind.startswith("submit") for call in _sent(cached)))
        b.kill()
        with pytest.raises(RequestTimeout, match="may have been carried out: look before you repeat it"):
            rerun.result(30)
        assert cached.query("again")["generation"] == 1
        assert cached.submit_job(**job)["again"]["generation"] == 2
        assert cached.wait_for("again", 30)["again"]["state"] == "done"
    assert marks.read_text().split() == ["run", "run"]


def _sent(client: Client) -> list[Call]:
    return [call for call in list(client._channel._calls.values()) if call.sent_to is not None]


@pytest.mark.parametrize("end", ["thawed", "restarted"])
def test_what_a_node_took_without_a_word_is_unknown_until_it_is_back_and_runs_once(mesh_of, tmp_path, end):
    a, b = mesh_of(2)
    marks = tmp_path / "marks"
    args = ["sh", "-c", f"echo $MEESEEKS_JOB_ID >> {marks}"]
    told: queue.Queue[str] = queue.Queue()
    with a.client() as other, Client([b.endpoint, a.endpoint], refresh=1, poll=2, timeout=4) as cached:
        cached.wait()
        b.freeze()
        doubtful = next(iter(cached.submit_job(pool="p", args=args, node="a")))
        notify_when_over(cached, [doubtful], told.put, doubtful)
        wait_until(lambda: cached.get_job(doubtful)["state"] == "unknown", 30)
        if end == "restarted":
            b.kill()
            b.sweep()
        wait_until(lambda: cached._channel.link.ready and cached._channel.link.address.port == a.port, 30)
        sure = next(iter(cached.submit_job(pool="p", args=args, node="a")))
        assert cached.wait_for(sure, 30)[sure]["submit_node"] == "a"
        assert cached.list_jobs(state="unknown") == [doubtful]
        assert other.query(doubtful) is False
        assert told.empty()
        b.thaw() if end == "thawed" else b.restart()
        ended = cached.wait_for(doubtful, 60)[doubtful]
        assert (ended["state"], ended["submit_node"]) == ("done", "b")
        assert told.get(timeout=30) == doubtful
        assert cached._channel.link.address.port == a.port
    assert sorted(marks.read_text().split()) == sorted([doubtful, sure])
    assert told.empty()


@pytest.mark.parametrize("end", ["thawed", "restarted"])
def test_a_rerun_that_a_node_took_without_a_word_is_asked_for_there_once_it_is_back(mesh_of, tmp_path, end):
    a, b = mesh_of(2)
    marks = tmp_path / "marks"
    with Client([b.endpoint, a.endpoint], refresh=1, poll=2, timeout=4) as cached:
        cached.submit_job(id="again", pool="p", args=["sh", "-c", f"echo run >> {marks}"], node="a")
        assert cached.wait_for("again", 30)["again"]["state"] == "done"
        b.freeze()
        assert cached.submit_job(id="again", state="new")["again"]["state"] == "new"
        wait_until(lambda: cached.get_job("again")["state"] == "unknown", 30)
        if end == "restarted":
            b.kill()
            b.sweep()
        wait_until(lambda: cached._channel.link.ready and cached._channel.link.address.port == a.port, 30)
        b.thaw() if end == "thawed" else b.restart()
        ended = cached.wait_for("again", 30)["again"]
        assert (ended["state"], ended["generation"]) == ("done", 2)
        cached.submit_job(id="again", tags=["later"])
        cached.wait(20)
        assert cached.query("again")["tags"] == ["later"]
        assert cached._channel.link.address.port == a.port
    assert marks.read_text().split() == ["run", "run"]
