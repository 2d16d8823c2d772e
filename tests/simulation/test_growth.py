"""tools/growth: that it counts what a mesh does, and would notice a job that is lost. How much that is, is no test."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from .growth import Load, run

GROWTH = Path(__file__).parent.parent.parent / "tools" / "growth"


def test_each_change_is_merged_once_by_each_other_node():
    growth = run(Load(nodes=4, jobs=60, rate=200, watched=True))
    counts = growth.counts
    assert counts.changes >= 60
    assert counts.merges == 3 * counts.changes
    assert counts.syncs == 0
    assert counts.messages % 3 == 0
    assert counts.bytes == sum(counts.out_bytes)
    assert counts.watcher_bytes > 0
    assert all(cpu > 0 for cpu in counts.cpu_s)
    assert growth.idle.changes == 0
    assert growth.idle.beats == 4 * 3 * 10  # ten seconds of a heartbeat each


def test_jobs_that_are_submitted_at_one_node_run_on_others_too():
    growth = run(Load(nodes=4, jobs=90, rate=900, entrances=1, slots=4))
    assert [node.ended > 0 for node in growth.nodes] == [True, True, True, False]


def test_a_table_stays_bounded_where_jobs_expire():
    growth = run(Load(nodes=3, jobs=900, rate=100, expire_s=2))
    assert growth.longest_table < 600


def test_a_job_that_never_ends_is_noticed():
    with pytest.raises(AssertionError, match="of 5 jobs have ended"):
        run(Load(nodes=2, jobs=5, job_s=1e9, turn_s=1.0))


@pytest.mark.skipif(not GROWTH.exists(), reason="tools/ is in a checkout only")
def test_the_command_prints_a_table_and_writes_json(tmp_path: Path):
    file = tmp_path / "found.json"
    command = [sys.executable, str(GROWTH), "--nodes", "2", "3", "--jobs", "40", "--memory", "--json", str(file)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    runs = json.loads(file.read_text())["runs"]
    assert [(one["nodes"], one["jobs"]) for one in runs] == [(2, 40), (3, 40)]
    assert all(one["a job"]["merges"] >= 1 for one in runs)
    assert ended.stdout.startswith("nodes ")
    assert "3 nodes" in ended.stdout
