from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import COMMAND, TIMEOUT, call, environment
from tests.cli.pipes import into_a_full_disk, start

WRONG = [
    (["lss"], "did you mean 'ls'?"),
    (["ls", "--nope"], "--nope"),
    (["ls", "colour=red"], "colour"),
    (["ls", "a", "tag=b"], "not both"),
    (["get"], "missing argument"),
    (["kill"], "missing argument"),
    (["run", "p", "echo", "hi"], "put -- between POOL and the job's command, as in 'mks run p -- echo hi'"),
    (["sub", "p", "echo", "-n"], "as in 'mks sub p -- echo -n'"),
    (["run", "hostname"], "as in 'mks run POOL -- hostname'"),
    (["squeue"], "no command 'squeue'; did you mean 'ls'?"),
    (["hold", "x"], "did you mean 'mks set JID hold=true'?"),
    (["version"], "did you mean 'mks --version'?"),
    (["sleep", "10"], "'mks run POOL -- sleep ...' runs it as a job"),
    (["sub", "--after", "x", "p", "--", "true"], "no such option '--after'; no job waits for another here"),
    (["sub", "--cpus=4", "p", "--", "true"], "the slots of a pool say how many"),
    (["run", "-it", "p", "--", "sh"], "no such option '-i'; a job has no terminal"),
    (["sub", "p", "q", "--", "true"], "one POOL"),
    (["sub", "--", "true"], "missing argument"),
    (["sub", "p", "--"], "command is missing"),
    (["sub", "p@", "--", "true"], "POOL@NODE"),
    (["sub", "p@,", "--", "true"], "POOL@NODE"),
    (["sub", "--runtime", "soon", "p", "--", "true"], "'soon' is no time"),
    (["sub", "--retries", "-1", "p", "--", "true"], "retries"),
    (["sub", "--env", "X", "p", "--", "true"], "NAME=VALUE"),
    (["sub", "--node", "a", "p@b", "--", "true"], "given twice"),
    (["sub", "--array", "0", "p", "--", "true"], "--array"),
    (["sub", "--array", "5-1", "p", "--", "true"], "--array"),
    (["sub", "--array", "x", "p", "--", "true"], "--array"),
    (["sub", "--array", "2", "--each", "x", "p", "--", "true"], "exclude each other"),
    (["sub", "--each", "/no/such/file", "p", "--", "true"], "/no/such/file"),
    (["sub", "--each", "/dev/null", "p", "--", "true"], "no lines"),
    (["sub", "--tag", "x", "-"], "--tag does not go with '-'"),
    (["sub", "-"], "no jobspecs on stdin"),
    (["wait", "--timeout", "nan", "x"], "nan"),
    (["run", "-"], "put -- between POOL and the job's command"),
    (["top"], "mks stat"),
    (["sub", "--cwd", "/", "--no-cwd", "p", "--", "true"], "exclude each other"),
    (["sub", "p@zz*", "--", "true"], "zz*"),
    (["set", "x"], "what to change"),
    (["set", "hold=true"], "which jobs"),
    (["set", "x", "--where", "tag=a", "hold=true"], "not both"),
    (["set", "x", "id=y"], "id of a job"),
    (["conf", "pools.p.slotz=3"], "slots"),
    (["conf", "name=x"], "name"),
    (["node", "nme=x"], "did you mean 'name'?"),
    (["node", "/no/such/file.toml"], "/no/such/file.toml"),
    (["node", "listen.address=0.0.0.0", "security.mode=none"], "security.insecure"),
    (["--address", "a:b:c:d/e", "ls"], "address"),
]


@pytest.mark.parametrize(("args", "said"), WRONG, ids=[" ".join(args) for args, _ in WRONG])
def test_wrong_usage_is_2_and_one_line_that_says_what_is_wrong(mks, args, said):
    answer = mks(*args)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("mks: ")
    assert answer.err.count("\n") == 1
    assert said in answer.err


def test_a_job_that_is_active_is_not_moved(good, mks):
    good("sub", "--id", "active", "p@a", "--", "sleep", "60")
    answer = mks("set", "active", "node=b")
    assert answer.code == 2
    assert "kill it first" in answer.err
    good("kill", "active")


@pytest.mark.parametrize("args", [["ls"], ["sub", "p", "--", "true"], ["run", "p", "--", "true"], ["nodes"], ["conf"]])
def test_an_unreachable_node_is_3_and_named(args):
    answer = call(None, "--address", "127.0.0.1:1", *args)
    assert (answer.code, answer.out) == (3, "")
    assert "127.0.0.1:1" in answer.err
    assert answer.err.count("\n") == 1


def test_what_is_no_node_is_3_and_said_in_time():
    with socket.create_server(("127.0.0.1", 0)) as mute:
        answer = call(None, "--address", f"127.0.0.1:{mute.getsockname()[1]}", "--timeout", "0.5", "ls")
    assert (answer.code, answer.out) == (3, "")
    assert "nobody speaks" in answer.err


def test_a_wrong_environment_is_told():
    answer = call(None, "ls", env={"MEESEEKS_CONF": "adress=x"})
    assert answer.code == 2
    assert "address" in answer.err


def test_debug_shows_the_traceback(mks):
    answer = mks("ls", "colour=red", "--debug")
    assert answer.code == 2
    assert "Traceback" in answer.err
    assert answer.err.splitlines()[-1].startswith("mks: ")


def test_a_reader_that_went_away_is_no_error(nodes):
    reading, writing = os.pipe()
    os.close(reading)
    with subprocess.Popen(
        [*COMMAND, "ls", "--json"], stdout=writing, stderr=subprocess.PIPE, env=environment(nodes[0])
    ) as process:
        os.close(writing)
        _, err = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, err) == (141, b"")


@pytest.mark.parametrize("args", [["ls"], ["ls", "--json"], ["nodes"], ["--version"], ["run", "p", "--", "echo", "x"]])
@pytest.mark.parametrize("closed", ["<&-", ">&-", "<&- >&- 2>&-"])
def test_a_closed_stream_is_like_dev_null(nodes, args, closed):
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", *COMMAND, *args],
        capture_output=True,
        timeout=TIMEOUT,
        env=environment(nodes[0]),
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("args", [["nodes"], ["nodes", "--json"], ["run", "p", "--", "echo", "x"]])
def test_a_full_disk_under_the_output_is_told(nodes, args):
    done = into_a_full_disk(nodes[0], *args)
    # What run adds, whether its job had ended by then or was killed, is in test_run.
    assert done.returncode == 1
    assert done.stderr.startswith("mks: can't write the output: No space left on device")
    assert done.stderr.count("\n") == 1


def test_the_exit_code_is_the_same_where_stderr_takes_nothing():
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*COMMAND, "ls", "--nope"], stdin=subprocess.DEVNULL, stderr=full, timeout=TIMEOUT, check=False
        )
    assert done.returncode == 2


@pytest.mark.parametrize(
    ("encoding", "shown"), [("latin-1", b"latin-1-\xe9-\\u20ac"), ("ascii", b"ascii-\\xe9-\\u20ac")]
)
def test_what_the_encoding_has_no_letter_for_is_escaped(nodes, good, encoding, shown):
    jid = f"{encoding}-é-€"
    good("sub", "--id", jid, "--hold", "p", "--", "true")
    with start(nodes[0], "ls", f"id={jid}", PYTHONIOENCODING=encoding) as process:
        out, err = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, out.split(b"\t")[0], err) == (0, shown, b"")
    good("kill", jid)


def test_a_path_that_is_no_text_is_shown_as_it_is(tmp_path):
    path = os.fsencode(tmp_path) + b"/caf\xe9"
    with start(None, "keygen", path, PYTHONIOENCODING="utf-8") as process:
        out, err = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, err) == (0, b"")
    assert path in out
