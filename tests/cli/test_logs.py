from __future__ import annotations

import hashlib
import subprocess

import pytest

from tests.cli.conftest import COMMAND, TIMEOUT, environment
from tests.cli.pipes import memory, start
from tests.cli.terminal import Terminal
from tests.support.wait import wait_until

MIB = 1024 * 1024


@pytest.mark.parametrize("node", ["a", "b"])
@pytest.mark.parametrize("count", [1, 20_000], ids=["in the status", "in the spool"])
def test_each_stream_goes_where_it_belongs(mks, good, node, count):
    script = f"seq {count}; seq {count} | tac >&2"
    (jid,) = good("sub", "--wait", f"p@{node}", "--", "sh", "-c", script).out.split()
    lines = [f"{number}\n" for number in range(1, count + 1)]
    out, err = "".join(lines), "".join(reversed(lines))
    assert mks("logs", jid) == (0, out, err)
    assert mks("logs", "-f", jid) == (0, out, err)
    assert mks("logs", "--stderr", jid) == (0, "", err)
    assert mks("logs", "--stdout", "--stderr", "--tail", "1", jid) == (0, f"{count}\n", "1\n")


@pytest.mark.parametrize("follow", [[], ["-f"]], ids=["once", "follow"])
def test_200_mb_in_constant_memory(nodes, good, follow):
    size = 200_000_000
    (jid,) = good("sub", "--wait", "p@b", "--", "sh", "-c", f"yes 'a line of text' | head -c {size}").out.split()
    digest, read = hashlib.sha256(), 0
    with start(nodes[0], "logs", *follow, jid) as process:
        while piece := process.stdout.read(MIB):
            if read < 150_000_000 <= read + len(piece):
                assert memory(process.pid) < 90
            digest.update(piece)
            read += len(piece)
        assert (read, process.stderr.read(), process.wait(TIMEOUT)) == (size, b"", 0)
    line = b"a line of text\n"
    expected = hashlib.sha256()
    for _ in range(size // (len(line) * 10_000)):
        expected.update(line * 10_000)
    rest = size % (len(line) * 10_000)
    expected.update((line * 10_000)[:rest])
    assert digest.digest() == expected.digest()
    good("kill", jid)


TEXTS = {
    "lines": "".join(f"line {number}\n" for number in range(30_000)),
    "no newline at the end": "one\ntwo\nthree",
    "empty lines": "\n\n\n\n",
    "long lines": f"{'x' * 100_000}\n{'y' * 300_000}\nz\n",
    "nothing": "",
}


@pytest.mark.parametrize("name", TEXTS)
def test_tail(good, tmp_path, name):
    (tmp_path / "text").write_text(TEXTS[name])
    (jid,) = good("sub", "--wait", "p@b", "--", "cat", str(tmp_path / "text")).out.split()
    lines = TEXTS[name].splitlines(keepends=True)
    for count in (0, 1, 3, 10_000):
        expected = "".join(lines[-count:]) if count else ""
        assert good("logs", "--tail", str(count), jid).out == expected
    assert good("logs", "-f", "-n", "2", jid).out == "".join(lines[-2:])


def test_a_running_job_is_shown_and_followed(nodes, good, mks, tmp_path):
    go = tmp_path / "go"
    script = f"echo first; while ! [ -e {go} ]; do sleep 0.02; done; echo second; exit 3"
    (jid,) = good("sub", "p@b", "--", "sh", "-c", script).out.split()
    wait_until(lambda: good("logs", jid).out == "first\n", TIMEOUT)
    with start(nodes[0], "logs", "-f", jid) as process:
        assert process.stdout.readline() == b"first\n"
        go.touch()
        assert (process.stdout.read(), process.wait(TIMEOUT)) == (b"second\n", 0)


def test_following_begins_before_the_job_and_goes_through_its_reruns(nodes, good, tmp_path):
    go = tmp_path / "go"
    script = f"echo run; while ! [ -e {go} ]; do sleep 0.02; done; exit 1"
    (jid,) = good("sub", "--retries", "1", "--hold", "p@b", "--", "sh", "-c", script).out.split()
    with start(nodes[0], "logs", "-f", jid) as process:
        good("set", jid, "hold=false")
        assert process.stdout.readline() == b"run\n"
        go.touch()
        assert (process.stdout.read(), process.wait(TIMEOUT)) == (b"run\n", 0)
    assert good("logs", jid).out == "run\n"


def test_ctrl_c_ends_the_following_and_not_the_job(nodes, good):
    (jid,) = good("sub", "p@b", "--", "sh", "-c", "echo on; sleep 60").out.split()
    with Terminal([*COMMAND, "logs", "-f", jid], env=environment(nodes[0])) as terminal:
        terminal.wait_for("on")
        terminal.type(b"\x03")
        assert terminal.wait_end() == 130
    assert good("ls", jid, "--json").json[0]["state"] == "running"
    good("kill", jid)


def test_several_jobs_and_filters(good, mks):
    for word in ("one", "two"):
        good("sub", "--wait", "--id", f"log-{word}", "--tag", "logged", "p", "--", "echo", word)
    assert sorted(good("logs", "tag=logged").out.split()) == ["one", "two"]
    assert good("logs", "log-two", "log-one").out == "two\none\n"
    answer = mks("logs", "-f", "tag=logged")
    assert (answer.code, answer.out) == (2, "")
    assert "-f follows one job" in answer.err
    assert "Of one job: go on until" in mks("logs", "--help").out


def test_output_in_a_file_is_not_looked_for(mks, good, tmp_path):
    path = tmp_path / "out"
    (jid,) = good("sub", "--wait", "--stdout", str(path), "p@b", "--", "sh", "-c", "echo x; echo y >&2").out.split()
    for args in (["logs", jid], ["logs", "-f", jid]):
        answer = mks(*args)
        assert (answer.code, answer.out) == (0, "")
        assert answer.err == f"mks: the stdout of job {jid} goes to the file {str(path)!r} on node 'b'\ny\n"


@pytest.mark.parametrize("args", [["nobody"], ["-f", "nobody"]])
def test_an_unknown_job_is_1_and_one_line(mks, args):
    answer = mks("logs", *args)
    assert (answer.code, answer.out, answer.err.count("\n")) == (1, "", 1)
    assert "no job has id 'nobody'" in answer.err


def test_a_reader_that_goes_away_is_no_error(nodes, good):
    (jid,) = good("sub", "--wait", "p", "--", "sh", "-c", "yes | head -c 5000000").out.split()
    with start(nodes[0], "logs", jid) as process:
        process.stdout.readline()
        process.stdout.close()
        assert (process.wait(TIMEOUT), process.stderr.read()) == (141, b"")


def test_a_node_that_is_gone_is_3_and_one_line(mesh_of):
    a, b = mesh_of(2)
    with a.client() as client:
        client.submit(id="big", pool="p", node="b", args=["seq", "100000"])
        client.submit(id="on", pool="p", node="b", args=["sh", "-c", "echo on; sleep 60"])
        assert client.wait_for("big", 20)["big"]["state"] == "done"
        wait_until(lambda: client.query("on")["state"] == "running", TIMEOUT)
    with start(a, "logs", "-f", "--timeout", "1", "on") as process:
        assert process.stdout.readline() == b"on\n"
        b.freeze()
        gone = subprocess.run([*COMMAND, "logs", "big"], env=environment(a), capture_output=True, check=False)
        b.thaw()
        assert (gone.returncode, gone.stdout, gone.stderr.count(b"\n")) == (3, b"", 1)
        assert b"try again once that node is back" in gone.stderr
        a.kill()
        _, err = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, err.count(b"\n")) == (3, 1)
    assert b"mks logs -f on" in err
