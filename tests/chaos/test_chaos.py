"""A minute of tools/chaos, and that it would notice: its proxy, its marks and its verdict on what is surely wrong."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.ports import free_ports
from tests.support.processes import is_running
from tests.support.wait import wait_until

from . import power
from .answered import answered_and_killed
from .campaign import Campaign, Options
from .faults import KINDS, Fault, Saboteur, Trouble, make_plan
from .load import Asked, Kill
from .marks import SCRIPT, Marks, output_of
from .proxy import Ports, Proxy, host
from .tables import differences
from .verdict import Judge

NAMES = ["a", "b", "c"]


def campaign(folder: Path, **options: Any) -> tuple[Campaign, str]:
    said: list[str] = []
    found = Campaign(Options(**options), folder, said.append)
    found.run()
    return found, "\n".join(said)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_all_promises_are_kept_in_a_minute_of_chaos(tmp_path):
    found, said = campaign(tmp_path, seed=4, faults=50)
    print(said)
    assert not found.problems, said


@pytest.mark.timeout(120)
def test_what_a_node_without_a_disk_forgets_is_noticed(tmp_path):
    # One node alone: in a mesh another one may have heard all that it knew.
    found, said = campaign(
        tmp_path, seed=1, nodes=1, faults=2, only=("kill-node",), quiet_within_s=5, config={"state.sync": "memory"}
    )
    assert found.counts["lost"], said


def test_a_seed_is_a_plan():
    def plan(seed):
        return make_plan(random.Random(seed), NAMES, list(KINDS), 200, 1.0)

    assert plan(7) == plan(7)
    assert plan(7) != plan(8)
    assert Counter(fault.kind for fault in plan(7)).keys() == KINDS.keys()
    assert all(fault.nodes == ("c",) for fault in plan(7) if fault.kind == "disk-full")


# --- the proxy


@pytest.fixture
def line():
    """A proxy between two, of whom the second listens; `dial` connects the first to it."""
    ports = [Ports(*free_ports(2)) for _ in range(2)]
    with socket.create_server(("127.0.0.1", ports[1].router)) as b, Proxy(ports) as proxy:
        b.settimeout(10)

        def dial():
            here = socket.create_connection((host(0, 1), ports[1].router), 10)
            there, (source, _) = b.accept()
            there.settimeout(10)
            return here, there, source

        yield proxy, dial


def test_the_proxy_shows_a_node_at_an_address_of_its_own(line):
    _, dial = line
    here, there, source = dial()
    with here, there:
        assert source == host(1, 0)
        here.sendall(b"x" * 200_000)
        with there.makefile("rb") as stream:
            assert len(stream.read(200_000)) == 200_000
        there.sendall(b"y")
        assert here.recv(1) == b"y"
        here.close()
        assert there.recv(1) == b""


def test_what_is_said_to_a_mute_side_comes_out_when_it_is_healed(line):
    proxy, dial = line
    here, there, _ = dial()
    with here, there:
        proxy.mute(0, 1)
        there.sendall(b"1")
        assert here.recv(1) == b"1"  # the other way is open, and by now the mute one is mute
        here.sendall(b"2")
        there.settimeout(0.2)
        with pytest.raises(TimeoutError):
            there.recv(1)
        there.settimeout(10)
        proxy.heal(0, 1)
        assert there.recv(1) == b"2"


def test_a_severed_link_breaks_and_refuses(line):
    proxy, dial = line
    here, there, _ = dial()
    with here, there:
        proxy.sever(0, 1)
        assert ended(here)
        assert ended(there)
    with socket.create_connection((host(0, 1), there_port(line)), 10) as again:
        assert ended(again)
    proxy.heal(0, 1)
    here, there, _ = dial()
    with here, there:
        here.sendall(b"3")
        assert there.recv(1) == b"3"


def there_port(line) -> int:
    return line[0]._ports[1].router


def ended(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


# --- the marks


@pytest.fixture
def job(tmp_path):
    """Starts the script of jobs as a node would; all are gone when the test ends."""
    script = tmp_path / "job.sh"
    script.write_text(SCRIPT)
    started: list[subprocess.Popen[bytes]] = []

    def start(marks: Marks, seconds: float = 0.0, rc: str = "0", name: str = "j") -> subprocess.Popen[bytes]:
        args = ["/bin/sh", str(script), name, str(marks.path), str(seconds), rc, "3"]
        process = subprocess.Popen(
            args, stdout=subprocess.PIPE, env={**os.environ, "MEESEEKS_NODE": "a"}, start_new_session=True
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.wait()
        process.stdout.close()


def test_marks_tell_how_a_run_began_and_ended(tmp_path, job):
    with Marks(tmp_path / "marks") as marks:
        process = job(marks, rc="3")
        (run,) = wait_until(lambda: [run for run in marks.of("j") if run.dead_at])
        assert (run.pid, run.node, run.ended) == (process.pid, "a", "3")
        assert run.started_at <= run.ended_at <= run.dead_at
        assert process.stdout.read().decode() == output_of("j", process.pid, 3)
        killed = job(marks, 1000, name="k")
        wait_until(lambda: marks.alive)
        os.killpg(killed.pid, 9)
        killed.wait()
        (run,) = wait_until(lambda: [run for run in marks.of("k") if run.dead_at])
        assert run.ended is None
        assert not marks.overlaps
        assert not marks.strange


def test_marks_tell_of_a_sigterm(tmp_path, job):
    with Marks(tmp_path / "marks") as marks:
        process = job(marks, 1000)
        wait_until(lambda: marks.alive)
        process.terminate()
        assert process.wait() == 143
        (run,) = wait_until(lambda: [run for run in marks.of("j") if run.dead_at])
        assert run.ended == "143"


def test_two_live_copies_are_noticed(tmp_path, job):
    with Marks(tmp_path / "marks") as marks:
        first = job(marks, 1000)
        wait_until(lambda: marks.of("j"))
        second = job(marks)
        wait_until(lambda: marks.overlaps)
        (overlap,) = marks.overlaps
        assert (overlap.earlier.pid, overlap.later.pid) == (first.pid, second.pid)
        assert is_running(first.pid)


# --- the verdict


def info(**facts: Any) -> dict[str, Any]:
    found = {"state": "done", "active": False, "node": "a", "submit_node": "a", "generation": 1, "rc": 0, "error": None}
    return found | {"pid": None, "start_count": 1, "tags": ["first"], "stdout_data": None, "stdout_size": 0} | facts


@pytest.fixture
def verdict(tmp_path, job):
    """`verdict(asked, info, runs=[rc, …])` is the kinds of problems that the judge finds after such runs."""
    with Marks(tmp_path / "marks") as marks:

        def judge(asked: Asked, said: dict[str, Any] | None, runs=(), troubles=(), **more: Any) -> list[str]:
            for rc in runs:
                job(marks, rc=rc).wait()
            wait_until(lambda: len([run for run in marks.of("j") if run.dead_at]) == len(runs))
            saboteur = Saboteur(SimpleNamespace())  # type: ignore[arg-type] - it breaks nothing here
            saboteur.troubles += troubles
            asked.note("submit")
            later = threading.TIMEOUT_MAX
            problems = Judge(marks, saboteur, later).judge(asked, said, lambda _: more.get("whole", {}))
            return [problem.kind for problem in problems]

        yield judge


def asked(answer: str = "acked", lines: int = 0, **spec: Any) -> Asked:
    return Asked("j", {"id": "j", "args": [], **spec}, "a", lines, answer=answer)


def test_a_job_that_did_what_it_says_is_no_problem(verdict):
    assert verdict(asked(), info(), runs=["0"]) == []


@pytest.mark.parametrize(
    ("job_asked", "said", "runs", "kinds"),
    [
        (asked(), None, [], ["lost"]),
        (asked("unsure"), None, [], []),
        (asked("unsure"), None, ["0"], ["lost"]),
        (asked("refused"), info(), ["0"], ["misreported"]),
        (asked(), info(state="running", active=True), ["0"], ["lost"]),
        (asked(), info(state="failed", error="node b lost", rc=None), [], ["lost"]),
        (asked(), info(), ["0", "0"], ["unexplained starts"]),
        (asked(), info(generation=2), ["0"], ["unexplained starts"]),
        (asked(retries=1), info(start_count=2), ["3", "0"], []),
        (asked(retries=1), info(start_count=2), ["0", "0"], ["unexplained starts"]),
        (asked(retries=1), info(start_count=3), ["3", "3", "0"], ["unexplained starts"]),
        (asked(), info(), [], ["misreported"]),
        (asked(), info(), ["3"], ["misreported"]),
        (asked(), info(state="failed", rc=3), ["0"], ["misreported"]),
        (asked(), info(state="failed", rc=None, error="executor lost"), ["0"], ["misreported"]),
        (asked(), info(state="killed"), ["0"], ["misreported"]),
        (asked(lines=3), info(), ["0"], ["outputs lost"]),
    ],
)
def test_what_is_wrong_is_called_so(verdict, job_asked, said, runs, kinds):
    assert verdict(job_asked, said, runs) == kinds


def test_a_lost_executor_explains_a_failure_and_a_second_start(verdict):
    trouble = Trouble(Fault(0.0, "kill-executor", ("a",), 0.0), 0.0)
    said = info(state="failed", rc=None, error="executor lost", start_count=2)
    assert verdict(asked(retries=1), said, ["0", "0"], [trouble]) == []


def test_a_kill_that_is_forgotten_is_noticed(verdict):
    killed = asked()
    killed.kills.append(Kill(0.0, "a", 1))
    killed.tried_kill = True
    assert verdict(killed, info(), ["0"]) == ["unkilled"]


def test_a_change_that_is_gone_is_noticed(verdict):
    changed = asked()
    changed.tags = ["second"]
    assert verdict(changed, info(), ["0"]) == ["lost"]


def test_tables_are_compared_job_by_job():
    one, other = {"j": {"state": "new"}}, {"j": {"state": "done"}}
    assert differences({"a": one, "b": one}, 2) == []
    assert differences({"a": one, "b": other}, 2) == ["j"]
    assert differences({"a": one, "b": {}}, 2) == ["j"]
    assert differences({"a": one}, 2) == ["all"]


# --- the other run


def test_what_was_answered_is_there_after_a_kill_right_after_the_answer(tmp_path):
    said: list[str] = []
    assert answered_and_killed(tmp_path, 15, seed=8, say=said.append) == []
    assert "15 times" in said[-1]


def test_what_was_answered_is_there_after_a_power_cut(tmp_path):
    library = power.build(tmp_path)
    if library is None:
        pytest.skip("no C compiler")
    said: list[str] = []
    assert answered_and_killed(tmp_path, 10, seed=8, say=said.append, library=library) == []
    # And it would be noticed: `os` promises nothing about power cuts.
    assert answered_and_killed(tmp_path / "os", 10, seed=8, say=said.append, sync="os", library=library)
