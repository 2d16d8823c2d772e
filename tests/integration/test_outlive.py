"""What is acknowledged survives its node, and jobs outlive it: real nodes with a store, killed without a warning."""

from __future__ import annotations

import base64
import json
import os
import signal
import uuid
from pathlib import Path

import pytest

from meeseeks import Client, InvalidRequest, MeeseeksError
from tests.support.nodes import NodeProcess, mesh
from tests.support.processes import is_running
from tests.support.wait import wait_until

STORED = {"state.sync": "acks", "pools.p.slots": 4}


@pytest.fixture
def nodes(tmp_path: Path):
    with mesh(tmp_path, 2, **STORED) as two:
        yield two


@pytest.fixture
def nodes_anywhere(tmp_path: Path):
    """On ports that the kernel chose, as `listen.port=0` wants it."""
    with mesh(tmp_path, 2, **{**STORED, "listen.port": 0}) as two:
        yield two


def come_back(node: NodeProcess) -> NodeProcess:
    node.kill()
    return node.restart()


def ended(client: Client, jid: str) -> dict:
    def info_of_end() -> dict | bool:
        info = client.query(jid)
        return info and not info["active"] and info["state"] != "new" and info

    return wait_until(info_of_end, 30)


def starts(mark: Path) -> int:
    return len(mark.read_text().splitlines()) if mark.exists() else 0


def test_a_job_survives_three_kills_of_its_node(nodes, tmp_path):
    a, _ = nodes
    mark, go, said = tmp_path / "mark", tmp_path / "go", tmp_path / "said"
    line = f"i=$((i+1)); echo $i; echo $i >> {said}"
    script = f"echo start >> {mark}; i=0; while [ ! -e {go} ]; do {line}; sleep 0.05; done; exit 5"
    with a.client() as client:
        client.submit(id="long", pool="p", node="a", args=["sh", "-c", script])
        wait_until(lambda: client.query("long")["state"] == "running", 20)
    for _ in range(3):
        come_back(a)
        with a.client() as client:
            assert client.query("long")["state"] == "running"
    go.touch()
    with a.client() as client:
        info = ended(client, "long")
        assert (info["state"], info["rc"], info["start_count"], info["error"]) == ("failed", 5, 1, None)
        assert base64.b64decode(info["stdout_data"]) == said.read_bytes() != b""
    assert starts(mark) == 1


def test_an_end_that_no_node_saw_is_told_to_the_next(nodes, tmp_path):
    a, b = nodes
    go, over = tmp_path / "go", tmp_path / "over"
    script = f"while [ ! -e {go} ]; do sleep 0.05; done; echo out; touch {over}; exit 3"
    with a.client() as client, b.client() as other:
        client.submit(id="j", pool="p", node="a", args=["sh", "-c", script])
        wait_until(lambda: other.query("j") and other.query("j")["state"] == "running", 20)
    a.kill()
    go.touch()
    wait_until(over.exists, 20)
    a.restart()
    with b.client() as other:
        info = ended(other, "j")
    assert (info["state"], info["rc"], info["stdout_data"]) == ("failed", 3, base64.b64encode(b"out\n").decode())


def test_a_kill_and_a_change_while_the_node_is_down_are_obeyed(nodes):
    a, b = nodes
    with a.client() as client, b.client() as other:
        client.submit(id="k", pool="p", node="a", args=["sleep", "600"])
        client.submit(id="c", pool="p", node="a", hold=True, args=["true"])
        for jid, state in (("k", "running"), ("c", "new")):
            wait_until(lambda jid=jid, state=state: other.query(jid) and other.query(jid)["state"] == state, 20)
    a.kill()
    with b.client() as other:
        other.kill("k")
        other.submit(id="c", hold=False)
    a.restart()
    with a.client() as client:
        assert ended(client, "k")["state"] == "killed"
        assert ended(client, "c")["state"] == "done"


def test_what_was_answered_is_there_after_a_kill_right_after_the_answer(tmp_path):
    with mesh(tmp_path, 1, **{**STORED, "pools.p.hold": True}) as (node,):
        for _ in range(10):
            with node.client() as client:
                jid = next(iter(client.submit(pool="p", args=["true"])))
            come_back(node)
            with node.client() as client:
                assert client.query(jid)["state"] == "new"
                assert len(client.ls()) == _ + 1


def test_sighup_replaces_the_program_and_leaves_its_jobs_and_ports(nodes_anywhere, tmp_path):
    a, b = nodes_anywhere
    mark = tmp_path / "mark"
    with b.client() as other:
        other.submit(id="j", pool="p", node="a", args=["sh", "-c", f"echo x >> {mark}; sleep 3; echo end"])
        wait_until(lambda: other.query("j")["state"] == "running", 20)
        executor = a.executor_pid()
        os.kill(a.pid, signal.SIGHUP)
        wait_until(lambda: a.stderr.count("listens on") == 2, 20, a.report)
        assert a.stderr.count(f"listens on 127.0.0.1:{a.port} (pub {a.pub_port})") == 2
        assert a.executor_pid() == executor
        info = ended(other, "j")
        assert (info["state"], info["start_count"]) == ("done", 1)
    assert starts(mark) == 1
    os.kill(executor, signal.SIGKILL)  # it is still a child of the program that took its node's place
    wait_until(lambda: not Path(f"/proc/{executor}").exists(), 20, "the executor to be reaped")


def test_an_executor_that_is_killed_takes_its_jobs_with_it_and_retries_follow(nodes, tmp_path):
    a, _ = nodes
    begun = tmp_path / "begun"
    long_once = f"mkdir {begun} && exec sleep 600; true"
    with a.client() as client:
        client.submit(id="once", pool="p", node="a", args=["sleep", "600"])
        client.submit(id="again", pool="p", node="a", retries=1, args=["sh", "-c", long_once])
        wait_until(lambda: {info["state"] for info in client.query(["once", "again"]).values()} == {"running"}, 20)
        wait_until(begun.exists, 20)
        pid = client.query("once")["pid"]
        os.kill(a.executor_pid(), signal.SIGKILL)
        info = ended(client, "once")
        assert (info["state"], info["error"]) == ("failed", "executor lost")
        wait_until(lambda: not Path(f"/proc/{pid}").exists(), 20)
        assert ended(client, "again")["state"] == "done"


def test_jobs_and_their_output_expire_on_disk_too(tmp_path):
    with mesh(tmp_path, 1, **{**STORED, "state.expire": 1.0, "state.inline_output": 0}) as (node,):
        with node.client() as client:
            client.submit(id="j", pool="p", args=["echo", "out"])
            wait_until(lambda: client.query("j") is False, 30)
        spool = node.folder / "state" / "spool"
        wait_until(lambda: not [path for path in spool.rglob("*") if path.is_file()], 10)
        come_back(node)
        with node.client() as client:
            assert client.query("j") is False


def test_a_job_of_an_earlier_life_is_known_by_what_it_was(tmp_path):
    with mesh(tmp_path, 1, **STORED) as (node,):
        with node.client() as client:
            client.submit(id="j", pool="p", tags=["x"], args=["sh", "-c", "echo hello"])
            before = ended(client, "j")
        node.stop()
        node.restart()
        with node.client() as client:
            after = client.query(tag="x")["j"]
            assert {**after, "seq": 0} == {**before, "seq": 0}
            with pytest.raises(InvalidRequest, match="needs"):
                client.submit(id=uuid.uuid4().hex, pool="p")


def test_a_full_disk_refuses_submits_and_lets_jobs_go_on(full_disk):
    with mesh(full_disk, 1, **STORED) as (node,), node.client() as client:
        client.submit(id="runs", pool="p", args=["sleep", "2"], stdout="/dev/null", stderr="/dev/null")
        wait_until(lambda: client.query("runs")["state"] == "running", 20)
        filler = full_disk / "filler"
        with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
            while True:
                file.write(b"x" * 65536)
                file.flush()

        def refused() -> MeeseeksError | None:
            try:
                client.submit(pool="p", args=["x" * 50_000], hold=True)
            except MeeseeksError as error:
                return error
            return None

        error = wait_until(refused, 30)
        assert "no room left" in str(error)
        before = set(client.ls())
        with pytest.raises(MeeseeksError, match="no room left"):
            client.submit(id="no", pool="p", args=["true"])
        assert set(client.ls()) == before
        assert client.query("no") is False
        assert ended(client, "runs")["state"] == "done"
        filler.unlink()
        wait_until(lambda: _taken(client), 20)
        node.kill()
        node.restart()
        with node.client() as again:
            assert set(again.ls()) >= before | {"yes"}
            assert again.query("runs")["state"] == "done"


def _taken(client: Client) -> bool:
    try:
        client.submit(id="yes", pool="p", args=["true"])
    except MeeseeksError:
        return False
    return True


def test_signals_while_the_program_is_replaced_wait_for_the_next_one(nodes, tmp_path):
    a, _ = nodes
    go = tmp_path / "go"
    with a.client(timeout=30) as client:
        client.submit(id="j", pool="p", node="a", args=["sh", "-c", f"while [ ! -e {go} ]; do sleep 0.05; done"])
        wait_until(lambda: client.query("j")["state"] == "running", 20)
        executor = a.executor_pid()
        lives = a.stderr.count("listens on")
        for _ in range(60):  # at any moment of its start: each is obeyed now or when it is up
            os.kill(a.pid, signal.SIGHUP)
            with pytest.raises(AssertionError, match="waited"):
                wait_until(lambda: not a.running, 0.02)
        wait_until(lambda: a.stderr.count("listens on") > lives, 20, a.report)
        assert (client.query("j")["state"], a.executor_pid()) == ("running", executor)
        go.touch()
        assert ended(client, "j")["start_count"] == 1


def test_a_stop_right_after_sighup_ends_the_node_and_its_jobs(nodes):
    a, b = nodes
    with b.client() as other:
        for number in range(5):
            other.submit(id=f"j{number}", pool="p", node="a", args=["sleep", "600"])
            wait_until(lambda number=number: other.query(f"j{number}")["state"] == "running", 20)
            pid = other.query(f"j{number}")["pid"]
            os.kill(a.pid, signal.SIGHUP)
            with pytest.raises(AssertionError, match="waited"):
                wait_until(lambda: not a.running, 0.05 * number)
            a.stop()
            assert not Path(f"/proc/{pid}").exists()
            a.restart()
            wait_until(lambda number=number: other.query(f"j{number}")["error"] == "node a stopped", 20)


def fill(folder: Path) -> Path:
    """To the last byte; returns what to unlink for room."""
    filler = folder / "filler"
    with filler.open("ab", buffering=0) as file:
        for size in (65536, 4096, 1):
            with pytest.raises(OSError, match="No space"):
                while True:
                    file.write(b"x" * size)
    return filler


def lines_of(path: Path) -> list[str]:
    return [json.loads(line)["id"] for line in path.read_text().splitlines()]


@pytest.mark.parametrize("end", ["stopped", "killed"])
def test_what_ended_on_a_full_disk_is_known_to_the_next_life_and_once_in_the_history(full_disk, tmp_path, end):
    """Jobs end while nothing can be stored; the node ends, and starts on the disk that is still full."""
    history = full_disk / "history"
    config = {**STORED, "state.dir": full_disk / "state", "state.history": history, "pools.p.slots": 0}
    with mesh(tmp_path, 1, **config) as (node,):
        node.options["timeout"] = 30
        go = full_disk / "go"
        script = f"while [ ! -e {go} ]; do sleep 0.05; done; exit 3"
        specs = [{"id": f"j{number}", "pool": "p", "args": ["sh", "-c", script]} for number in range(40)]
        with node.client() as client:
            client.submit_many(specs)
            client.submit(id="sleeps", pool="p", args=["sleep", "600"])
            wait_until(lambda: len(client.ls(state="running")) == 41, 30)
            filler = fill(full_disk)
            go.touch()
            wait_until(lambda: client.ls(state="running") == ["sleeps"], 30)
            fill(full_disk)
        executor = node.executor_pid()
        if end == "stopped":
            node.stop()
        else:
            node.kill()
        assert is_running(executor)
        node.restart()
        with node.client() as client:
            with pytest.raises(MeeseeksError, match="no room left"):
                client.submit(id="no", pool="p", args=["true"])
            filler.unlink()
            wait_until(lambda: _taken(client), 30)
            for number in range(40):
                info = ended(client, f"j{number}")
                assert (info["state"], info["rc"], info["start_count"]) == ("failed", 3, 1)
            client.kill("sleeps")
            info = ended(client, "sleeps")
            assert (info["state"], info["error"]) == (
                ("failed", "node a stopped") if end == "stopped" else ("killed", "killed")
            )
            assert ended(client, "yes")["state"] == "done"
            wanted = sorted([*(spec["id"] for spec in specs), "sleeps", "yes"])
            wait_until(lambda: sorted(lines_of(history)) == wanted, 20, lambda: lines_of(history))
        node.kill()
        node.restart()
        with node.client() as client:
            assert {info["state"] for info in client.query([spec["id"] for spec in specs]).values()} == {"failed"}


def test_what_a_node_had_just_started_when_all_of_it_was_killed_is_not_started_again(tmp_path):
    """Found by tools/chaos, seed 7001: the node had no time to store that its executor had started it."""
    with mesh(tmp_path, 1, **STORED) as (node,):
        for number in range(3):
            mark = tmp_path / f"mark{number}"
            executor = node.executor_pid()
            with node.client() as client:
                client.submit(id=f"first{number}", pool="p", args=["true"])
                ended(client, f"first{number}")  # so the executor is there, and takes the next one at once
                client.submit(id=f"j{number}", pool="p", args=["sh", "-c", f"echo start >> {mark}; exec sleep 600"])
                node.freeze()
                wait_until(mark.exists, 20)
            os.kill(executor, signal.SIGKILL)
            node.kill()
            node.restart()
            with node.client() as client:
                info = ended(client, f"j{number}")
            assert (info["state"], info["error"], info["start_count"]) == ("failed", "executor lost", 1)
            assert starts(mark) == 1
