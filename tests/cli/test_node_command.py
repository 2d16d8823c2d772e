from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import COMMAND, ROOT, TIMEOUT, call, environment

MESH = [sys.executable, str(ROOT / "tools" / "mesh")]
needs_checkout = pytest.mark.skipif(not Path(MESH[1]).exists(), reason="tools/ is in a checkout only")


def test_mks_node_prints_its_ready_line_and_ends_at_sigterm(tmp_path):
    pairs = ["name=solo", "listen.port=0", f"state.dir={tmp_path}", "pools.p.slots=1"]
    with subprocess.Popen(
        [*COMMAND, "node", *pairs], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment()
    ) as process:
        assert process.stdout is not None
        ready = re.fullmatch(r"ready solo (\S+:\d+) pub \d+\n", process.stdout.readline())
        assert ready
        answer = call(None, "run", "--address", ready[1], "p", "--", "echo", "hi")
        assert answer == (0, "hi\n", "")
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT) == 0


@needs_checkout
def test_the_tables_of_a_mesh_become_equal():
    done = subprocess.run(
        [*MESH, "4", "--check", "200", "--within", "20"],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env=environment(),
    )
    assert done.returncode == 0, done
    assert "submitted 200 jobs" in done.stdout
    assert re.search(r"all 4 tables were seen to be equal \d+\.\d\d s after the last end", done.stdout)


@pytest.mark.slow
@pytest.mark.timeout(120)
@needs_checkout
def test_ten_nodes_with_a_thousand_jobs_become_equal():
    done = subprocess.run(
        [*MESH, "10", "--check", "1000", "--within", "20"],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        env=environment(),
    )
    assert done.returncode == 0, done


@needs_checkout
def test_a_mesh_runs_until_ctrl_c_and_leaves_nothing(tmp_path):
    with subprocess.Popen(
        [*MESH, "2", "pools.extra.slots=3"],
        stdout=subprocess.PIPE,
        text=True,
        env={**environment(), "TMPDIR": str(tmp_path)},
    ) as process:
        assert process.stdout is not None
        addresses = [process.stdout.readline().split()[1] for _ in range(2)]
        assert call(None, "pools", "--address", addresses[1], "--json").json["extra"] == {"a": 3, "b": 3}
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(TIMEOUT) == 0
    assert list(tmp_path.iterdir()) == []


def test_conf_explains_every_setting_without_a_node():
    lines = call(None, "conf", "--explain").out.splitlines()
    keys = [line.split("\t")[0] for line in lines]
    assert {"name", "listen.port", "state.lost_after", "pools.NAME.slots", "heartbeat"} <= set(keys)
    assert all(len(line.split("\t")) == 4 for line in lines)
    assert set(call(None, "conf", "--explain", "--json").json[0]) == {"key", "allowed", "default", "description"}
    assert call(None, "conf", "--explain", "pools.p.slots=1").code == 2
