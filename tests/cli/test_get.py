"""`mks get` for a person: the story of a job, and why it waits."""

from __future__ import annotations

import re
import time

import pytest

from meeseeks.cli import views
from meeseeks.cli.story import stories
from tests.cli.conftest import COMMAND, environment
from tests.cli.screen import ScreenTerminal
from tests.support.wait import wait_until


@pytest.fixture
def story(nodes):
    """What `mks get` shows on a terminal, as {name: text}."""

    def run(*args: str) -> dict[str, str]:
        with ScreenTerminal([*COMMAND, "get", *args], env=environment(nodes[0]), columns=160, lines=60) as terminal:
            assert terminal.wait_end() == 0
            rows = [re.split(r"  +", line, maxsplit=1) for line in terminal.screen if line]
        return {row[0]: row[1] for row in rows if len(row) == 2}

    return run


CLOCK = r"\d\d:\d\d:\d\d, [\d.smh]+ ago"


def test_the_story_of_a_failure_with_retries(good, mks, story):
    script = "echo out; echo err >&2; exit 4"
    mks("sub", "--id", "tale", "--retries", "1", "--tag", "x", "--wait", "p@b", "--", "sh", "-c", script)
    told = story("tale")
    assert told["job"] == "tale"
    assert told["command"] == f"sh -c '{script}'"
    assert told["state"] == "failed: exit code 4"
    assert re.fullmatch(rf"{CLOCK}, to node 'a'", told["submitted"])
    assert told["retried"] == "started twice, failed twice; 1 retries"
    assert re.fullmatch(rf"{CLOCK}, on node 'b'", told["started"])
    assert re.fullmatch(rf"{CLOCK}, after [\d.]+s: exit code 4", told["ended"])
    assert (told["stdout"], told["stderr"], told["tags"]) == ("out", "err", "x")


def test_the_story_of_a_job_that_runs_and_of_its_kill(good, story):
    good("sub", "--id", "live", "--runtime", "5m", "p@a", "--", "sleep", "60")
    wait_until(lambda: good("ls", "live").lines[0][1] == "running")
    told = story("live")
    assert told["state"] == "running"
    assert re.fullmatch(rf"{CLOCK}, on node 'a', as process \d+, [\d.]+s after its submit", told["started"])
    assert re.fullmatch(r"for [\d.]+s of at most 5m00s", told["runs"])
    good("kill", "live")
    wait_until(lambda: not good("get", "live", "--json").json[0]["active"])
    assert re.search(r": killed$", story("live")["ended"])


def test_only_what_is_known_is_told():
    """What newer nodes add to a jobinfo, and others don't have."""
    now = time.time()
    info = {
        **dict.fromkeys(("stdin", "stdout", "stderr", "runtime", "rc", "error", "pid", "start_ts", "end_ts")),
        **dict.fromkeys(("hold", "restart", "resubmit", "active"), False),
        **dict.fromkeys(("retries", "start_count", "fail_count", "stdout_size", "stderr_size"), 0),
        "id": "j",
        "args": ["true"],
        "pool": "p",
        "node": "b",
        "submit_node": "a",
        "config": {},
        "tags": [],
        "state": "new",
        "submit_ts": now - 60,
        "ts": now,
        "generation": 2,
        "stdout_data": None,
        "stderr_data": None,
    }
    plain = dict(stories([info], now=now).rows)
    assert {"assigned", "claimed", "started", "ended"}.isdisjoint(plain)
    assert plain["run again"] == "once, because somebody asked for it"
    for state, failed, left in (("new", 0, 3), ("running", 0, 3), ("new", 1, 3), ("running", 1, 2), ("running", 3, 0)):
        tried = {
            **info,
            "state": state,
            "active": True,
            "start_ts": now,
            "retries": 3,
            "start_count": 4,
            "fail_count": failed,
        }
        assert dict(stories([tried], now=now).rows)["retried"].endswith(f"; {left} of 3 retries left"), (state, failed)
    long = {**info, "state": "done", "end_ts": now, "stdout_size": 20_000_000}
    assert dict(stories([long], now=now).rows)["stdout"] == "20000000 bytes: 'mks get j' alone shows them"
    of_one = {**long, "output_error": "too much"}
    assert dict(stories([of_one], now=now).rows)["stdout"] == "20000000 bytes: too much"
    assert ("stdout_size", "20000000") in views.job_details([long]).rows
    told = dict(stories([{**info, "assign_ts": now - 50, "claim_ts": now - 40}], now=now).rows)
    assert told["assigned"].endswith(", 50s ago, to node 'b'")
    assert told["claimed"].endswith(", 40s ago, by pool 'p' of node 'b'")


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (["gpu", "--", "true"], "no online node has pool 'gpu' (pools are: p, q)"),
        (["q@a", "--", "true"], "node 'a' has no pool 'q' (its pools are: p)"),
        (["p@zz", "--", "true"], "there is no node 'zz' (nodes are: a, b)"),
        (["--hold", "p", "--", "true"], "held"),
    ],
)
def test_get_and_ls_say_why_a_job_waits(good, mks, story, nodes, args, why):
    (jid,) = mks("sub", *args).out.split()  # of a pool that is nowhere it warns at once
    wait_until(lambda: good("ls", jid).lines[0][7] == why)
    assert story(jid)["state"] == f"new: {why}"
    with ScreenTerminal([*COMMAND, "ls", jid], env=environment(nodes[0]), columns=160) as terminal:
        assert terminal.wait_end() == 0
        assert f"[{why}] true" in terminal.screen[1]
    good("kill", jid)


def test_the_place_in_line_is_told(good):
    good("sub", "--id", "full", "--array", "6", "q", "--", "sleep", "60")
    wait_until(lambda: good("ls", "full-0").lines[0][1] == "running")
    why = [good("ls", f"full-{i}").lines[0][7] for i in range(1, 6)]
    assert why == [f"the only slot of 'q' is taken, {place} in line" for place in ("1st", "2nd", "3rd", "4th", "5th")]
    good("kill", "full-*")


def test_a_time_in_a_sentence_is_ours():
    at = 1_700_000_000
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
    here = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
    assert views.localized(f"node 'x' is offline since {stamp}: alas") == f"node 'x' is offline since {here}: alas"
