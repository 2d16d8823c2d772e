"""tools/bench for a few seconds: that it measures, and what its JSON looks like. How fast anything is, is no test."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from tests.support.processes import children_of, command_of, having
from tests.support.wait import wait_until

from .campaign import Campaign, Key, Options, Row
from .cases import CASES
from .goals import GOALS, Goal
from .peers.commands import gnu_parallel, task_spooler
from .peers.listed import PEERS, PYTHON
from .peers.way import Missing, Sizes, Way, command, measure
from .report import as_table, number
from .sample import Figures, percentile

BENCH = Path(__file__).parent.parent.parent / "tools" / "bench"
pytestmark = pytest.mark.skipif(not BENCH.exists(), reason="tools/ is in a checkout only")


def bench(*args: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PATH": path or os.environ["PATH"]}
    env.pop(PYTHON, None)
    return subprocess.run([sys.executable, str(BENCH), *args], capture_output=True, text=True, timeout=50, env=env)


def test_a_quick_look_at_two_cases(tmp_path: Path):
    file = tmp_path / "found.json"
    ended = bench("--quick", "--only", "submit", "throughput", "--json", str(file))
    assert ended.returncode == 0, ended.stderr
    found = json.loads(file.read_text())
    assert (found["format"], found["quick"], found["repetitions"]) == (1, True, 1)
    assert found["machine"]["cores"] >= 1
    assert [revision["label"] for revision in found["revisions"]] == ["this"]
    assert not found["failures"]
    assert {result["case"] for result in found["results"]} == {"submit", "throughput"}
    for result in found["results"]:
        assert result["subject"] == "this"
        assert result["min"] <= result["median"] <= result["max"]
        assert len(result["values"]) == 1
    by_name = {result["figure"]: result for result in found["results"]}
    assert by_name["bare"]["median"] > 0
    assert by_name["submit_many"]["goal"] == "≥ 20,000"
    assert by_name["submit_many"]["reached"] == (by_name["submit_many"]["median"] >= 20_000)
    assert "whole / bare" in ended.stdout


def test_a_case_that_does_not_exist_is_refused():
    ended = bench("--only", "latencey")
    assert ended.returncode == 2
    assert "'latencey'" in ended.stderr


def test_a_revision_that_does_not_exist_is_refused():
    ended = bench("--quick", "--only", "idle", "--compare", "no-such-revision")
    assert ended.returncode == 1
    assert "no-such-revision" in ended.stderr


def test_one_that_is_interrupted_ends_its_nodes():
    mark = uuid.uuid4().hex
    env = {**os.environ, "BENCH_TEST": mark}
    args = [sys.executable, str(BENCH), "--only", "idle"]  # which sleeps for half a minute
    with subprocess.Popen(args, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: any(map(executors_of, having("BENCH_TEST", mark))), 30, "a node with an executor")
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 1
    wait_until(lambda: not having("BENCH_TEST", mark), 5, "an end of its processes")


def executors_of(pid: int) -> list[int]:
    return [child for child in children_of(pid) if "meeseeks.executor" in command_of(child)]


def test_each_goal_is_of_a_case():
    assert {case for case, _ in GOALS} <= CASES.keys()


def test_a_goal_says_whether_it_is_reached():
    assert Goal(at_most=True, bound=2).is_reached(2)
    assert not Goal(at_most=True, bound=2).is_reached(2.1)
    assert not Goal(at_most=False, bound=0.65).is_reached(0.6)


def test_the_table_shows_medians_with_their_spread_and_compares_two():
    campaign = Campaign(Options(cases=["latency"]), [], print)
    campaign.rows = {
        Key("latency", "push p50 / bare", "this"): Row("×", [3, 1.5, 2]),
        Key("latency", "push p50 / bare", "old"): Row("×", [4, 4, 4]),
    }
    campaign.failures.append("idle of this: why")
    lines = as_table(campaign, ["this", "old"]).splitlines()
    assert "2 (1.5–3)" in lines[1]
    assert "0.50" in lines[1]
    assert lines[1].endswith("≤ 2 yes")
    assert lines[-1] == "FAILED: idle of this: why"


def test_numbers_and_percentiles():
    assert [number(value) for value in (0, 0.12345, 12.345, 123.4, 12345.6)] == ["0", "0.123", "12.3", "123", "12,346"]
    assert [percentile(range(1, 11), percent) for percent in (0, 50, 90, 100)] == [1, 5, 9, 10]


def test_peers_that_are_not_installed_are_left_out_and_it_says_how_to_install_them(tmp_path: Path):
    for name in ("git", "df"):  # all that it needs itself
        (tmp_path / name).symlink_to(shutil.which(name) or "/bin/true")
    file = tmp_path / "found.json"
    ended = bench("--peers", "--quick", "--json", str(file), path=str(tmp_path))
    assert ended.returncode == 0, ended.stderr
    found = json.loads(file.read_text())
    assert {result["subject"] for result in found["results"]} == {"meeseeks"}
    assert [note.partition(" is left out: ")[0] for note in found["notes"]] == [f"peers: {name}" for name in PEERS][1:]
    assert "task-spooler is left out: apt-get install task-spooler" in ended.stdout
    assert "  meeseeks  " in ended.stdout


@pytest.mark.parametrize(("peer", "program"), [(task_spooler, "tsp"), (gnu_parallel, "parallel")])
def test_a_peer_is_measured_and_nothing_of_it_is_left(peer, program: str, tmp_path: Path):
    if not shutil.which(program):
        with pytest.raises(Missing, match="apt-get install"), peer(tmp_path):
            pass
        return
    figures = Figures()
    with peer(tmp_path) as way:
        measure(figures, way, quick=True)
    assert {"latency p50 / bare", "throughput / bare"} <= set(figures.found)
    assert all(figure.value > 0 for figure in figures.found.values())


def test_what_is_measured_of_each_peer():
    runs: list[str] = []

    def true(*what: object) -> None:
        runs.append("one" if not what else "many")
        command(["/bin/true"])

    figures = Figures()
    other = {"elsewhere": (true, 2)}
    way = Way(Sizes(4, 4, 4, 1), true, true, submit=true, shell=true, others=other, other_many={"else": true})
    measure(figures, way, quick=True)
    assert list(figures.found) == [
        *("latency p50", "latency p90", "latency p50 / bare", "latency p50, elsewhere / bare"),
        *("throughput", "throughput / bare", "throughput, else", "throughput, else / bare"),
        *("submits", "shell submit", "shell submit / python -c pass"),
    ]
    assert figures.found["latency p50 / bare"].unit == "×"
    assert runs.count("many") == 3


def test_a_peer_whose_command_fails_is_a_failure():
    with pytest.raises(AssertionError, match=r"/bin/false.* ended with 1"):
        command(["/bin/false"])


def test_peers_have_a_line_each_and_what_only_one_has_stands_below():
    campaign = Campaign(Options(cases=["peers"]), [], print)
    for subject, latency in (("Slurm", 46), ("meeseeks", 1.5)):
        campaign.take("peers", subject, {"figures": {"latency p50 / bare": (latency, "×")}, "notes": []})
    campaign.take("peers", "Slurm", {"figures": {"latency p50, sbatch --wait / bare": (3200, "×")}, "notes": []})
    lines = [line.split() for line in as_table(campaign, ["this"]).splitlines()]
    assert lines[1:4] == [["meeseeks", "1.5", "×"], ["Slurm", "46", "×"], ["goal", "of", "meeseeks", "≤", "2"]]
    assert lines[4] == ["Slurm:", "latency", "p50,", "sbatch", "--wait", "/", "bare", "3,200", "×"]
