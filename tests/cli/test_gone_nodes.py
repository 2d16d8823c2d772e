"""What `mks` says of jobs whose node is gone, and of a submit that was cut off."""

from __future__ import annotations

import signal

import pytest

from tests.cli.conftest import TIMEOUT, call
from tests.cli.pipes import start
from tests.support.wait import wait_until


@pytest.fixture
def pair(mesh_of):
    """Of which b stands still, and is thought to be there yet; with a job that is to run on."""
    a, b = mesh_of(2)
    with a.client() as client:
        client.submit(id="runs", pool="p", node="b", args=["sleep", "60"])
        wait_until(lambda: client.query("runs")["state"] == "running")
        b.freeze()
        yield a, b
        b.thaw()
        client.kill("runs")
        client.wait_for("runs", 20)


def test_run_says_that_its_node_is_offline_and_goes_on_when_it_is_back(pair):
    a, b = pair
    with start(a, "run", "--id", "waits", "p@b", "--", "echo", "on") as running:
        said = running.stderr.readline().decode()
        assert said.startswith("mks: job waits waits: node 'b'"), said
        assert "is offline" in said
        assert "'mks kill waits' takes it back" in said
        b.thaw()
        assert running.communicate(timeout=TIMEOUT) == (b"on\n", b"")
        assert running.returncode == 0


def test_sub_says_that_a_node_is_offline(pair):
    a, _ = pair
    with a.client() as client:
        wait_until(lambda: not client.nodes()["b"]["online"], 20)
    answer = call(a, "sub", "--id", "late", "p@b", "--", "true")
    assert (answer.code, answer.out) == (0, "late\n")
    assert answer.err.startswith("mks: job late waits: node 'b' is offline since 20"), answer.err
    call(a, "kill", "late")


def test_a_killed_job_that_may_live_is_not_called_waiting(pair):
    a, _ = pair
    assert call(a, "kill", "runs").code == 0
    answer = call(a, "wait", "--timeout", "0.5", "runs")
    assert answer.code == 3
    assert "running: 1, waiting: 0" in answer.err, answer.err


def test_an_interrupted_submit_says_what_is_there(mesh_of):
    (a,) = mesh_of(1)
    with a.client() as client, start(a, "sub", "--id", "all", "--array", "30000", "--hold", "p", "--", "true") as mks:
        wait_until(lambda: client.nodes()["a"]["info"]["jobs"], 20)
        mks.send_signal(signal.SIGINT)
        out, err = mks.communicate(timeout=TIMEOUT)
        assert (mks.returncode, out) == (130, b"")
        assert b"of 30000 jobs are submitted" in err, err
        assert err.count(b"\n") == 1
