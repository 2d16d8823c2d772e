"""Every name of the Job class of API.md against real nodes: one, a line with the client at the far end, a cycle."""

from __future__ import annotations

import gc
import queue
import sys
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from meeseeks import Client, ClientClosed, InvalidRequest, Job, NodeUnreachable, RequestTimeout
from meeseeks.client.job import get_global_client
from meeseeks.client.shared import SHARED
from meeseeks.core.spec import JOB_KEYS
from tests.support.wait import wait_until


@pytest.fixture
def no_global():
    SHARED.replace(None)
    yield
    if SHARED._client is not None:
        SHARED._client.close()
    SHARED.replace(None)


def test_a_job_from_start_to_end(either, place):
    job = Job("sh", "-c", "echo out; echo err >&2; sleep 0.2; exit 3", client=either, pool="p", node=place.near.name)
    assert (job.jid, job.multi, job.is_alive(), job.poll()) == (None, False, False, None)
    assert job.args[0] == "sh"
    assert job.info["pool"] == "p"
    jid = job.start()
    assert jid == job.jid == job.id
    assert job.is_alive()
    assert job.poll() is None
    exited = job.wait(30)
    assert (exited["state"], exited["rc"]) == ("failed", 3)
    assert job.poll() == exited
    assert not job.is_alive()
    assert (job.state, job.rc, job.active, job.node) == ("failed", 3, False, place.near.name)
    assert (job.stdout_data, job.stderr_data) == ("b3V0Cg==", "ZXJyCg==")
    assert job.submit_node == place.far.name
    assert job.start_count == 1
    assert job.submit_ts <= job.start_ts <= job.end_ts
    assert job.info["id"] == jid
    with pytest.raises(InvalidRequest, match="started already"):
        job.start()


def test_every_key_of_a_jobspec_is_an_attribute(either, tag, tmp_path):
    (tmp_path / "in").write_text("from a file")
    values = {
        "id": tag,
        "pool": "p",
        "args": ["cat"],
        "node": "a",
        "stdin": str(tmp_path / "in"),
        "stdout": str(tmp_path / "out"),
        "stderr": str(tmp_path / "err"),
        "runtime": 30.0,
        "hold": True,
        "restart": False,
        "retries": 2,
        "resubmit": False,
        "config": {"cwd": str(tmp_path)},
        "tags": [tag],
    }
    assert {*values, "state"} == set(JOB_KEYS)
    job = Job(client=either)
    for key, value in values.items():
        setattr(job, key, value)
        assert getattr(job, key) == value
    assert job.start() == tag
    for key, value in values.items():
        assert getattr(job, key) == value
    assert job.state == "new"
    job.hold = False
    assert job.wait(30)["state"] == "done"
    assert (tmp_path / "out").read_text() == "from a file"
    job.state = "new"
    assert job.wait(30)["generation"] == 2


def test_client_and_notify_may_come_before_the_command(either, tag):
    over = queue.Queue()
    job = Job(either, over.put, "sh", "-c", "exit 4", pool="p", tags=[tag])
    assert job.client is either
    job.start()
    assert over.get(timeout=30) is job
    assert (job.args, job.rc) == (["sh", "-c", "exit 4"], 4)
    assert Job(either, None, "true", pool="p").args == ["true"]
    assert Job(either, "true", pool="p").args == ["true"]
    with pytest.raises(InvalidRequest, match=r"args\[0\] must be a string"):
        Job(either, over.put, over.put, pool="p")


def test_setting_an_attribute_changes_the_job(either, client, tag):
    job = Job("true", client=either, pool="held", tags=[tag])
    job.start()
    job.tags = [tag, "more"]
    assert job.tags == [tag, "more"]
    wait_until(lambda: client.query(job.jid) and client.query(job.jid)["tags"] == [tag, "more"], 15)
    with pytest.raises(InvalidRequest):
        job.runtime = -1
    with pytest.raises(InvalidRequest):
        job.id = "other"
    for key in ("rc", "jid", "info", "colour"):
        with pytest.raises(AttributeError):
            setattr(job, key, 1)
    with pytest.raises(AttributeError):
        job.colour  # noqa: B018
    job.state = "killed"
    assert job.state == "killed"
    assert job.wait(30)["state"] == "killed"


def test_kill(either):
    job = Job("sleep", "60", client=either, pool="p")
    job.start()
    wait_until(lambda: job.state == "running", 30)
    job.kill()
    assert job.state == "killed"
    assert job.wait(30)["state"] == "killed"
    assert not job.is_alive()
    job.kill()


def test_a_job_on_each_of_several_nodes(either, place):
    job = Job("sh", "-c", 'test "$MEESEEKS_NODE" != a || exec sleep 60', client=either, pool="p", node="*")
    assert job.multi
    assert job.poll() == {}
    jids = job.start()
    assert jids == job.jid
    assert len(jids) == len(place.names)
    assert sorted(job.node.values()) == place.names
    assert job.node.keys() == set(jids)
    others = [jid for jid, name in job.node.items() if name != "a"]
    wait_until(lambda: sorted(job.poll()) == sorted(others), 30, lambda: job.info)
    assert job.is_alive()
    job.tags = ["x"]
    assert set(map(tuple, job.tags.values())) == {("x",)}
    job.kill()
    ended = job.wait(30)
    assert sorted(ended) == sorted(jids)
    assert sorted(info["state"] for info in ended.values()) == sorted(["killed"] + ["done"] * len(others))
    assert not job.is_alive()
    assert job.info.keys() == set(jids)


def test_notify_is_called_once_with_the_job(either):
    told: queue.Queue[Job] = queue.Queue()
    job = Job("sh", "-c", "exit 4", client=either, pool="p", notify=told.put)
    job.start()
    assert told.get(timeout=30) is job
    assert job.poll()["rc"] == 4
    job.state = "new"
    job.wait(30)
    assert told.empty()


@pytest.mark.parametrize("look", [Job.wait, lambda job: job.client.wait_for(job.jid)], ids=["wait", "wait_for"])
@pytest.mark.parametrize("options", [{}, {"refresh": 1}], ids=["asking", "cached"])
def test_notify_is_called_for_a_job_that_was_seen_to_end_before_its_client_was_closed(place, options, look):
    told: queue.Queue[Job] = queue.Queue()
    with place.far.client(**options) as client:
        job = Job("sleep", "0.1", client=client, pool="p", notify=told.put)
        job.start()
        look(job)
    assert told.get(timeout=10) is job


def test_notify_is_called_for_each_of_several(either, place):
    told: queue.Queue[int] = queue.Queue()
    job = Job("true", client=either, pool="p", node="*", notify=lambda j: told.put(len(j.poll())))
    job.start()
    counts = [told.get(timeout=30) for _ in place.names]
    assert counts[-1] == len(place.names)
    assert told.empty()


def test_a_callback_may_do_anything(either, caplog):
    told: queue.Queue[str] = queue.Queue()

    def again(job: Job) -> None:
        second = Job("true", client=either, pool="p", notify=lambda j: told.put(j.state))
        second.start()
        second.wait(30)
        raise RuntimeError("no luck")

    Job("true", client=either, pool="p", notify=again).start()
    assert told.get(timeout=30) == "done"
    wait_until(lambda: "no luck" in caplog.text, 10)


def test_a_hundred_callbacks_of_jobs_that_nobody_holds(either):
    told: queue.Queue[str] = queue.Queue()
    jids = [Job("true", client=either, pool="p", notify=lambda j: told.put(j.jid)).start() for _ in range(100)]
    gc.collect()
    assert sorted(told.get(timeout=60) for _ in jids) == sorted(jids)
    assert told.empty()


def test_a_job_that_will_run_again_is_alive(either):
    job = Job("false", client=either, pool="p", retries=1)
    job.start()
    ended = job.wait(30)
    assert (ended["state"], ended["start_count"], ended["fail_count"]) == ("failed", 2, 2)
    forever = Job("true", client=either, pool="p", restart=True)
    forever.start()
    wait_until(lambda: forever.start_count > 1, 30)
    assert forever.is_alive()
    assert forever.poll() is None
    forever.kill()
    assert forever.wait(30)["state"] == "killed"


@pytest.mark.parametrize(("command", "later"), [("exit 0", {"restart": True}), ("exit 3", {"retries": 3})])
def test_a_wait_ends_although_more_runs_were_asked_for_after_the_end(either, command, later):
    job = Job("sh", "-c", command, client=either, pool="p")
    job.start()
    assert job.wait(30)["start_count"] == 1
    either.submit(id=job.jid, **later)
    wait_until(lambda: all(either.query(job.jid)[key] == value for key, value in later.items()), 10, "the change")
    assert job.wait(10)["start_count"] == 1
    assert not job.is_alive()


def test_waiting_has_a_deadline(either):
    job = Job("sleep", "60", client=either, pool="p")
    with pytest.raises(InvalidRequest, match="not started"):
        job.wait()
    job.start()
    with pytest.raises(RequestTimeout):
        job.wait(0.1)
    job.kill()
    job.wait(30)


@pytest.mark.parametrize("spec", [{"colour": 1}, {"pool": 5}, {"args": []}, {"notify": "x"}])
def test_a_wrong_jobspec_is_refused_when_it_is_made(client, spec):
    with pytest.raises(InvalidRequest):
        Job(client=client, **spec)


def test_a_job_without_a_pool_is_refused_when_it_starts(either):
    job = Job("true", client=either)
    with pytest.raises(InvalidRequest, match="pool"):
        job.start()
    assert job.jid is None


def test_what_has_ended_can_be_read_after_the_client_is_closed(mesh_of):
    (node,) = mesh_of(1)
    for options in ({}, {"refresh": 1}):
        with node.client(**options) as client:
            ended = Job("sh", "-c", "head -c 9000 /dev/zero; exit 3", client=client, pool="p")
            alive = Job("sleep", "60", client=client, pool="p")
            ended.start(), alive.start()
            exited = ended.wait(30)
        assert (ended.is_alive(), ended.rc) == (False, 3)
        assert ended.stdout_data == exited["stdout_data"] == "A" * 12_000
        assert ended.poll() == ended.info == ended.wait() == exited
        # Nobody would ever say that this one is over: who asks in a loop must hear of it.
        for look in (alive.is_alive, alive.poll, alive.wait, lambda job=alive: job.state):
            with pytest.raises(ClientClosed, match="this Client is closed"):
                look()


def test_what_the_cache_of_a_closed_client_knows_as_ended_can_be_read(place):
    with place.far.client(refresh=1) as client:
        job = Job("true", client=client, pool="p")
        client.wait_for(job.start(), 30)
    assert (job.is_alive(), job.rc) == (False, 0)


def test_the_global_client_is_configured_by_the_environment(place, no_global, monkeypatch):
    monkeypatch.setenv("MEESEEKS_CONF", f"address={place.far.address} port={place.far.port} refresh=2")
    job = Job("true", pool="p")
    assert job.client is get_global_client()
    job.start()
    assert job.wait(30)["state"] == "done"
    with ThreadPoolExecutor(8) as pool:
        assert len({id(client) for client in pool.map(lambda _: get_global_client(), range(50))}) == 1


def test_the_global_client_is_localhost_without_configuration(no_global):
    client = get_global_client()
    assert "127.0.0.1:13700" in repr(client)
    assert client.has_cache


def test_a_client_can_be_made_the_global_one(place, no_global):
    with place.far.client(set_global=True) as client:
        assert Job("true", pool="p").client is client
    assert get_global_client() is not client


def test_an_unknown_global_option_is_refused(no_global, monkeypatch):
    monkeypatch.setenv("MEESEEKS_CONF", "adress=here")
    with pytest.raises(InvalidRequest, match="address"):
        Job("true", pool="p")


def test_a_start_without_a_node_says_so_and_may_be_repeated(free_port):
    with Client("127.0.0.1", free_port(), timeout=0.2) as client:
        job = Job("true", client=client, pool="p")
        for _ in range(2):
            with pytest.raises(NodeUnreachable):
                job.start()


def test_the_callbacks_thread_ends_when_nothing_is_owed(either):
    told: queue.Queue[Job] = queue.Queue()
    Job("true", client=either, pool="p", notify=told.put).start()
    told.get(timeout=30)
    wait_until(lambda: not [t for t in threading.enumerate() if t.name.startswith("meeseeks-notify")], 15)


def test_a_job_that_our_node_has_not_heard_of_yet_is_waited_for(either, place):
    jid = uuid.uuid4().hex
    with place.near.client() as other, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(either.wait_for, jid, 20)
        other.query(jid)  # by now the first question about it has been asked
        other.submit(id=jid, pool="p", args=["true"])
        assert waiting.result(20)[jid]["state"] == "done"


def test_a_job_that_has_left_the_cache_is_changed_at_its_node(place):
    with place.far.client(refresh=0.1, poll=0.2, expire=0.3) as client:
        jid = uuid.uuid4().hex
        client.submit_job(id=jid, pool="p", args=["true"])
        client.wait_for(jid, 20)
        wait_until(lambda: client.get(id=jid) == {}, 20, "the job to leave the cache")
        assert client.submit_job(id=jid, pool="held")[jid]["pool"] == "held"
        with pytest.raises(InvalidRequest, match="needs 'args'"):
            client.submit_job(id=uuid.uuid4().hex, pool="p")


def test_a_job_that_has_left_the_cache_and_is_submitted_again_reads_as_it_ended(place):
    with place.far.client(refresh=0.1, poll=0.2, expire=0.3) as client:
        job = {"id": uuid.uuid4().hex, "pool": "p", "args": ["sh", "-c", "echo x; exit 3"]}
        client.submit_job(**job)
        client.wait_for(job["id"], 20)
        wait_until(lambda: client.get(id=job["id"]) == {}, 20, "the job to leave the cache")
        client.submit_job(**job)
        ended = client.wait_for(job["id"], 10)[job["id"]]
        assert (ended["state"], ended["rc"], ended["start_count"]) == ("failed", 3, 1)
        assert ended["stdout_data"] == "eAo="


def test_a_callback_that_exits_ends_no_other(either):
    told: queue.Queue[str] = queue.Queue()
    Job("true", client=either, pool="p", notify=lambda j: sys.exit(told.put(j.jid))).start()
    told.get(timeout=30)
    Job("true", client=either, pool="p", notify=lambda j: told.put(j.jid)).start()
    told.get(timeout=30)
