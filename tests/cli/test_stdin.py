"""What is piped into `mks run` is what the job reads, wherever it runs."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import time

import pytest

from tests.cli.conftest import COMMAND, TIMEOUT, environment
from tests.cli.pipes import Writer, memory, start
from tests.cli.terminal import Terminal
from tests.support.wait import wait_until

MIB = 1024 * 1024


def piped(node, data, *args):
    with start(node, "run", *args, stdin=subprocess.PIPE) as process:
        out, err = process.communicate(data, timeout=TIMEOUT)
    return process.returncode, out, err


@pytest.mark.parametrize("where", ["p@a", "p@b"])
@pytest.mark.parametrize("data", [b"", b"no newline", bytes(range(256)) * 5000], ids=["empty", "text", "binary"])
def test_stdin_is_the_jobs(nodes, where, data):
    assert piped(nodes[0], data, where, "--", "cat") == (0, data, b"")


def test_64_mib_are_exact_in_constant_memory(nodes):
    data = os.urandom(64 * MIB)
    with start(nodes[0], "run", "p@b", "--", "cat", stdin=subprocess.PIPE) as process:
        writer = Writer(process.stdin, data, keep=True)
        digest, left = hashlib.sha256(), len(data)
        while left:
            piece = process.stdout.read(min(MIB, left))
            assert piece
            digest.update(piece)
            left -= len(piece)
        assert memory(process.pid) < 90
        writer.join(TIMEOUT)
        process.stdin.close()
        assert (process.stdout.read(), process.stderr.read(), process.wait(TIMEOUT)) == (b"", b"", 0)
    assert digest.digest() == hashlib.sha256(data).digest()


def test_a_file_is_handed_on_as_well(nodes, tmp_path):
    (tmp_path / "in").write_bytes(b"from a file\n")
    with (tmp_path / "in").open("rb") as file, start(nodes[0], "run", "p@b", "--", "cat", stdin=file) as process:
        out, _ = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, out) == (0, b"from a file\n")


def test_a_closed_stdin_is_empty(nodes):
    shell = ["sh", "-c", '"$@" <&-', "sh", *COMMAND, "run", "p", "--", "cat"]
    done = subprocess.run(shell, env=environment(nodes[0]), capture_output=True, timeout=TIMEOUT, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_a_job_that_does_not_read_holds_nobody_up(nodes):
    with start(nodes[0], "run", "p@b", "--", "sh", "-c", "exit 7", stdin=subprocess.PIPE) as process:
        assert process.wait(TIMEOUT) == 7  # with its stdin open, and nothing in it
        process.stdin.close()
    with start(nodes[0], "run", "p@b", "--", "head", "-c", "3", stdin=subprocess.PIPE) as process:
        writer = Writer(process.stdin, b"y" * 64 * MIB)
        assert (process.stdout.read(), process.wait(TIMEOUT)) == (b"yyy", 0)
        writer.join(TIMEOUT)
        assert writer.broke


def test_whoever_writes_learns_that_the_job_has_closed_its_stdin(nodes):
    script = "exec <&-; echo closed; exec sleep 60"
    with start(nodes[0], "run", "p@b", "--", "sh", "-c", script, stdin=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"closed\n"
        writer = Writer(process.stdin, b"x" * 64 * MIB)
        writer.join(TIMEOUT)
        assert writer.broke
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT) == 128 + signal.SIGTERM


def test_a_job_that_reads_late_is_given_no_more_than_fits(nodes, tmp_path):
    go, data = tmp_path / "go", os.urandom(16 * MIB)
    script = f"echo on; while ! [ -e {go} ]; do sleep 0.02; done; exec sha256sum"
    with start(nodes[0], "run", "p@b", "--", "sh", "-c", script, stdin=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"on\n"
        writer, seen = Writer(process.stdin, data), [(0, time.monotonic())]

        def stands() -> bool:
            if writer.written != seen[-1][0]:
                seen.append((writer.written, time.monotonic()))
            return writer.written > MIB and time.monotonic() - seen[-1][1] > 0.5

        wait_until(stands, TIMEOUT)
        assert writer.written < 4 * MIB
        go.touch()
        out = process.stdout.read()
        assert (out.split()[0].decode(), process.wait(TIMEOUT)) == (hashlib.sha256(data).hexdigest(), 0)


def test_a_rerun_finds_nothing_in_its_stdin(nodes, tmp_path):
    go = tmp_path / "go"
    script = f"cat; echo end; while ! [ -e {go} ]; do sleep 0.02; done; exit 1"
    with start(nodes[0], "run", "--retries", "1", "p@b", "--", "sh", "-c", script, stdin=subprocess.PIPE) as process:
        process.stdin.write(b"once\n")
        process.stdin.close()
        assert [process.stdout.readline(), process.stdout.readline()] == [b"once\n", b"end\n"]
        go.touch()
        assert (process.stdout.read(), process.wait(TIMEOUT)) == (b"end\n", 1)


def test_stdin_of_a_path_is_left_alone(nodes, tmp_path):
    (tmp_path / "in").write_bytes(b"of the node\n")
    with start(nodes[0], "run", "--stdin", str(tmp_path / "in"), "p", "--", "cat", stdin=subprocess.PIPE) as process:
        assert (process.stdout.read(), process.wait(TIMEOUT)) == (b"of the node\n", 0)
        process.stdin.close()


def test_a_terminal_is_not_read_unless_it_is_asked_for(nodes):
    with Terminal([*COMMAND, "run", "p", "--", "sh", "-c", "cat; echo end"], env=environment(nodes[0])) as terminal:
        assert terminal.wait_end() == 0
    assert terminal.text == "end\r\n"
    asked = [*COMMAND, "run", "--stdin", "-", "p", "--", "sh", "-c", "echo on; cat; echo end"]
    with Terminal(asked, env=environment(nodes[0])) as terminal:
        terminal.wait_for("on")
        terminal.type(b"typed\n\x04")
        assert terminal.wait_end() == 0
    assert terminal.text.replace("\r", "").endswith("typed\ntyped\nend\n")


def test_input_for_a_job_that_takes_none_is_refused(nodes, good):
    good("sub", "--id", "deaf", "--hold", "p", "--", "true")
    with nodes[0].client() as client:
        with pytest.raises(ValueError, match="takes no input"):
            client.request({"input": {"id": "deaf"}})
        with pytest.raises(ValueError, match="no job has id"):
            client.request({"input": {"id": "nobody"}})
        client.kill("deaf")
