"""Whatever goes wrong, whichever command: one line on stderr that says what to do, and the exit code of its kind."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from meeseeks.cli.main import _COMMANDS, cli
from tests.cli.conftest import COMMAND, TIMEOUT, Answer, call, environment
from tests.cli.pipes import start
from tests.cli.terminal import Terminal
from tests.support.nodes import mesh
from tests.support.wait import wait_until

ASKING = {
    "run": ["p", "--", "true"],
    "sub": ["--hold", "p", "--", "true"],
    "ls": [],
    "get": ["tag=x"],
    "wait": ["tag=x"],
    "kill": ["tag=x"],
    "set": ["--where", "tag=x", "hold=true"],
    "logs": ["x"],
    "nodes": [],
    "pools": [],
    "stat": [],
    "conf": [],
    "adopt": ["a"],
    "forget": ["a"],
}
"""Each command that asks a node, with arguments that it takes."""
CALLS = [[name, *args] for name, args in ASKING.items() if name in _COMMANDS]
OF_JOBS = [name for name in ("get", "wait", "kill", "logs", "set") if name in _COMMANDS]
OF_FILTERS = ["ls", "get", "wait", "kill", "set"]

each_call = pytest.mark.parametrize("args", CALLS, ids=[args[0] for args in CALLS])


def is_told(answer, code, *words):
    """That an error was told as it should be."""
    assert (answer.code, answer.out) == (code, ""), answer
    assert answer.err.count("\n") == 1, answer.err
    assert answer.err.startswith("mks: ")
    assert "Traceback" not in answer.err
    for word in words:
        assert word in answer.err


def with_change(name, *words):
    return [name, *words, *(["hold=true"] if name == "set" else [])]


def test_every_command_that_asks_a_node_is_here():
    import click

    context = click.Context(cli)
    commands = {name: cli.get_command(context, name) for name in _COMMANDS}
    asking = {name for name, command in commands.items() if any(p.name == "address" for p in command.params)}
    assert asking - {"top"} == {args[0] for args in CALLS}  # top needs a terminal before all else: see test_top.py


@each_call
def test_unreachable_is_3(args):
    is_told(call(None, "--address", "127.0.0.1:1", *args), 3, "127.0.0.1:1", "start it with 'mks node'")


@each_call
def test_a_name_without_an_address_is_3(args):
    is_told(call(None, "--address", "no.such.host.invalid", *args), 3, "no.such.host.invalid", "no address")


def test_a_name_without_an_address_does_not_hide_the_next_one(nodes):
    conf = f"address=no.such.host.invalid,{nodes[0].address} port={nodes[0].port}"
    assert call(nodes[0], "ls", "id=none", "--json", env={"MEESEEKS_CONF": conf})[:2] == (0, "[]\n")


@pytest.mark.parametrize("address", ["no.such.host.invalid,127.0.0.1:1", "127.0.0.1:1,no.such.host.invalid"])
def test_of_several_addresses_without_a_node_each_is_named(address):
    is_told(call(None, "--address", address, "ls"), 3, "no.such.host.invalid", "no address", "127.0.0.1:1", "refused")


@pytest.fixture(scope="module")
def other_key(tmp_path_factory):
    path = tmp_path_factory.mktemp("key") / "other.key"
    assert call(None, "keygen", str(path)).code == 0
    return {"MEESEEKS_KEY": str(path)}


@each_call
def test_not_let_in_is_4(mks, other_key, args):
    is_told(mks(*args, env=other_key), 4, "does not let us in", "copy the mesh's key there")


@each_call
def test_without_a_key_is_4(mks, tmp_path, args):
    is_told(mks(*args, env={"MEESEEKS_KEY": str(tmp_path / "none.key")}), 4, "there is no key at", "MEESEEKS_KEY")


@each_call
def test_a_broken_key_file_is_2(mks, tmp_path, args):
    path = tmp_path / "broken.key"
    path.write_text("nonsense")
    path.chmod(0o600)
    is_told(mks(*args, env={"MEESEEKS_KEY": str(path)}), 2, str(path), "mks keygen")


@each_call
def test_a_wrong_option_is_2(mks, args):
    is_told(mks(args[0], "--nope", *args[1:]), 2, "--nope", f"see 'mks {args[0]} --help'")


@each_call
@pytest.mark.parametrize("address", ["a:b:c/d", "host:port", "host:70000"])
def test_a_wrong_address_is_2(args, address):
    is_told(call(None, "--address", address, *args), 2)


@each_call
def test_a_wrong_environment_is_2(args):
    is_told(call(None, *args, env={"MEESEEKS_CONF": "adress=x"}), 2, "MEESEEKS_CONF", "'address'")


@pytest.mark.parametrize("name", OF_JOBS)
def test_an_unknown_job_is_1(mks, name):
    is_told(mks(*with_change(name, "no-such-job")), 1, "'no-such-job'", "mks ls")


def test_an_empty_id_means_no_others(mks, good):
    good("sub", "--hold", "--id", "some", "p", "--", "true")
    is_told(mks("get", ""), 1, "no job has id ''; 'mks ls' shows those that are there")
    good("kill", "some")


def test_an_unknown_pool_is_taken_and_told(mks):
    """It may come yet, and a new job may wait for it: so the id, exit code 0, and why it does not start."""
    answer = mks("sub", "--id", "stuck", "nosuch", "--", "true")
    assert (answer.code, answer.out, answer.err.count("\n")) == (0, "stuck\n", 1)
    assert "no online node has pool 'nosuch'" in answer.err
    assert "'mks pools' shows" in answer.err
    assert mks("kill", "stuck").code == 0


def test_where_there_is_no_pool_at_all_it_says_how_to_make_one(tmp_path):
    with mesh(tmp_path, 1, **{"pools.p.slots": None}) as (node,):
        answer = call(node, "sub", "--id", "first", "p", "--", "true")
        assert (answer.code, answer.err.count("\n")) == (0, 1)
        assert "(pools are: none); 'mks conf pools.p.slots=2' makes one, 'mks kill first' takes it back" in answer.err
        assert call(node, "conf", "pools.p.slots=2").code == 0
        assert call(node, "wait", "first").code == 0


def test_run_says_that_its_pool_is_nowhere(nodes):
    words = ["run", "--id", "stuck-run", "nosuch", "--", "true"]
    with subprocess.Popen([*COMMAND, *words], env=environment(nodes[0]), stderr=subprocess.PIPE, text=True) as running:
        assert "no online node has pool 'nosuch'" in running.stderr.readline()
        running.terminate()
        assert running.wait(TIMEOUT) == 143


@pytest.mark.parametrize("name", OF_FILTERS)
@pytest.mark.parametrize(("word", "said"), [("colour=red", "colour"), ("=x", "key=value"), ("state=", "key=value")])
def test_a_bad_filter_is_2(mks, name, word, said):
    args = ["set", "--where", word, "hold=true"] if name == "set" else [name, word]
    is_told(mks(*args), 2, said)


WRONG_VALUES = [
    (["sub", "--retries", "x", "p", "--", "true"], "--retries"),
    (["sub", "--retries", "-1", "p", "--", "true"], "retries"),
    (["run", "--runtime", "soon", "p", "--", "true"], "soon"),
    (["sub", "p@nosuch*", "--", "true"], "nosuch*"),
    (["ls", "--timeout", "0"], "--timeout"),
    (["wait", "--timeout", "x", "tag=a"], "--timeout"),
    (["set", "a", "hold=maybe"], "'maybe'"),
    (["set", "a", "retries=many"], "'many'"),
    (["conf", "pools.p.slots=many"], "pools.p.slots"),
    (["conf", "pools.p.slotz=3"], "slots"),
    (["conf", "slots"], "NAME=VALUE"),
    (["completion", "csh"], "bash"),
    (["help", "secu"], "did you mean 'security'?"),
    (["help", "zzz"], "mesh"),
    (["node", "--log-format", "xml"], "json"),
    (["adopt"], "missing argument"),
    (["forget"], "missing argument"),
    (["forget", "a"], "the asked node itself"),
    (["forget", "b"], "node 'b' is online"),
    (["keygen", "--role", "read"], "--client"),
    (["nosuch"], "known are"),
]


@pytest.mark.parametrize(("args", "said"), WRONG_VALUES, ids=[" ".join(args) for args, _ in WRONG_VALUES])
def test_a_wrong_value_is_2(mks, args, said):
    is_told(mks(*args), 2, said)


@pytest.mark.parametrize("words", [["wait"], ["sub", "--wait", "p", "--", "sleep", "60"]], ids=["wait", "sub --wait"])
def test_a_node_that_goes_while_it_is_waited_for_is_3(tmp_path, words):
    with mesh(tmp_path, 1) as (node,):
        args = words
        if words == ["wait"]:
            assert call(node, "sub", "--id", "long", "p", "--", "sleep", "60").code == 0
            args = ["wait", "long"]
        env = environment(node)
        env["MEESEEKS_CONF"] += " timeout=2"
        with subprocess.Popen(
            [*COMMAND, *args], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as waiting:
            with node.client() as client:
                wait_until(lambda: client.ls(state="running"), 20)
                # It has asked at least once when its submit is answered; and `wait` needs no more than its connection.
                wait_until(lambda: connections(node.port) >= 2, 20)
            node.kill()
            out, err = waiting.communicate(timeout=TIMEOUT)
        node.sweep()
    assert waiting.returncode == 3, err
    assert err.count("\n") == 1
    assert f"{node.address}:{node.port}" in err
    assert not out or words != ["wait"]


def connections(port):
    """How many are established to a port of this machine."""
    with Path("/proc/net/tcp").open() as table:
        rows = [line.split() for line in table][1:]
    return sum(row[1].endswith(f":{port:04X}") and row[3] == "01" for row in rows)


@pytest.mark.parametrize(("name", "code"), [("get", 0), ("kill", 0), ("set", 0), ("wait", 1), ("logs", 0)])
def test_a_filter_without_jobs_is_said_and_is_1_where_an_end_was_to_be_known(mks, name, code):
    args = ["set", "--where", "tag=nobody", "hold=true"] if name == "set" else [name, "tag=nobody"]
    is_told(mks(*args), code, "no job matches tag=nobody")


def test_nothing_that_runs_is_nothing_to_wait_for(mks):
    is_told(mks("wait", "state=running", "tag=nobody"), 0, "no job matches state=running tag=nobody")


@pytest.mark.parametrize("name", OF_JOBS)
def test_an_id_that_others_begin_with_is_told_with_them(mks, name):
    jid = f"begun-{name}"
    assert mks("sub", "--id", jid, "--hold", "p@*", "--", "true").code == 0
    is_told(mks(*with_change(name, jid)), 1, f"no job has id '{jid}'", f"'{jid}@*' is {jid}@a and 1 more")
    is_told(mks(*with_change(name, jid[:-1])), 1, f"'{jid[:-1]}*' is {jid}@a and 1 more")
    assert mks("kill", f"{jid}@*").code == 0


def test_a_state_is_no_id(mks):
    is_told(mks("ls", "running"), 1, "'state=running' means the jobs that are")


def test_a_port_that_is_taken_is_told(nodes, tmp_path):
    words = ["node", "name=second", f"listen.port={nodes[0].port}", "listen.address=127.0.0.1", f"state.dir={tmp_path}"]
    answer = call(None, *words)
    assert answer.code
    assert answer.err.splitlines()[-1].endswith("Address already in use; is a node there already? choose another port")


def test_a_blank_id_is_2(mks):
    is_told(mks("sub", "--id", " ", "p", "--", "true"), 2, "id must be a string that is not blank, not ' '")


IN_A_TERMINAL = [
    (["get", "no-such-job"], 1),
    (["kill", "no-such-job"], 1),
    (["wait", "no-such-job"], 1),
    (["logs", "no-such-job"], 1),
    (["set", "no-such-job", "hold=true"], 1),
    (["ls", "no-such-job"], 1),
    (["wait", "tag=nobody"], 1),
    (["ls", "colour=red"], 2),
    (["ls", "--nope"], 2),
    (["sub", "p", "true"], 2),
    (["--address", "127.0.0.1:1", "run", "p", "--", "true"], 3),
    (["--address", "127.0.0.1:1", "top"], 3),
]


@pytest.mark.parametrize(("args", "code"), IN_A_TERMINAL, ids=[" ".join(args) for args, _ in IN_A_TERMINAL])
def test_a_terminal_shows_the_same_line(nodes, args, code):
    with Terminal([*COMMAND, *args], env=environment(nodes[0]), columns=400) as terminal:
        assert terminal.wait_end() == code
    assert terminal.text.startswith("mks: ")
    assert terminal.text.count("\n") == 1, terminal.text


@pytest.mark.parametrize("name", ["run", "logs -f"])
def test_a_node_that_goes_while_it_is_followed_is_3_and_one_line(tmp_path, name):
    with mesh(tmp_path, 1) as (node,):
        if name == "run":
            args = ["run", "--timeout", "2", "--id", "gone", "p", "--", "sh", "-c", "echo on; sleep 60"]
        else:
            assert call(node, "sub", "--id", "gone", "p", "--", "sh", "-c", "echo on; sleep 60").code == 0
            args = ["logs", "--timeout", "2", "-f", "gone"]
        with start(node, *args) as following:
            assert following.stdout.readline() == b"on\n"
            node.kill()
            out, err = following.communicate(timeout=TIMEOUT)
        node.sweep()
    is_told(
        Answer(following.returncode, out.decode(), err.decode()),
        3,
        f"{node.address}:{node.port}",
        "is gone: connection refused",
        "'mks logs -f gone'",
    )
    assert b"carried out" not in err  # it is a question only
