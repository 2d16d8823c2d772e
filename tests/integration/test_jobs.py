"""Jobs on real nodes: how they start, how they end, and what their users may do with them meanwhile."""

from __future__ import annotations

import base64
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from meeseeks import Client, InvalidRequest, RequestFailed
from tests.support.nodes import NodeProcess, mesh
from tests.support.wait import wait_until

PYTHON = sys.executable


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    with mesh(tmp_path_factory.mktemp("jobs"), 1, **{"pools.p.slots": 4, "pools.p.grace": 0.5}) as (only,):
        yield only


@pytest.fixture
def client(node: NodeProcess) -> Iterator[Client]:
    with node.client() as one:
        yield one


def submit(client: Client, *args: str, **spec: Any) -> str:
    (jid,) = client.submit(pool=spec.pop("pool", "p"), args=list(args), **spec)
    return jid


def ended(client: Client, jid: str, timeout: float = 15.0) -> dict[str, Any]:
    return client.wait_for([jid], timeout=timeout)[jid]


def until_state(client: Client, jid: str, state: str) -> dict[str, Any]:
    return wait_until(lambda: (info := client.query(jid))["state"] == state and info, 15, lambda: client.query(jid))


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def pids_from(path: Path, count: int) -> list[int]:
    def found() -> list[int]:
        words = path.read_text().split() if path.exists() else []
        return [int(word) for word in words] if len(words) == count else []

    return wait_until(found)


@pytest.mark.parametrize(("command", "state", "rc"), [("exit 0", "done", 0), ("exit 7", "failed", 7)])
def test_exit_codes(client: Client, command: str, state: str, rc: int) -> None:
    info = ended(client, submit(client, "sh", "-c", command))
    assert (info["state"], info["rc"], info["active"], info["start_count"]) == (state, rc, False, 1)
    assert info["submit_ts"] <= info["start_ts"] <= info["end_ts"] <= info["ts"] + 1e-6


def test_a_signal_is_told_by_name(client: Client) -> None:
    info = ended(client, submit(client, "sh", "-c", "kill -SEGV $$"))
    assert (info["state"], info["rc"]) == ("failed", -signal.SIGSEGV)
    assert "SIGSEGV" in info["error"]


def test_a_command_that_does_not_exist_fails_with_the_reason(client: Client) -> None:
    info = ended(client, submit(client, "/no/such/command"))
    assert (info["state"], info["rc"]) == ("failed", None)
    assert "/no/such/command" in info["error"]
    assert "No such file" in info["error"]


def test_output_and_environment(client: Client, node: NodeProcess) -> None:
    script = "printf 'out\\0\\377'; echo err >&2; env | grep ^MEESEEKS_ | sort"
    info = ended(client, submit(client, "sh", "-c", script, tags=["x", "y"], id="env-1"))
    lines = base64.b64decode(info["stdout_data"])
    assert lines.startswith(b"out\0\xff")
    seen = dict(line.split("=", 1) for line in lines[5:].decode().splitlines())
    assert seen["MEESEEKS_JOB_ID"] == "env-1"
    assert seen["MEESEEKS_POOL"] == "p"
    assert seen["MEESEEKS_NODE"] == seen["MEESEEKS_SUBMIT_NODE"] == node.name
    assert seen["MEESEEKS_TAGS"] == "x,y"
    assert base64.b64decode(info["stderr_data"]) == b"err\n"


def test_paths_for_all_three_streams(client: Client, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("hello")
    jid = submit(
        client,
        "sh",
        "-c",
        "cat; echo oops >&2",
        stdin=str(tmp_path / "in"),
        stdout=str(tmp_path / "out"),
        stderr=str(tmp_path / "err"),
    )
    info = ended(client, jid)
    assert (info["stdout_data"], info["stderr_data"]) == (None, None)
    assert (tmp_path / "out").read_text() == "hello"
    assert (tmp_path / "err").read_text() == "oops\n"


def test_popen_arguments_in_config(client: Client, tmp_path: Path) -> None:
    info = ended(client, submit(client, "pwd", config={"cwd": str(tmp_path)}))
    assert base64.b64decode(info["stdout_data"]).decode().strip() == str(tmp_path)
    info = ended(client, submit(client, "echo $A", config={"shell": True, "env": {"A": "b"}}))
    assert base64.b64decode(info["stdout_data"]) == b"b\n"


def test_output_longer_than_inline_comes_with_the_query(client: Client) -> None:
    info = ended(client, submit(client, PYTHON, "-c", "print('x' * 3_000_000)"))
    assert info["stdout_size"] == 3_000_001
    full = client.query(info["id"])
    assert base64.b64decode(full["stdout_data"]) == b"x" * 3_000_000 + b"\n"
    assert base64.b64decode(full["stderr_data"]) == b""


def test_output_that_is_too_long_for_a_query_is_no_silence(client: Client) -> None:
    info = ended(client, submit(client, "sh", "-c", "head -c 17000000 /dev/zero; head -c 5000 /dev/zero >&2"))
    full = client.query(info["id"])
    assert (full["stdout_data"], full["stdout_size"]) == (None, 17_000_000)
    assert full["output_error"] == "17000000 bytes of stdout are more than a query brings: follow it with mks logs"
    assert base64.b64decode(full["stderr_data"]) == bytes(5000)


def test_runtime_ends_a_job_as_failed(client: Client) -> None:
    info = ended(client, submit(client, "sleep", "60", runtime=0.3))
    assert (info["state"], info["active"]) == ("failed", False)
    assert "runtime" in info["error"]


def test_kill_leaves_no_process_of_the_tree(client: Client, tmp_path: Path) -> None:
    script = (
        "import os, signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "kids = [subprocess.Popen(['sleep', '1000']),\n"
        "        subprocess.Popen(['sh', '-c', 'trap \"\" TERM; sleep 1000 & wait; sleep 1000']),\n"
        "        subprocess.Popen(['sleep', '1000'], process_group=0)]\n"
        "daemon = subprocess.run(['sh', '-c', 'setsid sleep 1000 >/dev/null 2>&1 & echo $!'], stdout=subprocess.PIPE)\n"
        f"open({str(tmp_path / 'tmp')!r}, 'w').write(f'{{os.getpid()}} ' + ' '.join(str(k.pid) for k in kids)"
        " + ' ' + daemon.stdout.decode())\n"
        f"os.rename({str(tmp_path / 'tmp')!r}, {str(tmp_path / 'pids')!r})\n"
        "time.sleep(1000)\n"
    )
    jid = submit(client, PYTHON, "-c", script)
    pids = pids_from(tmp_path / "pids", 5)
    info = client.kill(jid)
    assert info["state"] == "killed"
    info = ended(client, jid)
    assert (info["state"], info["active"]) == ("killed", False)
    assert not [pid for pid in pids if alive(pid)]


def test_a_killed_job_is_active_until_its_tree_is_gone(client: Client, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    jid = submit(client, "sh", "-c", f"trap '' TERM; echo $$ > {ready}; while :; do sleep 0.1; done")
    (pid,) = pids_from(ready, 1)
    info = client.kill(jid)
    assert (info["state"], info["active"]) == ("killed", True)
    assert ended(client, jid)["active"] is False
    assert not alive(pid)


def test_kill_of_a_held_job_and_of_an_ended_one(client: Client) -> None:
    held = submit(client, "true", hold=True)
    wait_until(lambda: client.query(held)["active"])
    client.kill(held)
    assert ended(client, held)["start_count"] == 0
    done = submit(client, "true")
    ended(client, done)
    assert client.kill(done)["state"] == "done"


def test_unknown_ids_are_false(client: Client) -> None:
    assert client.query("nobody") is False
    assert client.kill("nobody") is False
    assert client.query(["nobody"]) == {}
    assert client.kill(["nobody"]) == {}


def test_hold_then_release(client: Client) -> None:
    jid = submit(client, "true", hold=True)
    info = wait_until(lambda: (found := client.query(jid))["active"] and found)
    assert info["state"] == "new"
    client.submit(id=jid, hold=False)
    assert ended(client, jid)["state"] == "done"


def test_retries_then_failed(client: Client) -> None:
    info = ended(client, submit(client, "false", retries=2))
    assert (info["state"], info["start_count"], info["fail_count"]) == ("failed", 3, 3)


def test_retries_stop_at_the_first_success(client: Client, tmp_path: Path) -> None:
    script = f"test -e {tmp_path}/seen || {{ touch {tmp_path}/seen; exit 1; }}"
    info = ended(client, submit(client, "sh", "-c", script, retries=5))
    assert (info["state"], info["start_count"], info["fail_count"]) == ("done", 2, 1)


def test_long_output_of_a_run_is_there_until_the_next_one_starts(client: Client) -> None:
    jid = submit(client, "seq", "1", "5000", resubmit=True)
    wait_until(lambda: (info := client.query(jid))["start_count"] and info["state"] == "new", 15)
    client.kill(jid)  # between two runs: it was given away again, or is about to be
    ended(client, jid)
    info = client.query(jid)
    assert base64.b64decode(info["stdout_data"]).endswith(b"4999\n5000\n")
    assert len(base64.b64decode(info["stdout_data"])) == info["stdout_size"]


def test_output_of_which_a_part_is_gone_is_not_handed_out_as_whole(client: Client, node: NodeProcess) -> None:
    jid = submit(client, "seq", "1", "5000")
    ended(client, jid)
    (file,) = [path for path in (node.folder / "state" / "spool").rglob("*.out") if path.name.startswith(jid)]
    os.truncate(file, 100)
    info = client.query(jid)
    assert info["stdout_data"] is None
    gone = f"only 100 of {info['stdout_size']} bytes of the stdout of job {jid!r} are there"
    assert info["output_error"].startswith(gone)
    with pytest.raises(RequestFailed, match=gone):  # as it reads for who follows it, and would take it for all
        client.request({"output": {"id": jid, "stream": "stdout", "offset": 0}})


@pytest.mark.parametrize("key", ["restart", "resubmit"])
def test_a_job_that_runs_again_and_again_until_it_is_killed(client: Client, key: str) -> None:
    jid = submit(client, "true", **{key: True})
    wait_until(lambda: client.query(jid)["start_count"] >= 3)
    client.kill(jid)
    count = wait_until(lambda: (info := client.query(jid))["state"] == "killed" and not info["active"] and info)
    assert client.query(jid)["start_count"] == count["start_count"]


def test_state_new_runs_a_finished_job_again(client: Client, tmp_path: Path) -> None:
    jid = submit(client, "sh", "-c", f"echo run >> {tmp_path}/runs; exit 3")
    assert ended(client, jid)["rc"] == 3
    client.submit(id=jid, state="new", args=["sh", "-c", f"echo run >> {tmp_path}/runs"])
    info = wait_until(lambda: (found := client.query(jid))["state"] == "done" and found)
    assert (info["start_count"], info["fail_count"], info["generation"]) == (1, 0, 2)
    assert (tmp_path / "runs").read_text() == "run\nrun\n"


def test_an_identical_submit_changes_nothing_and_a_different_one_changes_the_job(client: Client) -> None:
    spec = {"id": "twice", "pool": "p", "args": ["true"], "tags": ["a"], "hold": True}
    client.submit(**spec)
    wait_until(lambda: client.query("twice")["active"])
    before = client.query("twice")
    assert client.submit(**spec)["twice"]["seq"] == before["seq"]
    after = client.submit(**{**spec, "tags": ["b"]})["twice"]
    assert (after["tags"], after["start_count"]) == (["b"], 0)
    assert client.ls(tag="b") == ["twice"]
    client.kill("twice")


@pytest.mark.parametrize(
    ("change", "word"), [({"pool": "q"}, "pool"), ({"node": "other"}, "node"), ({"state": "new"}, "state")]
)
def test_an_active_job_is_not_moved(client: Client, change: dict[str, str], word: str) -> None:
    jid = submit(client, "sleep", "1000")
    before = until_state(client, jid, "running")
    with pytest.raises(InvalidRequest, match=f"active.*kill it first.*{word}"):
        client.submit(id=jid, **change)
    assert client.query(jid) == before
    client.kill(jid)
    ended(client, jid)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"args": ["true"]}, ["pool"]),
        ({"pool": "p", "args": []}, ["args"]),
        ({"pool": "p", "args": "true"}, ["args", "list"]),
        ({"pool": "p", "args": ["echo", 3]}, ["args[1]", "3"]),
        ({"pool": "p", "args": ["true"], "polo": 1}, ["polo", "pool"]),
        ({"pool": "p", "args": ["true"], "runtime": -1}, ["runtime", "-1"]),
        ({"pool": "p", "args": ["true"], "runtime": "5"}, ["runtime", "'5'"]),
        ({"pool": "p", "args": ["true"], "retries": 1.5}, ["retries", "1.5"]),
        ({"pool": "p", "args": ["true"], "retries": -1}, ["retries", "-1"]),
        ({"pool": "p", "args": ["true"], "tags": "x"}, ["tags", "x"]),
        ({"pool": "p", "args": ["true"], "config": []}, ["config"]),
        ({"pool": "p", "args": ["true"], "config": {"cdw": "/"}}, ["cdw", "cwd"]),
        ({"pool": "p", "args": ["true"], "state": "running"}, ["state", "running", "new"]),
        ({"pool": "p", "args": ["true"], "node": "zz*"}, ["zz*", "p"]),
    ],
)
def test_what_is_wrong_is_refused_in_one_sentence_and_changes_nothing(
    client: Client, spec: dict[str, Any], words: list[str]
) -> None:
    before = sorted(client.ls())
    with pytest.raises(InvalidRequest) as caught:
        client.request({"submit": spec})
    assert isinstance(caught.value, ValueError)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sorted(client.ls()) == before


def test_submit_many_is_all_or_nothing(client: Client) -> None:
    good = {"id": "many-1", "pool": "p", "args": ["true"]}
    with pytest.raises(InvalidRequest, match="args"):
        client.request({"submit_many": [good, {"pool": "p", "args": []}]})
    assert client.query("many-1") is False


def test_a_job_of_another_pool_waits_with_a_reason(client: Client) -> None:
    jid = submit(client, "true", pool="nowhere")
    assert "no online node has pool 'nowhere'" in client.query(jid)["reason"]
    client.submit(id=jid, pool="p")
    assert ended(client, jid)["state"] == "done"


def test_the_executor_dies_and_its_jobs_with_it(client: Client, node: NodeProcess, tmp_path: Path) -> None:
    script = f"echo $$ >> {tmp_path}/pids; exec sleep 1000"
    once = submit(client, "sh", "-c", script)
    until_state(client, once, "running")
    (pid,) = pids_from(tmp_path / "pids", 1)
    again = submit(
        client, "sh", "-c", f"test -e {tmp_path}/second || {{ touch {tmp_path}/second; exec sleep 999; }}", retries=1
    )
    wait_until((tmp_path / "second").exists)
    until_state(client, again, "running")
    os.kill(node.executor_pid(), signal.SIGKILL)
    info = ended(client, once)
    assert (info["state"], info["error"]) == ("failed", "executor lost")
    info = ended(client, again)
    assert (info["state"], info["start_count"], info["fail_count"]) == ("done", 2, 1)
    wait_until(lambda: not alive(pid))


def test_too_many_jobspecs_in_one_request_are_refused_and_none_is_taken(mesh_of):
    (a,) = mesh_of(1)
    with a.client() as client:
        with pytest.raises(InvalidRequest, match=r"submit_many takes up to 2000 jobspecs a request, not 2001"):
            client.request({"submit_many": [{"id": f"{i}", "pool": "p", "args": ["true"]} for i in range(2001)]})
        assert client.ls() == []
