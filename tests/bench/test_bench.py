"""tools/bench for a few seconds: that it measures, and what its JSON looks like. How fast anything is, is no test."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from .campaign import Campaign, Key, Options, Row
from .cases import CASES
from .goals import GOALS, Goal
from .report import as_table, number
from .sample import percentile

BENCH = Path(__file__).parent.parent.parent / "tools" / "bench"
pytestmark = pytest.mark.skipif(not BENCH.exists(), reason="tools/ is in a checkout only")


def bench(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(BENCH), *args], capture_output=True, text=True, timeout=50)


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
