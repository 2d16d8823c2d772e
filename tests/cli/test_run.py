from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import termios
import threading

import pytest

from tests.cli.conftest import COMMAND, TIMEOUT, environment
from tests.cli.pipes import into_a_full_disk
from tests.support.wait import wait_until

PIPE = 4096
"""The least that a pipe can hold."""


def start(nodes, *args):
    return subprocess.Popen(
        [*COMMAND, "run", *args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=environment(nodes[0]),
    )  # fmt: skip


def test_streams_go_where_they_belong_and_the_exit_code_is_the_jobs(mks):
    assert mks("run", "p", "--", "sh", "-c", "echo out; echo err >&2; exit 3") == (3, "out\n", "err\n")


@pytest.mark.parametrize("node", ["a", "b"])
def test_output_is_exact_to_the_byte(nodes, node, tmp_path):
    data = os.urandom(3_000_000)
    (tmp_path / "data").write_bytes(data)
    with start(nodes, f"p@{node}", "--", "cat", str(tmp_path / "data")) as process:
        out, err = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, out == data, err) == (0, True, b"")


def test_output_comes_while_the_job_runs(nodes, tmp_path):
    go = tmp_path / "go"
    with start(
        nodes, "p@b", "--", "sh", "-c", f"echo first; while ! [ -e {go} ]; do sleep 0.02; done; echo second"
    ) as it:
        assert it.stdout is not None
        assert it.stdout.readline() == b"first\n"
        go.touch()
        assert it.stdout.read() == b"second\n"
    assert it.returncode == 0


def test_a_signal_is_told_as_a_shell_does(mks):
    answer = mks("run", "p", "--", "sh", "-c", "kill -9 $$")
    assert answer.code == 128 + 9
    assert "SIGKILL" in answer.err
    assert answer.err.count("\n") == 1


def test_a_command_that_is_not_there_is_told(mks):
    answer = mks("run", "p", "--", "no-such-command")
    assert answer.code == 1
    assert "can't start 'no-such-command'" in answer.err


def test_a_line_for_a_shell_is_told_where_it_belongs(mks):
    answer = mks("run", "p", "--", "echo hi | wc")
    assert (answer.code, answer.err.count("\n")) == (1, 1)
    assert "can't start 'echo hi | wc'" in answer.err
    assert "goes after sh -c" in answer.err


def test_runtime_and_retries(mks, tmp_path):
    answer = mks("run", "--runtime", "0.2", "p", "--", "sleep", "60")
    assert answer.code == 128 + signal.SIGTERM
    assert "runtime" in answer.err
    again = f"[ -e {tmp_path}/ran ] && exit 0; touch {tmp_path}/ran; exit 1"
    assert mks("run", "--retries", "1", "p", "--", "sh", "-c", again) == (0, "", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_kills_the_job(nodes, good, number):
    jid = f"sig-{number.name}"
    with start(nodes, "--id", jid, "p", "--", "sh", "-c", "echo on; sleep 60") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"on\n"
        process.send_signal(number)
        process.communicate(timeout=TIMEOUT)
    assert process.returncode == 128 + number
    (info,) = good("get", jid, "--json").json
    assert (info["state"], info["active"]) == ("killed", False)


def test_a_signal_that_is_ignored_stays_so(nodes):
    script = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *COMMAND, "run", "p", "--", "sh", "-c", "echo on; sleep 60"]
    with subprocess.Popen(script, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, env=environment(nodes[0])) as it:
        assert it.stdout is not None
        assert it.stdout.readline() == b"on\n"
        it.send_signal(signal.SIGHUP)  # as `nohup` wants it
        it.send_signal(signal.SIGTERM)
        assert it.wait(TIMEOUT) == 128 + signal.SIGTERM


def test_timeout_of_the_shell_ends_the_job(nodes, good, tmp_path):
    """timeout(1) sends its signal twice: to the command, and to its process group, which is the same."""
    words = [*COMMAND, "run", "--id", "timed", "p", "--", "sh", "-c", f"touch {tmp_path / 'on'}; sleep 60"]
    with subprocess.Popen(
        ["timeout", "60", *words], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment(nodes[0])
    ) as timeout:
        wait_until((tmp_path / "on").exists)
        timeout.send_signal(signal.SIGTERM)  # which it hands on as it would its own
        _, err = timeout.communicate(timeout=TIMEOUT)
    assert b"not waiting" not in err
    (info,) = good("get", "timed", "--json").json
    assert (info["state"], info["active"]) == ("killed", False)


def test_a_second_ctrl_c_does_not_wait(nodes, mks):
    stubborn = "trap '' TERM; echo on; while :; do sleep 0.1; done"
    with start(nodes, "--id", "stubborn", "p", "--", "sh", "-c", stubborn) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"on\n"
        process.send_signal(signal.SIGINT)
        with nodes[0].client() as client:
            wait_until(lambda: client.query("stubborn")["state"] == "killed")

        def is_over() -> bool:
            process.send_signal(signal.SIGINT)  # one that comes at once is no second one
            return process.poll() is not None

        wait_until(is_over)
        _, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 130
    assert b"not waiting for the end of job stubborn" in err
    assert mks("wait", "stubborn").code == 1


def test_a_reader_that_goes_away_ends_the_job(nodes, good):
    with start(nodes, "--id", "yes", "p", "--", "yes") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(TIMEOUT) == 128 + signal.SIGPIPE
        assert process.stderr is not None
        assert process.stderr.read() == b""
    wait_until(lambda: good("get", "yes", "--json").json[0]["active"] is False)


def test_output_that_can_not_be_written_ends_the_job(nodes, good):
    done = into_a_full_disk(nodes[0], "run", "--id", "full", "p@b", "--", "sh", "-c", "echo on; sleep 60")
    said = "mks: can't write the output: No space left on device; job full was killed\n"
    assert (done.returncode, done.stderr) == (1, said)
    assert good("get", "full", "--json").json[0]["state"] == "killed"


def test_a_job_that_could_not_be_killed_then_is_named(nodes, good, tmp_path):
    go = tmp_path / "go"
    loud = f"while ! [ -e {go} ]; do sleep 0.02; done; dd if=/dev/zero bs=300001 count=1 status=none; sleep 60"
    with start(nodes, "--timeout", "2", "--id", "on", "p", "--", "sh", "-c", loud) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, PIPE)
        go.touch()
        wait_until(lambda: _waiting(process.stdout) == PIPE)  # mks has more, and waits for a reader
        nodes[0].freeze()
        try:
            process.stdout.close()
            assert process.wait(TIMEOUT) == 128 + signal.SIGPIPE
        finally:
            nodes[0].thaw()
        err = process.stderr.read()
    assert err.startswith(b"mks: can't write the output: Broken pipe; job on may go on, since it could not be killed: ")
    assert err.count(b"\n") == 1
    good("kill", "on")


def _waiting(pipe):
    """The bytes that are in a pipe."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


def test_run_refuses_what_it_can_not_show(mks, good):
    assert mks("run", "p@*", "--", "true").code == 2
    good("sub", "--id", "taken", "--wait", "p", "--", "true")
    answer = mks("run", "--id", "taken", "p", "--", "true")
    assert (answer.code, answer.out) == (2, "")
    assert "already" in answer.err


def test_a_node_that_goes_away_is_told(mesh_of):
    (node,) = mesh_of(1)
    with start([node], "--timeout", "1", "--id", "left", "p", "--", "sh", "-c", "echo on; sleep 60") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"on\n"
        stop = threading.Thread(target=node.stop)
        stop.start()
        _, err = process.communicate(timeout=TIMEOUT)
        stop.join()
    # The node ends its jobs before it leaves: run sees that end, or else that nobody answers any more.
    assert process.returncode in (3, 128 + signal.SIGTERM)
    assert b"left" in err
