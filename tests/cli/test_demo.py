from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import COMMAND, environment
from tests.cli.terminal import Terminal

WITHIN_S = 30.0


@pytest.fixture
def elsewhere(tmp_path):
    """An environment whose temporary folder is ours to look into."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    return {**environment(), "TMPDIR": str(folder)}


def left_in(elsewhere):
    return list(Path(elsewhere["TMPDIR"]).iterdir())


def test_the_demo_in_a_pipe(elsewhere):
    done = subprocess.run(
        [*COMMAND, "demo"], env=elsewhere, capture_output=True, text=True, timeout=WITHIN_S, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "took node cyd down" in done.stdout
    ran = {name: int(jobs) for name, jobs in re.findall(r"^(\w+).*: (\d+) jobs", done.stdout, re.MULTILINE)}
    assert set(ran) == {"ada", "bob", "cyd"}
    total = sum(ran.values())
    assert total >= 60
    assert f"{total} of {total} results are right" in done.stdout.splitlines()[-1]
    assert left_in(elsewhere) == []


def test_the_demo_on_a_terminal(elsewhere):
    with Terminal([*COMMAND, "demo"], env=elsewhere) as terminal:
        assert terminal.wait_end(WITHIN_S) == 0
    assert "RUNNING NOW" in terminal.text
    assert "AFTER A CUT-OFF RUN" in terminal.text
    assert "results are right" in terminal.text
    assert left_in(elsewhere) == []


@pytest.mark.parametrize(
    ("moment", "number"),
    [("started nodes", signal.SIGINT), ("submitted", signal.SIGTERM), ("took node", signal.SIGINT)],
)
def test_an_interrupted_demo_leaves_nothing(elsewhere, moment, number):
    with subprocess.Popen(
        [*COMMAND, "demo"], env=elsewhere, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert any(line.startswith(moment) for line in process.stdout)
        os.kill(process.pid, number)
        _, err = process.communicate(timeout=WITHIN_S)
    assert process.returncode == 130
    assert err.strip() == ""
    assert left_in(elsewhere) == []


def test_a_wrong_result_is_told(tmp_path):
    from meeseeks.cli.demo_jobs import make_work, problem_with

    (work,) = make_work(tmp_path, 1)
    program = work.jobspec()["args"]
    said = subprocess.run([sys.executable, *program[1:]], capture_output=True, check=True).stdout

    def info(**changes):
        import base64

        data = base64.b64encode(said).decode()
        return {"state": "done", "rc": 0, "error": None, "stdout_data": data, **changes}

    assert problem_with(work, info()) is None
    assert "checksum" in problem_with(work, info(stdout_data=""))
    assert "failed: boom" in problem_with(work, info(state="failed", error="boom"))
    assert "known no more" in problem_with(work, None)
    whole = work.result.read_bytes()
    work.result.write_bytes(whole[: len(whole) // 2])
    assert "no good result" in problem_with(work, info())
    work.result.unlink()
    assert "no good result" in problem_with(work, info())
