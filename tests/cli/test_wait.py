from __future__ import annotations

import re
import subprocess
import time

import pytest

from meeseeks.cli.wait import wait_for
from meeseeks.errors import RequestTimeout
from tests.cli.conftest import COMMAND, environment
from tests.cli.pipes import start
from tests.cli.screen import ScreenTerminal

LOUD = "for i in 1 2 3 4 5 6 7; do echo line $i >&2; done; exit 3"


def test_in_a_pipe_a_line_tells_each_end(good, mks):
    good("sub", "--id", "w", "--array", "3", "p", "--", "sh", "-c", "exit $((MEESEEKS_ARRAY_INDEX / 2))")
    answer = mks("wait", "w-*")
    assert answer.code == 1
    assert sorted([line[0], line[1], line[3]] for line in answer.lines) == [
        ["w-0", "done", "0"],
        ["w-1", "done", "0"],
        ["w-2", "failed", "1"],
    ]
    assert answer.err.startswith("mks: job w-2 failed on node ")


def test_a_failure_is_told_with_the_last_lines_of_its_stderr(good, mks):
    good("sub", "--id", "loud", "p@b", "--", "sh", "-c", LOUD)
    answer = mks("wait", "loud")
    assert answer.code == 1
    first, *rest = answer.err.splitlines()
    assert first == "mks: job loud failed on node 'b': exit code 3"
    assert rest == [f"  line {i}" for i in range(3, 8)]


def test_so_is_one_with_more_stderr_than_travels_along(good, mks):
    good(
        "sub", "--id", "louder", "p@b", "--", "sh", "-c", "yes out of luck | head -c 100000 >&2; printf end >&2; exit 1"
    )
    answer = mks("wait", "louder")
    assert answer.err.splitlines()[-1].endswith("end")
    assert answer.err.count("out of luck") in (4, 5)


def test_only_the_first_failures_are_named(good, mks):
    good("sub", "--id", "bad", "--array", "7", "p", "--", "false")
    answer = mks("wait", "bad-*")
    assert answer.err.count(" failed on node ") == 5
    assert "and 2 more" in answer.err


def test_any_returns_at_the_first_end(good, mks):
    good("sub", "--id", "slow-one", "p", "--", "sleep", "60")
    good("sub", "--id", "quick-one", "p", "--", "true")
    answer = mks("wait", "--any", "slow-one", "quick-one")
    assert (answer.code, [line[0] for line in answer.lines]) == (0, ["quick-one"])
    (job,) = mks("wait", "--any", "--json", "slow-one", "quick-one").json
    assert job["id"] == "quick-one"
    answer = mks("wait", "--timeout", "0.2", "slow-one")
    assert answer.code == 3
    said = "mks: 0 of 1 jobs have ended after 0.2 s; running: 1, waiting: 0, among them slow-one"
    assert re.fullmatch(re.escape(said) + "(; .+)?\n", answer.err)
    good("kill", "slow-one")


@pytest.mark.parametrize("count", [1, 120])
def test_json_has_those_that_have_ended_when_the_time_is_over(good, mks, count):
    good("sub", "--id", f"ends-{count}", "--wait", "p", "--", "true")
    good("sub", "--id", f"stays-{count}", "--array", str(count), "--hold", "p", "--", "true")
    ids = [f"stays-{count}-{i}" for i in range(count)]
    answer = mks("wait", "--json", "--timeout", "0.3", f"ends-{count}", *ids)
    assert answer.code == 3
    assert [job["id"] for job in answer.json] == [f"ends-{count}"]
    assert answer.err.startswith(f"mks: 1 of {count + 1} jobs have ended after 0.3 s")
    good("kill", *ids)


def test_many_jobs_are_followed_by_push(good, nodes, mks):
    """More than are asked for together; each ends, and is told once."""
    good("sub", "--id", "crowd", "--array", "300", "--hold", "p", "--", "sh", "-c", "test $MEESEEKS_ARRAY_INDEX != 42")
    command = [*COMMAND, "wait", "crowd-*"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(nodes[0])
    ) as waiting:
        good("set", "--where", "id=crowd-*", "hold=false")
        out, err = waiting.communicate(timeout=60)
    assert waiting.returncode == 1
    assert sorted(line.split("\t")[0] for line in out.splitlines()) == sorted(f"crowd-{i}" for i in range(300))
    assert err.startswith("mks: job crowd-42 failed")
    answer = mks("wait", "crowd-*", "--json")
    assert (answer.code, len(answer.json)) == (1, 300)


def test_many_jobs_have_a_deadline_too(good, mks):
    good("sub", "--id", "stuck", "--array", "120", "--hold", "p", "--", "true")
    answer = mks("wait", "stuck-*", "--timeout", "1")
    assert (answer.code, answer.out) == (3, "")
    assert "0 of 120 jobs have ended after 1 s; running: 0, waiting: 120" in answer.err
    good("kill", "stuck-*")


def test_the_deadline_holds_where_the_node_is_mute(mesh_of):
    """From the start, and in between: with few jobs, which are asked for, and with many, which are pushed."""
    (a,) = mesh_of(1)
    with a.client() as client:
        client.submit_many({"id": f"m-{i}", "pool": "p", "args": ["true"], "hold": i > 0} for i in range(102))
        client.wait_for("m-0")
    few, many = (start(a, "wait", "--timeout", "3", *words) for words in (("m-0", "m-1"), ("m-*",)))
    for waiting in (few, many):
        assert waiting.stdout.readline().startswith(b"m-0\tdone")
    a.freeze()
    try:
        began_at = time.monotonic()
        late = start(a, "wait", "--timeout", "3", "m-1")
        ends = [(waiting.communicate(timeout=60)[1], waiting.returncode) for waiting in (few, many, late)]
        took = time.monotonic() - began_at
    finally:
        a.thaw()
    assert [code for _, code in ends] == [3, 3, 3]
    assert all(err.startswith(b"mks: ") and err.count(b"\n") == 1 for err, _ in ends)
    assert ends[0][0].startswith(b"mks: 1 of 2 jobs have ended after 3 s; running: 0, waiting: 1, among them m-1; ")
    assert ends[1][0].startswith(b"mks: 1 of 102 jobs have ended after 3 s; running: 0, waiting: 101, among them m-1")
    assert b"nobody speaks" in ends[2][0]
    assert took < 30


def test_a_question_that_is_open_at_the_deadline_is_given_up(mesh_of):
    (a,) = mesh_of(1)
    with a.client(timeout=60) as client:
        infos = client.submit(id="held", pool="p", args=["true"], hold=True)
        a.freeze()
        try:
            with pytest.raises(RequestTimeout, match="0 of 1 jobs have ended after 0.1 s.*; the node does not answer"):
                wait_for(client, a.client, infos, 0.1)
        finally:
            a.thaw()


@pytest.mark.parametrize("timeout", ["inf", "1e300"])
def test_a_deadline_may_be_far_away(good, timeout):
    jid = f"far-{timeout}"
    good("sub", "--id", jid, "p", "--", "true")
    good("wait", "--timeout", timeout, jid)


def test_a_terminal_has_a_bar(good, nodes):
    script = "test $MEESEEKS_ARRAY_INDEX != 1 && sleep 0.5"
    good("sub", "--id", "bar", "--array", "12", "--hold", "p", "--", "sh", "-c", script)
    with ScreenTerminal([*COMMAND, "wait", "bar-*"], env=environment(nodes[0])) as terminal:
        terminal.wait_screen(lambda text: "0 done  0 running  12 waiting" in text)
        good("set", "--where", "id=bar-*", "hold=false")
        terminal.wait_screen(lambda text: "━" in text and "1 failed" in text and " left" in text)
        (line,) = filter(None, terminal.screen)
        assert all(word in line for word in ("done", "running", "waiting", "/s")), line
        assert terminal.wait_end() == 1
        shown = terminal.screen
    assert shown[0].startswith("12 jobs after ")
    assert shown[0].endswith(": 11 done, 1 failed")
    assert shown[1].startswith("mks: job bar-1 failed")


def test_a_wait_outlives_a_restart_of_the_node(mesh_of):
    (a,) = mesh_of(1)
    with a.client() as client:
        client.submit_many({"id": f"long-{i}", "pool": "p", "args": ["true"], "hold": True} for i in range(120))
    command = [*COMMAND, "wait", "long-*"]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment(a)}
    with subprocess.Popen(command, **options) as waiting:
        for jid in ("long-0", "long-1"):  # the end of the second one is certainly heard by push
            with a.client() as client:
                client.submit(id=jid, hold=False)
            assert waiting.stdout.readline().startswith(f"{jid}\tdone")
        a.kill()
        a.restart()
        with a.client() as client:
            client.submit_many({"id": f"long-{i}", "hold": False} for i in range(2, 120))
        out, err = waiting.communicate(timeout=60)
    assert (waiting.returncode, err) == (0, "")
    assert sorted(line.split("\t")[0] for line in out.splitlines()) == sorted(f"long-{i}" for i in range(2, 120))
