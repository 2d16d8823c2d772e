from __future__ import annotations

import base64
import re

import pytest

import meeseeks
from tests.support.wait import wait_until

JOBINFO_KEYS = {
    *("id", "pool", "args", "node", "stdin", "stdout", "stderr", "runtime", "hold", "restart", "retries", "resubmit"),
    *("config", "tags", "submit_node", "state", "active", "rc", "error", "stdout_data", "stderr_data", "ts", "seq"),
    *("submit_ts", "start_ts", "end_ts", "start_count", "fail_count"),
}


def test_sub_prints_the_id_and_the_job_runs(good):
    answer = good("sub", "p", "--", "true")
    (jid,) = answer.out.split()
    assert re.fullmatch(r"[0-9a-f-]{32,36}", jid)
    assert good("wait", jid).lines[0][:2] == [jid, "done"]
    assert good("ls", jid).lines[0][:5] == [jid, "done", "p", good("get", jid, "--json").json[0]["node"], "0"]


def test_every_option_of_sub_reaches_the_job(good, tmp_path):
    (tmp_path / "in").write_text("input")
    good(
        *("sub", "--id", "all", "--tag", "t1", "--tag", "t2", "--retries", "2", "--runtime", "1m30s", "--wait"),
        *("--stdin", "in", "--stdout", "out", "--stderr", "err", "--cwd", str(tmp_path), "--env", "WORD=hello"),
        *("p@b", "--", "sh", "-c", "cat; pwd >&2; echo $WORD"),
    )
    assert (tmp_path / "out").read_text() == "inputhello\n"
    assert (tmp_path / "err").read_text() == f"{tmp_path}\n"
    (info,) = good("get", "all", "--json").json
    wanted = {"node": "b", "tags": ["t1", "t2"], "retries": 2, "runtime": 90, "stdin": "in", "state": "done"}
    assert {key: info[key] for key in wanted} == wanted
    assert set(info["config"]["env"].values()) == {"***"}
    (named,) = good("get", "all", "--json", "--env", "WORD").json
    assert named["config"]["env"] == {**info["config"]["env"], "WORD": "hello"}
    assert "hello" not in good("get", "all").out + good("ls", "id=all", "--json").out
    assert set(info["config"]["env"]) <= {"PATH", "HOME", "USER", "LANG", "WORD"}


def test_flags_of_sub_reach_the_job_and_may_follow_the_pool(good):
    good("sub", "p", "--id", "flags", "--hold", "--restart", "--resubmit", "--no-cwd", "--", "true", "--help")
    (info,) = good("get", "flags", "--json").json
    assert (info["hold"], info["restart"], info["resubmit"], info["config"]) == (True, True, True, {})
    assert info["args"] == ["true", "--help"]
    good("kill", "flags")


def test_the_working_folder_goes_along(good, tmp_path):
    (job,) = good("sub", "p", "--wait", "--json", "--", "pwd", cwd=tmp_path).json
    assert base64.b64decode(job["stdout_data"]).decode() == f"{tmp_path}\n"


def test_a_pattern_makes_a_job_on_each_node(good):
    ids = good("sub", "--id", "each", "p@*", "--", "true").out.split()
    assert sorted(ids) == ["each@a", "each@b"]
    good("wait", "id=each*")
    assert {line[3] for line in good("ls", "each*").lines} == {"a", "b"}


def test_sub_wait_tells_a_failure(mks):
    answer = mks("sub", "--id", "bad", "--wait", "p", "--", "false")
    assert answer.code == 1
    assert answer.out == "bad\n"
    assert re.fullmatch(r"mks: job bad failed on node '[ab]': .*1\n", answer.err)


def test_ls_is_a_line_a_job_or_an_array(good, mks):
    for name in ("ls1", "ls2"):
        good("sub", "--id", name, "--tag", "listed", "--wait", "p", "--", "echo", "a\tb")
    rows = good("ls", "tag=listed").lines
    assert [row[0] for row in rows] == ["ls1", "ls2"]
    assert [len(row) for row in rows] == [8, 8]
    assert rows[0][6] == "echo 'a\\tb'"
    jobs = good("ls", "tag=listed", "--json").json
    assert [job["id"] for job in jobs] == ["ls1", "ls2"]
    assert set(jobs[0]) >= JOBINFO_KEYS
    assert mks("ls", "tag=nobody-has-it") == (0, "", "mks: no job matches tag=nobody-has-it\n")
    assert mks("ls", "tag=nobody-has-it", "--json") == (0, "[]\n", "mks: no job matches tag=nobody-has-it\n")


def test_get_shows_output_of_any_length_from_another_node(good):
    good("sub", "--id", "long", "--wait", "p@b", "--", "sh", "-c", "yes 0123456789 | head -c 100000")
    (info,) = good("get", "long", "--json").json
    assert base64.b64decode(info["stdout_data"]) == (b"0123456789\n" * 10000)[:100000]
    shown = dict(line for line in good("get", "long").lines if len(line) == 2)
    assert shown["id"] == "long"
    assert shown["rc"] == "0"
    assert shown["stdout_data"].startswith("0123456789\\n0123")


def test_get_in_a_pipe_has_an_empty_line_between_two_jobs(good):
    good("sub", "--id", "pair", "--array", "2", "--wait", "p", "--", "true")
    lines = good("get", "pair-0", "pair-1").out.splitlines()
    assert lines.count("") == 1
    assert all(line.count("\t") == 1 for line in lines if line)
    assert lines[lines.index("") + 1] == "id\tpair-1"


def test_get_says_why_a_job_waits(good, mks):
    assert mks("sub", "--id", "stuck", "nosuchpool", "--", "true").code == 0
    shown = dict(good("get", "stuck").lines)
    assert shown["state"] == "new"
    assert shown["reason"] == "no online node has pool 'nosuchpool' (pools are: p, q)"
    assert good("ls", "stuck").lines[0][7] == shown["reason"]
    good("kill", "stuck")


def test_sub_says_that_a_node_is_nowhere(good, mks):
    answer = mks("sub", "--id", "astray", "p@nosuch", "--", "true")
    assert (answer.code, answer.out) == (0, "astray\n")
    assert answer.err.startswith(
        "mks: job astray waits: there is no node 'nosuch' (nodes are: a, b); 'mks nodes' shows"
    )
    good("kill", "astray")


def test_sub_with_the_id_of_a_job_that_has_ended_says_that_nothing_runs(good, mks):
    good("sub", "--id", "over", "--wait", "p", "--", "true")
    answer = mks("sub", "--id", "over", "p", "--", "false")
    assert (answer.code, answer.out) == (0, "over\n")
    assert answer.err == (
        "mks: job over was there and is done: it does not run again; 'mks set over state=new' makes it\n"
    )


def test_kill_by_id_and_by_filter(good, mks):
    for name in ("k1", "k2", "k3"):
        good("sub", "--id", name, "--tag", "victim", "p", "--", "sleep", "60")
    assert good("kill", "k1").lines[0][:2] == ["k1", "killed"]
    assert {job["id"] for job in good("kill", "tag=victim", "--json").json} == {"k1", "k2", "k3"}
    answer = mks("wait", "tag=victim")
    assert answer.code == 1
    assert sorted(answer.err.splitlines()) == [f"mks: job {name} was killed" for name in ("k1", "k2", "k3")]
    assert all(not job["active"] for job in good("ls", "tag=victim", "--json").json)


def test_set_changes_jobs_and_runs_them_again(good, nodes):
    good("sub", "--id", "s1", "--tag", "held", "--hold", "p@a", "--", "true")
    answer = good("set", "s1", "retries=2", "runtime=1m", "tags=held,changed")
    assert answer.lines[0][:2] == ["s1", "new"]
    good("set", "--where", "tag=changed", "hold=false")
    good("wait", "s1")
    (changed,) = good("set", "s1", "node=b", "state=new", "--json").json
    assert changed["generation"] == 2
    good("wait", "s1")
    with nodes[0].client() as client:
        info = client.query("s1")
    assert (info["node"], info["retries"], info["runtime"], info["tags"]) == ("b", 2, 60, ["held", "changed"])


def test_wait_ends_with_3_at_its_timeout(good, mks):
    good("sub", "--id", "slow", "p", "--", "sleep", "60")
    answer = mks("wait", "slow", "--timeout", "0.2")
    assert answer.code == 3
    assert answer.err.startswith("mks: ")
    assert answer.err.count("\n") == 1
    good("kill", "slow")


@pytest.mark.parametrize("command", [["get"], ["kill"], ["wait"], ["set", "hold=true"], ["ls"]])
def test_an_unknown_id_is_told(mks, command):
    answer = mks(*command, "nobody")
    assert answer.code == 1
    assert answer.err.startswith("mks: no job has id 'nobody'")
    assert answer.out == ""


def test_set_of_an_unknown_and_a_known_job_changes_neither(good, mks):
    good("sub", "--id", "known", "--hold", "p", "--", "true")
    assert mks("set", "known", "unknown", "retries=7").code == 1
    assert good("get", "known", "--json").json[0]["retries"] == 0
    good("kill", "known")


def test_nodes_pools_and_conf(good, nodes):
    rows = good("nodes").lines
    assert [row[:2] for row in rows] == [["a", "online"], ["b", "online"]]
    assert rows[1][5] == "p:0/2 q:0/1"
    status = good("nodes", "--json").json
    assert set(status) == {"a", "b"}
    assert status["b"]["online"] is True
    assert ["q", "b", "1"] in good("pools").lines
    assert good("pools", "--json").json == {"p": {"a": 2, "b": 2}, "q": {"b": 1}}
    assert good("conf", "--json").json["pools"]["p"]["slots"] == 2
    assert ["pools.extra.slots", "5"] in good("conf", "pools.extra.slots=5").lines
    wait_until(lambda: ["extra", "a", "5"] in good("pools").lines)
    assert "extra" not in good("conf", "pools.extra=null", "--json").json["pools"]


def test_version_and_help(mks):
    assert mks("--version") == (0, f"mks {meeseeks.__version__}\n", "")
    assert mks() == mks("--help")
    for command in ("demo", "node", "run", "sub", "ls", "get", "wait", "kill", "set", "nodes", "pools", "conf"):
        assert f"  {command} " in mks("--help").out
        assert mks(command, "--help").out.startswith(f"Usage: mks {command}")


def test_set_of_up_to_2000_jobs_changes_all_or_none_and_of_more_it_says_which(good, mks):
    assert mks("sub", "--id", "x", "--array", "2000", "nowhere", "--", "true").code == 0  # so none is active
    good("sub", "--id", "live", "--hold", "p@a", "--", "true")
    wait_until(lambda: good("get", "live", "--json").json[0]["active"])
    ids = [f"x-{i}" for i in range(2000)]
    answer = mks("set", *ids[:1999], "live", "pool=elsewhere")
    assert (answer.code, answer.out) == (2, "")
    assert mks("ls", "pool=elsewhere", "--json").json == []
    answer = mks("set", *ids, "live", "pool=elsewhere")
    assert answer.code == 1
    assert answer.err.startswith("mks: job 'live' is active on 'a': kill it first")
    assert answer.err.endswith("; of 2001 jobs 2000 are submitted or changed, and not live\n")
    assert len(good("kill", "pool=elsewhere").lines) == 2000
    good("kill", "live")
