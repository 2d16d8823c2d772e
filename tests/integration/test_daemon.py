"""A node as a daemon: its configuration while it runs, how it stops, what it leaves in files."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from meeseeks import Client, InvalidRequest
from tests.support.nodes import NodeProcess, wait_linked
from tests.support.processes import is_running
from tests.support.wait import wait_until

MeshOf = Callable[..., list[NodeProcess]]


def test_sigterm_ends_jobs_with_their_grace_and_tells_the_others(mesh_of: MeshOf, tmp_path: Path) -> None:
    a, b = mesh_of(2, per_node={"a": {"pools.p.slots": None}})
    script = f"trap 'echo bye > {tmp_path}/bye; exit 0' TERM; touch {tmp_path}/up; while :; do sleep 0.05; done"
    with a.client() as client:
        (jid,) = client.submit(pool="p", args=["sh", "-c", script])
        (queued,) = client.submit(pool="p", node="b", args=["true"], hold=True)
        wait_until((tmp_path / "up").exists)
        wait_until(lambda: client.query(queued)["active"])
        began = time.monotonic()
        b.stop()
        assert time.monotonic() - began < 10
        info = wait_until(lambda: not (found := client.query(jid))["active"] and found)
        assert (info["state"], info["error"]) == ("failed", "node b stopped")
        assert (tmp_path / "bye").read_text() == "bye\n"
        info = wait_until(lambda: not (found := client.query(queued))["active"] and found)
        assert info["state"] == "new"
        assert "'b'" in info["reason"]


@pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="this machine has no IPv6")
@pytest.mark.parametrize(("listens", "at"), [("::1", "::1"), ("[::1]", "::1"), ("::", "127.0.0.1"), ("*", "127.0.0.1")])
def test_a_node_listens_where_it_is_told_to(mesh_of: MeshOf, tmp_path: Path, listens: str, at: str) -> None:
    (a,) = mesh_of(1, **{"listen.address": listens})
    b = NodeProcess(
        tmp_path, "b", {"listen.address": listens}, join=f"[{at}]:{a.port}" if ":" in at else f"{at}:{a.port}"
    )
    with ExitStack() as stack:
        stack.callback(b.stop)
        b.start()
        client = stack.enter_context(Client(at, a.port))
        wait_until(lambda: client.nodes().get("b", {}).get("online"), 20)
        client.submit(id="j", pool="p", node="b", args=["true"])
        assert client.wait_for("j", 20)["j"]["state"] == "done"


def test_a_stubborn_job_does_not_hold_a_stop_up(mesh_of: MeshOf, tmp_path: Path) -> None:
    (a,) = mesh_of(1, **{"pools.p.grace": 600})
    with a.client() as client:
        script = f"trap '' TERM; echo $$ > {tmp_path}/pid; while :; do sleep 0.05; done"
        client.submit(pool="p", args=["sh", "-c", script])
        pid = int(wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text()))
    began = time.monotonic()
    a.stop()
    assert time.monotonic() - began < 10
    assert not Path(f"/proc/{pid}").exists()


def test_a_job_with_retries_runs_elsewhere_when_its_node_stops(mesh_of: MeshOf) -> None:
    a, b, c = mesh_of(3, per_node={"a": {"pools.p.slots": None}})
    with a.client() as client:
        (jid,) = client.submit(pool="p", args=["sleep", "1000"], retries=1)
        info = wait_until(lambda: (found := client.query(jid))["state"] == "running" and found)
        {"b": b, "c": c}[info["node"]].stop()
        again = wait_until(lambda: (f := client.query(jid))["state"] == "running" and f["node"] != info["node"] and f)
        assert again["start_count"] == 2
        client.kill(jid)
        client.wait_for([jid], timeout=15)


def test_pools_change_while_the_node_runs(mesh_of: MeshOf) -> None:
    (a,) = mesh_of(1)
    with a.client() as client:
        jobs = [next(iter(client.submit(pool="p", args=["sleep", "1000"]))) for _ in range(5)]
        wait_until(lambda: len(client.ls(state="running")) == 2)
        client.request({"config": {"pools": {"p": {"slots": 4}, "q": {"slots": 1}}}})
        wait_until(lambda: len(client.ls(state="running")) == 4)
        assert client.pools()["q"] == {"a": 1}
        client.request({"config": {"pools": {"p": {"hold": True, "slots": 9}}}})
        client.submit(pool="p", args=["true"], id="held-by-pool")
        wait_until(lambda: client.query("held-by-pool")["active"])
        assert client.query("held-by-pool")["state"] == "new"
        client.request({"config": {"pools": {"p": {"hold": False}}}})
        assert client.wait_for(["held-by-pool"], timeout=15)["held-by-pool"]["state"] == "done"
        client.request({"config": {"pools": {"p": {"drain": True}}}})
        client.submit(pool="p", args=["true"], id="drained")
        wait_until(lambda: "draining" in (client.query("drained")["reason"] or ""))
        client.request({"config": {"pools": {"p": None}}})
        assert list(client.pools()) == ["q"]
        assert len(client.ls(state="running")) == 5
        client.kill([*jobs, "drained"])
        client.wait_for([*jobs, "drained"], timeout=15)


def test_peers_change_while_the_node_runs(mesh_of: MeshOf, tmp_path: Path) -> None:
    (a,) = mesh_of(1, discover=False)
    b = NodeProcess(tmp_path, "b", {"discover": False}).start()
    try:
        with a.client() as client:
            client.request({"config": {"nodes": {"b": {"address": b.address, "port": b.port}}}})
            wait_linked([a, b])
            client.request({"config": {"nodes": {"b": None}}})
            wait_until(lambda: not client.nodes()["b"]["online"], 15)
            wait_until(lambda: "told to unlink" in b.stderr)
            assert not client.nodes()["b"]["online"]
            client.request({"config": {"nodes": {"b": {"address": b.address, "port": b.port}}}})
            wait_until(lambda: client.nodes()["b"]["online"], 15)
    finally:
        b.stop()


def test_one_that_only_the_other_took_out_lives_on_alone_and_comes_back(mesh_of: MeshOf, tmp_path: Path) -> None:
    a, b = (NodeProcess(tmp_path, name, {"heartbeat": 0.1, "state.timeout": 0.4}) for name in "ab")
    for node, other in ((a, b), (b, a)):
        node.config[f"nodes.{other.name}.address"] = "127.0.0.1"
        node.config[f"nodes.{other.name}.port"] = other.config["listen.port"]
    with ExitStack() as stack:
        for node in (a, b):
            stack.callback(node.stop)
            node.start()
        wait_linked([a, b])
        at_a, at_b = (stack.enter_context(node.client()) for node in (a, b))
        at_b.submit(id="long", pool="p", node="b", args=["sleep", "1000"])
        wait_until(lambda: at_b.query("long")["state"] == "running")
        at_a.request({"config": {"nodes": {"b": None}}})
        wait_until(lambda: "told to unlink" in b.stderr, describe=b.report)
        wait_until(lambda: at_a.nodes()["b"]["state"] == "offline", describe=a.report)
        wait_until(lambda: at_b.nodes()["a"]["state"] == "offline", describe=b.report)
        jobs = [next(iter(at_b.submit(pool="p", args=["true"]))) for _ in range(3)]
        done = at_b.wait_for(jobs, timeout=10)
        assert {(info["state"], info["node"]) for info in done.values()} == {("done", "b")}
        at_a.request({"config": {"nodes": {"b": {"address": "127.0.0.1", "port": b.port}}}})
        wait_linked([a, b])
        assert at_b.query("long")["state"] == "running"


def test_configuration_is_pushed_as_a_job_to_any_node(mesh_of: MeshOf) -> None:
    a, b = mesh_of(2)
    with a.client() as client:
        (jid,) = client.submit(pool="__config", node="b", args={"pools": {"gpu": {"slots": 3}}})
        assert client.wait_for([jid], timeout=15)[jid]["state"] == "done"
        wait_until(lambda: client.pools().get("gpu") == {"b": 3})
        (jid,) = client.submit(pool="__config", node="b", args={"pools": {"gpu": {"slotz": 3}}})
        info = client.wait_for([jid], timeout=15)[jid]
    assert info["state"] == "failed"
    assert "slotz" in info["error"]
    assert "slots" in info["error"]


@pytest.mark.parametrize(
    ("patch", "words"),
    [
        ({"polls": {}}, ["polls", "pools"]),
        ({"pools": {"p": {"slots": -1}}}, ["slots", "-1"]),
        ({"name": "z"}, ["name"]),
        ({"listen": {"port": 1}}, ["listen"]),
    ],
)
def test_a_wrong_push_is_refused_and_changes_nothing(
    mesh_of: MeshOf, patch: dict[str, object], words: list[str]
) -> None:
    (a,) = mesh_of(1)
    with a.client() as client:
        before = client.request({"config": {}})
        with pytest.raises(InvalidRequest) as caught:
            client.request({"config": patch})
        assert all(word in str(caught.value) for word in words)
        assert client.request({"config": {}}) == before


@pytest.mark.parametrize(
    ("ssl", "why"),
    [
        ({"cafile": "/no/such/file"}, "/no/such/file"),
        ({"ciphers": "A\0"}, "names no cipher"),
    ],
)
def test_tls_that_can_t_be_used_is_refused_as_a_whole(mesh_of: MeshOf, ssl: dict[str, object], why: str) -> None:
    (a,) = mesh_of(1)
    patch = {"pools": {"q": {"slots": 1}}, "nodes": {"x": {"port": 1, "ssl": ssl}}}
    with a.client() as client:
        before = client.request({"config": {}})
        with pytest.raises(InvalidRequest, match=why):
            client.request({"config": patch})
        (jid,) = client.submit(pool="__config", node="a", args=patch)
        info = client.wait_for([jid], timeout=15)[jid]
        assert (info["state"], why in info["error"]) == ("failed", True)
        assert client.request({"config": {}}) == before
        assert "q" not in client.pools()
        client.request({"config": {"pools": {"r": {"slots": 1}}}})
        assert client.pools()["r"] == {"a": 1}


def test_history_has_a_line_for_each_end(mesh_of: MeshOf, tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text('{"id": "torn')
    (a,) = mesh_of(1, **{"state.history": path})
    with a.client() as client:
        jids = [next(iter(client.submit(pool="p", args=["sh", "-c", f"exit {i}"]))) for i in range(3)]
        client.wait_for(jids, timeout=15)
    a.stop()
    first, *lines = path.read_text().splitlines()
    assert first == '{"id": "torn'
    found = {info["id"]: info for info in map(json.loads, lines)}
    assert [found[jid]["rc"] for jid in jids] == [0, 1, 2]


def test_sigint_stops_a_node_as_well(mesh_of: MeshOf) -> None:
    (a,) = mesh_of(1)
    os.kill(a.pid, signal.SIGINT)
    a.wait_stopped()


def test_a_history_on_a_full_disk_is_no_reason_to_end(mesh_of: MeshOf) -> None:
    (a,) = mesh_of(1, **{"state.history": "/dev/full"})
    with a.client() as client:
        for _ in range(2):
            (jid,) = client.submit(pool="p", args=["true"])
            assert client.wait_for([jid], timeout=15)[jid]["state"] == "done"
    assert "the history can't be written" in a.stderr


def test_a_job_goes_elsewhere_only_when_a_dead_executor_s_processes_are_gone(mesh_of: MeshOf, tmp_path: Path) -> None:
    a, b = mesh_of(2)
    script = f"echo $$ >> {tmp_path}/pids; while :; do sleep 0.02; done"
    with a.client() as client:
        (jid,) = client.submit(pool="p", args=["sh", "-c", script], resubmit=True, retries=0, node="b")
        wait_until(lambda: (tmp_path / "pids").exists() and (tmp_path / "pids").read_text())
        first = int((tmp_path / "pids").read_text())
        client.submit(id=jid, tags=["seen"])
        os.kill(b.executor_pid(), signal.SIGKILL)
        wait_until(lambda: len((tmp_path / "pids").read_text().split()) == 2, 20)
        assert not is_running(first)
        client.kill(jid)
        client.wait_for([jid], timeout=15)
