from __future__ import annotations

import base64
import json
import signal
import subprocess

import pytest

from tests.cli.conftest import COMMAND, TIMEOUT, Answer, environment
from tests.cli.pipes import into_a_full_disk, start
from tests.support.wait import wait_until


@pytest.fixture
def feed(nodes):
    """`mks` with something on stdin."""

    def run(text: str | bytes, *args: str) -> Answer:
        data = text if isinstance(text, bytes) else text.encode()
        done = subprocess.run(
            [*COMMAND, *args], input=data, capture_output=True, timeout=TIMEOUT, env=environment(nodes[0]), check=False
        )
        return Answer(done.returncode, done.stdout.decode(), done.stderr.decode())

    return run


def output(good, jid: str) -> str:
    (info,) = good("get", jid, "--json").json
    return base64.b64decode(info["stdout_data"]).decode()


def test_an_array_is_numbered_jobs(good):
    script = "echo $MEESEEKS_ARRAY_INDEX $MEESEEKS_JOB_ID ${HOME:+home} ${PATH:+path}"
    answer = good("sub", "--id", "arr", "--array", "3", "--wait", "p", "--", "sh", "-c", script)
    assert answer.out.split() == ["arr-0", "arr-1", "arr-2"]
    assert [output(good, f"arr-{i}") for i in range(3)] == [f"{i} arr-{i} home path\n" for i in range(3)]
    (info,) = good("get", "arr-1", "--json").json
    assert info["config"]["env"]["MEESEEKS_ARRAY_INDEX"] == "1"  # no secret


def test_an_array_may_be_a_range_and_needs_no_id(good):
    ids = good("sub", "--array", "8-9", "--hold", "p", "--", "true").out.split()
    assert [jid.rpartition("-")[2] for jid in ids] == ["8", "9"]
    assert len({jid.rpartition("-")[0] for jid in ids}) == 1
    good("kill", *ids)


def test_each_line_is_a_job(good, feed, tmp_path):
    items = tmp_path / "items"
    items.write_text("one two\n\n  three\n'four'")
    command = ("p", "--", "sh", "-c", 'echo "$MEESEEKS_ARRAY_INDEX:$MEESEEKS_ARRAY_ITEM:$OWN"')
    good("sub", "--id", "of-file", "--each", str(items), "--env", "OWN=x", "--wait", *command)
    wanted = ["0:one two:x\n", "1:  three:x\n", "2:'four':x\n"]
    assert [output(good, f"of-file-{i}") for i in range(3)] == wanted
    assert feed("a\nb\n", "sub", "--id", "of-stdin", "--each", "-", "--wait", *command).code == 0
    assert [output(good, f"of-stdin-{i}") for i in range(2)] == ["0:a:\n", "1:b:\n"]


def test_each_with_braces_is_told_where_its_line_is(mks, tmp_path):
    """As GNU parallel and xargs would have it."""
    (tmp_path / "items").write_text("x\n")
    answer = mks("sub", "--each", str(tmp_path / "items"), "--hold", "p", "--", "gzip", "{}")
    assert (answer.code, answer.err.count("\n")) == (0, 1)
    assert answer.err.startswith("mks: {} stays as it is")
    assert "$MEESEEKS_ARRAY_ITEM" in answer.err
    assert mks("kill", *answer.out.split()).code == 0


def test_the_environment_goes_along_only_when_asked_for(good):
    script = "echo ${MINE:-none} ${TOLD:-none} $MEESEEKS_NODE"
    env = {"MINE": "mine", "TOLD": "told"}
    for name, options, wanted in (
        ("env-none", (), "none none"),
        ("env-named", ("--env", "TOLD"), "none told"),
        ("env-value", ("--env", "TOLD=new"), "none new"),
        ("env-all", ("--export-env", "--env", "TOLD=new"), "mine new"),
    ):
        good("sub", "--id", name, "--wait", *options, "p@a", "--", "sh", "-c", script, env=env)
        assert output(good, name) == f"{wanted} a\n"


def test_what_is_no_text_is_not_exported_and_said(good, mks):
    answer = mks("sub", "--id", "odd-env", "--export-env", "--wait", "p", "--", "true", env={"ODD": "\udcff"})
    assert (answer.code, answer.out) == (0, "odd-env\n")
    assert "variable 'ODD' stays here" in answer.err


def test_the_node_may_be_an_option(good):
    good("sub", "--id", "on-b", "--node", "b", "--wait", "p", "--", "true")
    assert good("ls", "on-b").lines[0][3] == "b"
    ids = good("sub", "--id", "on-all", "--node", "a,b", "--hold", "p", "--", "true").out.split()
    assert ids == ["on-all@a", "on-all@b"]
    good("kill", *ids)


def test_run_has_the_same_options(good):
    answer = good("run", "--node", "b", "--env", "X=1", "p", "--", "sh", "-c", "echo $X $MEESEEKS_NODE")
    assert answer.out == "1 b\n"


def test_jobspecs_from_stdin(good, feed):
    specs = [{"id": f"line{i}", "pool": "p", "args": ["sh", "-c", f"exit {i // 4}"]} for i in range(5)]
    answer = feed("\n".join(map(json.dumps, specs)), "sub", "--wait", "-")
    assert answer.out.split() == [spec["id"] for spec in specs]
    assert answer.code == 1
    assert answer.err.startswith("mks: job line4 failed on node ")
    assert {job["state"] for job in feed('{"pool": "p", "args": ["true"]}', "sub", "--json", "-").json} == {"new"}
    good("wait", "line0")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"pool": "p"}', "line 3: a new job needs 'args'"),
        ('{"pool": "p", "args": "true"}', "line 3: args must be"),
        ('{"pool": "p", "args": ["true"], "retrys": 1}', "line 3: "),
        ("nonsense", "line 3 is no JSON"),
        ("[1]", "line 3 is no JSON object"),
        ('{"id": "bad0", "pool": "p", "args": ["true"]}', "line 3: the id 'bad0' stands on line 1 as well"),
        (b"\xff", "line 3 of '-' is no UTF-8 text"),
    ],
)
def test_of_a_file_with_a_wrong_line_nothing_is_submitted(mks, feed, line, said):
    first = b'{"id": "bad0", "pool": "p", "args": ["true"]}\n\n'
    answer = feed(first + (line if isinstance(line, bytes) else line.encode()), "sub", "-")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith(f"mks: {said}")
    assert "nothing was submitted" in answer.err
    assert answer.err.count("\n") == 1
    assert mks("ls", "id=bad*").out == ""


def test_more_than_fit_into_one_request(good, feed):
    specs = [{"id": f"many{i}", "pool": "p", "args": ["true"], "hold": True, "tags": ["many"]} for i in range(4500)]
    answer = feed("\n".join(map(json.dumps, specs)), "sub", "-")
    assert answer.err == ""
    assert answer.out.split() == [spec["id"] for spec in specs]
    assert len(good("kill", "tag=many").lines) == 4500


def lines(count, *more, **keys):
    good_ones = [{"id": f"{keys['tag']}-{i}", "pool": "p", "args": ["true"], "hold": True} for i in range(count)]
    return "\n".join(json.dumps({**spec, "tags": [keys["tag"]]}) for spec in [*good_ones, *more])


def test_a_new_job_that_lacks_something_is_named_before_any_is_sent(mks, feed):
    """Whether a line with an id is of a new job, the node knows: it is asked first."""
    answer = feed(lines(1001, {"id": "lacks", "args": ["true"]}, tag="before"), "sub", "-")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("mks: line 1002: a new job needs 'pool' and 'args', and no job has the id 'lacks'")
    assert mks("ls", "tag=before", "--json").json == []


def test_a_line_may_be_a_change_of_a_job_or_of_a_group(good, feed):
    good("sub", "--id", "there", "--hold", "p", "--", "true")
    good("sub", "--id", "group", "--hold", "p@*", "--", "true")
    answer = feed('{"id": "there", "retries": 1}\n{"id": "group", "retries": 1}', "sub", "--json", "-")
    assert {(job["id"], job["retries"]) for job in answer.json} == {("there", 1), ("group@a", 1), ("group@b", 1)}
    good("kill", "there", "group@a", "group@b")


NOWHERE = {"id": "nowhere", "pool": "p", "args": ["true"], "node": "zz*"}


def test_what_the_node_refuses_together_is_submitted_not_at_all(mks, feed):
    answer = feed(lines(1500, NOWHERE, tag="together"), "sub", "-")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("mks: node 'zz*' matches no online node")
    assert answer.err.endswith("; this is of one of the lines 1 to 1501; nothing was submitted\n")
    assert mks("ls", "tag=together", "--json").json == []


def test_what_the_node_refuses_later_is_told_with_what_is_submitted(good, feed):
    answer = feed(lines(2000, NOWHERE, tag="later"), "sub", "--wait", "-")
    assert answer.code == 1
    assert answer.out.split() == [f"later-{i}" for i in range(2000)]
    assert answer.err.startswith("mks: node 'zz*' matches no online node")
    assert answer.err.endswith(
        "; 2000 of 2001 jobs are submitted, later-0 to later-1999; from line 2001 on nothing is\n"
    )
    assert len(good("kill", "tag=later").lines) == 2000


def test_of_each_line_of_a_file_a_wrong_one_is_named_first(mks, feed):
    items = b"x\n" * 2000 + b"\0\n"
    answer = feed(items, "sub", "--id", "nul", "--each", "-", "--hold", "p", "--", "true")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("mks: line 2001: config.env.MEESEEKS_ARRAY_ITEM must be a string without NUL")
    assert mks("ls", "id=nul-*", "--json").json == []


def test_a_job_that_is_only_submitted_gets_no_stdin_from_here(mks, good):
    answer = mks("sub", "--stdin", "-", "p", "--", "cat")
    assert (answer.code, answer.out) == (2, "")
    assert "use 'mks run', or a file" in answer.err
    (jid,) = good("sub", "--stdin", "/dev/null", "--wait", "p", "--", "cat").out.split()
    assert good("ls", jid).lines[0][1] == "done"


@pytest.mark.parametrize(("more", "said"), [([], "full was"), (["--array", "2", "--json"], "full-0 and 1 more were")])
def test_ids_that_can_not_be_written_are_told(nodes, good, more, said):
    done = into_a_full_disk(nodes[0], "sub", "--id", "full", *more, "p", "--", "true")
    told = f"mks: can't write the output: No space left on device; {said} submitted\n"
    assert (done.returncode, done.stderr) == (1, told)
    good("wait", "full*")


def test_a_wait_that_is_cut_off_tells_which_jobs_go_on(good, mks, nodes):
    for _ in range(20):
        with start(nodes[0], "sub", "--json", "--wait", "--tag", "goes-on", "p", "--", "sleep", "60") as waiting:
            ids = wait_until(lambda: mks("ls", "tag=goes-on", "state=running", "--json").json, 20)
            waiting.send_signal(signal.SIGINT)
            out, err = waiting.communicate(timeout=20)
        good("kill", "tag=goes-on")
        assert waiting.returncode == 130
        if b"and 1 more may be" not in err:  # the node's answer was not even read by then
            assert [job["id"] for job in json.loads(out)] == [job["id"] for job in ids]
            return
    raise AssertionError("each time it was cut off before it waited")
