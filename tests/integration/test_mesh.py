"""Several real nodes: they find each other, pass on what others can't hear, and bear the loss of one."""

from __future__ import annotations

import base64
import random
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from meeseeks import Client
from tests.chaos.proxy import Ports, Proxy, host
from tests.support.nodes import NodeProcess, wait_linked
from tests.support.ports import free_port, free_ports
from tests.support.wait import wait_until

MeshOf = Callable[..., list[NodeProcess]]


def table(node: NodeProcess) -> dict[str, dict[str, Any]]:
    """All jobs as a node sees them, without what is its own: the seq, and why a job waits."""
    with node.client() as client:
        return {
            jid: {key: value for key, value in info.items() if key not in ("seq", "reason")}
            for jid, info in client.query().items()
        }


def until_equal(nodes: list[NodeProcess], timeout: float = 15.0) -> dict[str, dict[str, Any]]:
    def equal() -> bool:
        tables = [table(node) for node in nodes]
        return all(one == tables[0] for one in tables)

    wait_until(equal, timeout, "equal tables")
    return table(nodes[0])


@pytest.mark.slow
def test_a_large_table_arrives_over_a_slow_link(tmp_path: Path) -> None:
    """One part of it is on its way for longer than anything else may take, and is not asked for again and again."""
    with ExitStack() as stack:
        a = NodeProcess(tmp_path, "a", {"discover": False, "pools.p.hold": True})
        stack.callback(a.stop)
        a.start()
        with a.client() as client:
            args = ["echo", random.Random(1).randbytes(1500).hex()]
            client.submit_many([{"id": f"j{number}", "pool": "p", "args": args} for number in range(1000)])
        ports = Ports(*free_ports(2))
        proxy = stack.enter_context(Proxy([ports, Ports(a.port, a.pub_port)]))
        proxy.slow(1, 0, 250_000.0)
        at_b = {"listen.port": ports.router, "listen.pub_port": ports.publisher, "pools.p.slots": None}
        b = NodeProcess(
            tmp_path, "b", {**at_b, "discover": False, "nodes.a.address": host(0, 1), "nodes.a.port": a.port}
        )
        stack.callback(b.stop)
        b.start()
        with b.client() as client:
            wait_until(lambda: len(client.ls()) == 1000, 45, lambda: f"more than {len(client.ls())} of 1,000 jobs")


@pytest.mark.parametrize("shape", ["full", "line", "cycle"])
def test_every_node_sees_every_job(mesh_of: MeshOf, shape: str) -> None:
    nodes = mesh_of(4, shape=shape)
    clients = [node.client() for node in nodes]
    jids = [next(iter(clients[i % 4].submit(pool="p", args=["echo", str(i)]))) for i in range(24)]
    for client in clients:
        found = client.wait_for(jids, timeout=20)
        assert {info["state"] for info in found.values()} == {"done"}
        client.close()
    jobs = until_equal(nodes)
    assert len(jobs) == 24
    assert {job["node"] for job in jobs.values()} == {"a", "b", "c", "d"}


def test_join_one_address_and_be_linked_to_all(mesh_of: MeshOf) -> None:
    nodes = mesh_of(4)
    with nodes[3].client() as client:
        seen = client.nodes()
    assert {name for name, status in seen.items() if status["online"]} == {"a", "b", "c", "d"}
    assert all(status["port"] for status in seen.values())


def test_every_node_is_shown_with_an_address_that_reaches_it_and_its_figures(mesh_of: MeshOf) -> None:
    nodes = mesh_of(2)
    for node in nodes:
        with node.client() as client:
            found = client.nodes()
        for other in nodes:
            shown = found[other.name]
            assert (shown["address"], shown["port"]) == (other.address, other.port)
            assert isinstance(shown["info"]["jobs"], int)


def test_output_is_fetched_along_a_line(mesh_of: MeshOf) -> None:
    a, _, _, d = mesh_of(4, shape="line")
    with a.client() as client:
        (jid,) = client.submit(pool="p", node="d", args=[sys.executable, "-c", "print('y' * 2_500_000)"])
        client.wait_for([jid], timeout=20)
        info = client.query(jid)
    assert info["node"] == "d"
    assert base64.b64decode(info["stdout_data"]) == b"y" * 2_500_000 + b"\n"


def test_kill_and_change_at_the_far_end_of_a_line(mesh_of: MeshOf) -> None:
    a, _, c = mesh_of(3, shape="line")
    with a.client() as near, c.client() as far:
        (jid,) = near.submit(pool="p", node="c", args=["sleep", "1000"], tags=["old"])
        wait_until(lambda: (far.query(jid) or {}).get("state") == "running")
        far.submit(id=jid, tags=["new"])
        wait_until(lambda: near.ls(tag="new") == [jid])
        assert near.kill(jid)["state"] == "killed"
        info = near.wait_for([jid], timeout=15)[jid]
    assert (info["state"], info["active"]) == ("killed", False)


def test_a_job_for_every_node_that_matches(mesh_of: MeshOf) -> None:
    nodes = mesh_of(3)
    with nodes[0].client() as client:
        jobs = client.submit(id="all", pool="p", node="*", args=["true"])
        assert {info["node"] for info in jobs.values()} == {"a", "b", "c"}
        assert client.submit(id="all", pool="p", node="*", args=["true"]).keys() == jobs.keys()
        two = client.submit(pool="p", node=["a", "c"], args=["true"])
        assert {info["node"] for info in two.values()} == {"a", "c"}
        ended = client.wait_for([*jobs, *two], timeout=15)
    assert all(info["state"] == "done" for info in ended.values())
    assert len(ended) == 5


def test_move_a_job(mesh_of: MeshOf, tmp_path: Path) -> None:
    nodes = mesh_of(2)
    with nodes[0].client() as client:
        (jid,) = client.submit(pool="p", node="a", args=["sh", "-c", "sleep 1000"])
        wait_until(lambda: client.query(jid)["state"] == "running")
        client.kill(jid)
        client.wait_for([jid], timeout=15)
        client.submit(id=jid, node="b", state="new", args=["true"])
        info = wait_until(lambda: (found := client.query(jid))["state"] == "done" and found)
    assert (info["node"], info["start_count"]) == ("b", 1)
    assert until_equal(nodes)[jid]["node"] == "b"


def test_the_most_free_slots_win(mesh_of: MeshOf) -> None:
    nodes = mesh_of(3, per_node={"b": {"pools.p.slots": 8}})
    with nodes[0].client() as client:
        jobs = [next(iter(client.submit(pool="p", args=["sleep", "1000"]))) for _ in range(6)]
        placed = [wait_until(lambda jid=jid: client.query(jid)["node"]) for jid in jobs]
        assert placed == ["b"] * 6
        wait_until(lambda: client.pools()["p"] == {"a": 2, "b": 2, "c": 2})
        client.kill(jobs)
        client.wait_for(jobs, timeout=15)


def test_a_name_that_is_taken_is_refused(mesh_of: MeshOf, tmp_path: Path) -> None:
    (a,) = mesh_of(1)
    twin = subprocess.run(
        [
            *(sys.executable, "-m", "meeseeks.node", "name=a", "listen.address=127.0.0.1", "listen.port=0"),
            *(f"state.dir={tmp_path / 'twin'}", "heartbeat=0.2", "--join", a.endpoint),
        ],
        capture_output=True,
        text=True,
        timeout=40,
    )
    assert twin.returncode == 1
    assert "a node named 'a' already" in twin.stderr.splitlines()[-1]
    with a.client() as client:
        assert list(client.nodes()) == ["a"]


def test_a_folder_that_is_in_use_is_refused(mesh_of: MeshOf) -> None:
    (a,) = mesh_of(1)
    other = subprocess.run(
        [sys.executable, "-m", "meeseeks.node", "name=b", "listen.port=0", f"state.dir={a.config['state.dir']}"],
        capture_output=True,
        text=True,
        timeout=40,
    )
    assert other.returncode == 1
    assert "in use by another node" in other.stderr


def test_a_folder_of_another_node_is_refused(mesh_of: MeshOf) -> None:
    """Under another name a node would end the jobs that outlived the one before."""
    (a,) = mesh_of(1)
    a.stop()
    other = subprocess.run(
        [sys.executable, "-m", "meeseeks.node", "name=b", "listen.port=0", f"state.dir={a.config['state.dir']}"],
        capture_output=True,
        text=True,
        timeout=40,
    )
    assert (other.returncode, other.stderr.count("\n")) == (1, 1)
    assert "is of node 'a', and this is node 'b': start it with name=a" in other.stderr
    a.start()


def test_a_history_that_can_t_be_written_is_all_that_is_said(tmp_path: Path) -> None:
    settings = ["name=a", "listen.port=0", f"state.dir={tmp_path / 'state'}", f"state.history={tmp_path}"]
    node = subprocess.run(
        [sys.executable, "-m", "meeseeks.node", *settings], capture_output=True, text=True, timeout=40
    )
    assert (node.returncode, node.stderr) == (
        1,
        f"mks node: state.history {tmp_path} can't be written: Is a directory\n",
    )


def test_a_node_that_restarts_learns_everything_again(mesh_of: MeshOf) -> None:
    a, b = mesh_of(2)
    with a.client() as client:
        jids = [next(iter(client.submit(pool="p", args=["true"]))) for _ in range(10)]
        client.wait_for(jids, timeout=15)
    b.stop()
    with a.client() as client:
        wait_until(lambda: not client.nodes()["b"]["online"])
        assert client.nodes()["b"]["state"] == "left"
    b.restart()
    wait_linked([a, b])
    assert until_equal([a, b]).keys() == set(jids)


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_node_that_comes_back_with_another_pub_port_is_linked_again(mesh_of: MeshOf, is_killed: bool) -> None:
    """It knows nobody: those who were told of it look whether it is there."""
    a, b = mesh_of(2)
    if is_killed:
        a.kill()
    else:
        a.stop()
    a.config["listen.pub_port"] = free_port()
    a.start()
    wait_linked([a, b])
    with a.client() as client, b.client() as other:
        (jid,) = client.submit(pool="p", node="b", args=["true"])
        assert other.wait_for(jid, 15)[jid]["state"] == "done"


def test_who_joins_a_node_that_is_not_there_is_told_so(tmp_path: Path) -> None:
    node = NodeProcess(tmp_path, "a", join=f"127.0.0.1:{free_port()}")
    try:
        node.start()
        wait_until(lambda: f"can't link to {node.join}: no node answers there yet" in node.stderr, 20)
    finally:
        node.kill()
        node.sweep()


def test_a_killed_node_is_lost_and_its_jobs_are_judged(mesh_of: MeshOf) -> None:
    a, b = mesh_of(2, per_node={"a": {"pools.p.slots": None, "pools.q.slots": 2}})
    with a.client() as client:
        (once,) = client.submit(pool="p", args=["sleep", "1000"])
        wait_until(lambda: client.query(once)["state"] == "running")
        b.kill()
        assert wait_until(lambda: client.nodes()["b"]["state"] == "offline", 10)
        info = wait_until(lambda: (found := client.query(once))["state"] == "failed" and found, 20)
    assert (info["error"], info["active"]) == ("node b lost", False)


def test_a_lost_node_that_was_only_frozen_refutes_it(mesh_of: MeshOf) -> None:
    a, b = mesh_of(2, per_node={"a": {"pools.p.slots": None, "pools.q.slots": 2}})
    with a.client() as client:
        (jid,) = client.submit(pool="p", args=["sleep", "1000"])
        wait_until(lambda: client.query(jid)["state"] == "running")
        b.freeze()
        wait_until(lambda: client.query(jid)["state"] == "failed", 20)
        b.thaw()
        info = wait_until(lambda: (found := client.query(jid))["state"] == "running" and found, 15)
        assert (info["active"], info["error"], info["start_count"]) == (True, None, 1)
        client.kill(jid)
        assert client.wait_for([jid], timeout=15)[jid]["state"] == "killed"


def test_a_job_with_retries_moves_on_when_its_node_is_lost(mesh_of: MeshOf, tmp_path: Path) -> None:
    a, b, c = mesh_of(3, per_node={"a": {"pools.p.slots": None, "pools.q.slots": 2}})
    with a.client() as client:
        (jid,) = client.submit(
            pool="p", args=["sh", "-c", "echo x >> marks; exec sleep 1000"], retries=1, config={"cwd": str(tmp_path)}
        )
        info = wait_until(lambda: (found := client.query(jid))["state"] == "running" and found)
        first = {"b": b, "c": c}[info["node"]]
        wait_until(lambda: (tmp_path / "marks").exists() and (tmp_path / "marks").read_text() == "x\n")
        first.kill()
        first.sweep()
        info = wait_until(
            lambda: (found := client.query(jid))["state"] == "running" and found["node"] != first.name and found, 30
        )
        assert (info["start_count"], info["fail_count"]) == (2, 1)
        client.kill(jid)
        client.wait_for([jid], timeout=15)
    assert (tmp_path / "marks").read_text() == "x\nx\n"


def test_a_client_with_a_cache_hears_of_a_change_anywhere(mesh_of: MeshOf) -> None:
    a, _, c = mesh_of(3, shape="line")
    with Client(a.address, a.port, refresh=0.5) as watcher, c.client() as other:
        (jid,) = other.submit(pool="p", args=["true"])
        info = wait_until(lambda: (found := watcher.get_job(jid)) and found["state"] == "done" and found)
    assert info["rc"] == 0
