"""`mks run --local`: a job without a mesh, and nothing left of what it took; a fixture of all tests looks for that."""

from __future__ import annotations

import signal
import subprocess

import pytest

from tests.cli.conftest import TIMEOUT, call
from tests.cli.pipes import start
from tests.support.processes import children_of, is_running
from tests.support.wait import wait_until


@pytest.fixture
def scratch(tmp_path):
    """A folder for temporary files, which must be empty again at the end."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    yield str(folder)
    assert list(folder.iterdir()) == []


def test_a_job_runs_without_a_node(scratch):
    script = "cat; echo err >&2; exit 5"
    with start(None, "run", "--local", "any", "--", "sh", "-c", script, stdin=subprocess.PIPE, TMPDIR=scratch) as it:
        assert it.communicate(b"\0in\n", timeout=TIMEOUT) == (b"\0in\n", b"err\n")
    assert it.returncode == 5


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_all_of_it(scratch, number):
    with start(None, "run", "--local", "p", "--", "sh", "-c", "echo on; sleep 60", TMPDIR=scratch) as process:
        assert process.stdout.readline() == b"on\n"
        process.send_signal(number)
        assert process.wait(TIMEOUT) == 128 + number
        assert process.stderr.read() == b""


def test_a_sigkill_ends_its_node_and_the_job(tmp_path):
    """Nobody could ask that node for anything."""
    script = f"echo $PPID > {tmp_path}/executor; echo on; exec sleep 60"
    with start(None, "run", "--local", "p", "--", "sh", "-c", script, TMPDIR=str(tmp_path)) as process:
        assert process.stdout.readline() == b"on\n"
        executor = int((tmp_path / "executor").read_text())
        below = [executor, *children_of(process.pid), *children_of(executor)]
        assert len(below) == 3
        process.kill()
        process.wait(TIMEOUT)
        wait_until(lambda: not [pid for pid in below if is_running(pid)], 20)


@pytest.mark.parametrize(("args", "said"), [(["p@a"], "leave '@a' out"), (["--address", "x", "p"], "--address")])
def test_what_it_can_not_be_combined_with(args, said):
    answer = call(None, "run", "--local", *args, "--", "true")
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
    assert said in answer.err


def test_it_is_offered_where_no_node_runs():
    answer = call(None, "run", "p", "--", "true", env={"MEESEEKS_CONF": "port=1"})
    assert (answer.code, answer.out, answer.err.count("\n")) == (3, "", 1)
    assert "localhost:1" in answer.err or "127.0.0.1:1" in answer.err
    assert "'mks run --local p -- ...'" in answer.err
    named = call(None, "--address", "127.0.0.1:1", "run", "p", "--", "true")
    assert named.code == 3
    assert "--local" not in named.err
