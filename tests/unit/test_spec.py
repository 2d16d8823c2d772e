"""Jobspecs: what is accepted and in which form, what is refused and with which words."""

from __future__ import annotations

import datetime as dt

import msgspec
import pytest

from meeseeks.core.record import Record, Spec, Status, jobinfo
from meeseeks.core.spec import JOB_KEYS, MAX_SPEC_BYTES, check
from meeseeks.errors import InvalidRequest

GOOD = {"pool": "p", "args": ["/bin/true"]}


def nested(levels: int) -> dict[str, object]:
    found: dict[str, object] = {}
    for _ in range(levels):
        found = {"a": found}
    return found


def test_the_keys_are_those_of_the_api():
    api = "id pool args node stdin stdout stderr runtime hold restart retries resubmit config tags state"
    assert " ".join(JOB_KEYS) == api


def test_a_full_jobspec_in_its_normal_form():
    given = {
        "id": "j1",
        "pool": "p",
        "args": ["echo", "", "ü"],
        "node": "n*",
        "stdin": "/dev/null",
        "stdout": "out",
        "stderr": "err",
        "runtime": 3,
        "hold": True,
        "restart": False,
        "retries": 2,
        "resubmit": True,
        "config": {"cwd": "/", "env": {"A": ""}, "shell": False, "umask": 0o22, "user": "u", "extra_groups": [1, "g"]},
        "tags": ["b", "a", "b"],
        "state": "new",
    }
    found = check(given, new=True)
    assert found == {**given, "args": ("echo", "", "ü"), "tags": ("b", "a")}
    # One form only: a spec that is compared byte by byte must not depend on who sent it.
    assert isinstance(found["runtime"], float)


def test_only_what_was_given_comes_back():
    assert check(GOOD, new=True) == {"pool": "p", "args": ("/bin/true",)}
    assert check({}, new=False) == {}
    assert check({"hold": True}, new=False) == {"hold": True}


def test_the_result_makes_a_spec():
    changes = check({**GOOD, "id": "j", "node": "n", "tags": ["t"], "config": {"cwd": "/"}}, new=True)
    spec = Spec(**changes, submit_node="a")
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(spec), type=Spec) == spec


def test_none_stands_for_the_default():
    optional = set(JOB_KEYS) - {"id", "pool", "args", "state"}
    found = check({**GOOD, "id": None, "state": None, **dict.fromkeys(optional)}, new=True)
    assert set(found) == {"pool", "args", *optional}
    spec = Spec(id="j", **found, submit_node="a")
    assert spec == Spec(id="j", pool="p", args=("/bin/true",), submit_node="a")


def test_none_in_config_is_as_if_not_given():
    assert check({"config": {"cwd": None, "user": None}}, new=False) == {"config": {}}


@pytest.mark.parametrize("node", ["a", "*", "a*", ["a", "b"], ["*"], ["a*", "b"], "n1.example.org"])
def test_ways_to_name_nodes(node):
    assert check({"node": node}, new=False) == {"node": node}


def test_a_node_is_named_once():
    assert check({"node": ["a", "b", "a"]}, new=False) == {"node": ["a", "b"]}


def test_a_configuration_is_a_job_for_its_pool():
    args = {"pools": {"p": None}}
    assert check({"pool": "__config", "node": "a", "args": args}, new=True)["args"] == args
    assert check({"args": args}, new=False) == {"args": args}


def test_what_is_given_is_not_kept():
    config = {"env": {"A": "1"}}
    found = check({**GOOD, "config": config}, new=True)
    config["env"]["A"] = "2"
    assert found["config"] == {"env": {"A": "1"}}


_ANY = Record(Spec(id="", pool="", args=(), submit_node=""), Status(epoch=(0, "")))
_INTERNAL = {"lamport", "writer", "killed_generation", "lost", "group", "adoptions"}
NEVER_GIVEN = sorted(set(jobinfo(_ANY, 0)) - set(JOB_KEYS) | _INTERNAL)


@pytest.mark.parametrize("key", NEVER_GIVEN)
def test_what_the_node_sets_is_refused(key):
    with pytest.raises(InvalidRequest) as refused:
        check({**GOOD, key: 1}, new=True)
    assert str(refused.value) == f"{key!r} is set by the node, it can't be given"


WRONG = [
    ({"pol": "p"}, "unknown key 'pol'; did you mean 'pool'?"),
    ({"retry": 1}, "unknown key 'retry'; did you mean 'retries'?"),
    ({"zzz": 1}, "unknown key 'zzz'; known: id, pool, args, node, "),
    ({3: 1}, "unknown key 3; known: "),
    ({b"pool": 1}, "unknown key b'pool'; known: "),
    ({"x" * 100_000: 1}, "unknown key 'xxxx"),
    ({"args": []}, "args must be a non-empty list: the executable and its arguments, not []"),
    ({"args": "ls -l"}, "args must be a non-empty list: the executable and its arguments, not 'ls -l'"),
    ({"args": None}, "args must be a non-empty list"),
    ({"args": ["sleep", 3]}, "args[1] must be a string, not 3"),
    ({"args": ["sleep", None]}, "args[1] must be a string, not None"),
    ({"args": [b"ls"]}, "args[0] must be a string, not b'ls'"),
    ({"args": ["a", "b\0"]}, "args[1] must be a string without NUL, not 'b\\x00'"),
    ({"args": [""]}, "args[0] must be the executable, not ''"),
    ({"args": {1: 2}}, "args has the key 1, which is not a string"),
    ({"pool": ""}, "pool must be a non-empty string, not ''"),
    ({"pool": None}, "pool must be a non-empty string, not None"),
    ({"pool": ["p"]}, "pool must be a non-empty string, not ['p']"),
    ({"pool": "x" * 256}, "pool has 256 characters, at most 255 are allowed"),
    ({"pool": "a\nb"}, "pool must be a string without control characters, not 'a\\nb'"),
    ({"id": ""}, "id must be a non-empty string, not ''"),
    ({"id": 7}, "id must be a non-empty string, not 7"),
    ({"id": " \u3000"}, "id must be a string that is not blank, not ' \\u3000'"),
    ({"id": "a*"}, "id must be a string that doesn't end in '*' (that is a filter), not 'a*'"),
    ({"id": "a\x7f"}, "id must be a string without control characters"),
    ({"node": ""}, "node must be a non-empty string, not ''"),
    ({"node": 5}, "node must be a node's name, a pattern that ends in '*', or a non-empty list of these, not 5"),
    ({"node": []}, "node must be a node's name, a pattern that ends in '*', or a non-empty list of these, not []"),
    ({"node": ["a", 5]}, "node[1] must be a non-empty string, not 5"),
    ({"node": "a*b"}, "node must be a node's name with '*' only at its end, not 'a*b'"),
    ({"stdin": ""}, "stdin must be a path, as a non-empty string, not ''"),
    ({"stdout": 1}, "stdout must be a path, as a non-empty string, not 1"),
    ({"stderr": "a\0"}, "stderr must be a string without NUL"),
    ({"runtime": 0}, "runtime must be a number of seconds above 0, 1000000000 at most, not 0"),
    ({"runtime": -1.5}, "runtime must be a number of seconds above 0, 1000000000 at most, not -1.5"),
    ({"runtime": True}, "runtime must be a number of seconds above 0, 1000000000 at most, not True"),
    ({"runtime": "5"}, "runtime must be a number of seconds above 0, 1000000000 at most, not '5'"),
    ({"runtime": float("nan")}, "not nan"),
    ({"runtime": float("inf")}, "not inf"),
    ({"runtime": 10**400}, "not a number of 1329 bits"),
    ({"hold": 1}, "hold must be true or false, not 1"),
    ({"restart": "true"}, "restart must be true or false, not 'true'"),
    ({"resubmit": 0}, "resubmit must be true or false, not 0"),
    ({"retries": -1}, "retries must be a whole number from 0 to 1000000, not -1"),
    ({"retries": 1_000_001}, "retries must be a whole number from 0 to 1000000, not 1000001"),
    ({"retries": 1.0}, "retries must be a whole number from 0 to 1000000, not 1.0"),
    ({"retries": True}, "retries must be a whole number from 0 to 1000000, not True"),
    ({"tags": "x"}, "tags must be a list of strings, not 'x'"),
    ({"tags": ["a", 1]}, "tags[1] must be a non-empty string, not 1"),
    ({"tags": [""]}, "tags[0] must be a non-empty string, not ''"),
    ({"state": "running"}, "state must be 'new' or 'killed', not 'running'"),
    ({"state": ["new"]}, "state must be 'new' or 'killed', not ['new']"),
    ({"config": "x"}, "config must be a mapping of Popen arguments, not 'x'"),
    ({"config": {"nice": 5}}, "unknown config key 'nice'; known: cwd, env, shell, "),
    ({"config": {"use": 5}}, "unknown config key 'use'; did you mean 'user'?"),
    ({"config": {5: 5}}, "unknown config key 5"),
    ({"config": {"stdout": "x"}}, "config.stdout can't be given: it is a key of the job itself"),
    ({"config": {"args": ["x"]}}, "config.args can't be given: it is a key of the job itself"),
    ({"config": {"start_new_session": False}}, "config.start_new_session can't be given: the executor sets it itself"),
    ({"config": {"preexec_fn": None}}, "config.preexec_fn can't be given"),
    ({"config": {"text": True}}, "config.text can't be given: the executor has no pipe to the job"),
    ({"config": {"cwd": ""}}, "config.cwd must be a path, as a non-empty string, not ''"),
    ({"config": {"env": ["A=1"]}}, "config.env must be a mapping of strings to strings, not ['A=1']"),
    ({"config": {"env": {"A": 1}}}, "config.env.A must be a string, not 1"),
    ({"config": {"env": {"A=B": "1"}}}, "config.env has the name 'A=B', not a non-empty string without '=' and NUL"),
    ({"config": {"env": {1: "1"}}}, "config.env has the name 1, not a non-empty string"),
    ({"config": {"shell": 1}}, "config.shell must be true or false, not 1"),
    ({"config": {"umask": 0o1000}}, "config.umask must be a whole number from 0 to 511 (0o777), not 512"),
    ({"config": {"umask": True}}, "config.umask must be a whole number from 0 to 511 (0o777), not True"),
    ({"config": {"user": -1}}, "config.user must be a name, or a number from 0 to 4294967294, not -1"),
    ({"config": {"group": True}}, "config.group must be a name, or a number from 0 to 4294967294, not True"),
    ({"config": {"extra_groups": "g"}}, "config.extra_groups must be a list of names or numbers, not 'g'"),
    ({"config": {"extra_groups": [None]}}, "config.extra_groups[0] must be a name, or a number"),
    ({"args": ["x" * MAX_SPEC_BYTES]}, "bytes, at most 1048576 are allowed: use a file"),
    ({"args": ["\ud800"]}, "the job can't be sent as MessagePack: "),
]


@pytest.mark.parametrize(("wrong", "said"), WRONG, ids=[said[:40] for _, said in WRONG])
def test_what_is_wrong_is_refused_by_name(wrong, said):
    with pytest.raises(InvalidRequest) as refused:
        check(wrong, new=False)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"args": ["x"]}, "a new job needs 'pool'"),
        ({"pool": None, "args": ["x"]}, "a new job needs 'pool'"),
        ({"pool": "p"}, "a new job needs 'args'"),
        ({"pool": "p", "args": {"a": 1}}, "args of pool 'p' must be a list: the executable and its arguments, not {"),
        ({"pool": "__config", "args": ["x"]}, "args of pool '__config' must be a mapping of configuration keys, not ("),
        (
            {"pool": "__config", "args": {"nodes": {"far": {"ssl": {"pass": "hush"}}}}},
            "args: nodes.far.ssl.pass can't be pushed as a job, which others can read: put it into a configuration",
        ),
        (
            {"pool": "__config", "args": {"nodes": {"a\nb": {"ssl": {"pass": "hush"}}}}},
            r"args: 'nodes.a\nb.ssl.pass' can't be pushed",
        ),
        ({"pool": "__config", "args": {"listen.ssl.pass": "hush"}}, "args: listen.ssl.pass can't be pushed as a job"),
        ({"pool": "__config", "args": {"a": 2**70}}, "the job can't be sent as MessagePack: "),
        (
            {"pool": "__config", "args": {"a": object()}},
            "args.a must be a text, a number, true, false or null, not <obj",
        ),
        (
            {"pool": "__config", "args": {"a": [{"b": b"x"}]}},
            "args.a[0].b must be a text, a number, true, false or null,",
        ),
        ({"pool": "__config", "args": {"a\n": b""}}, r"args.'a\n' must be a text, a number, true, false or null,"),
        ({"pool": "__config", "args": {"a": {b"x": 1}}}, "args.a has the key b'x', which is not a string"),
        ({"pool": "p", "args": ["x"], "config": {"env": {"A\n": 1}}}, r"config.env.'A\n' must be a string, not 1"),
        ({"pool": "__config", "args": nested(100)}, ".a.a.a is nested too deeply"),
        (["pool", "p"], "a job is a mapping of id, pool, args, "),
        (None, "a job is a mapping of "),
        (dt.datetime.now(dt.UTC), "a job is a mapping of "),
    ],
)
def test_what_is_no_new_job(request_, said):
    with pytest.raises(InvalidRequest) as refused:
        check(request_, new=True)
    assert said in str(refused.value)


def test_nor_is_a_password_put_into_a_job_that_is_there():
    with pytest.raises(InvalidRequest, match=r"listen\.ssl\.pass can't be pushed as a job"):
        check({"args": {"listen": {"ssl": {"pass": "hush"}}}}, new=False)


def test_a_value_of_any_depth_is_refused():
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    for key in JOB_KEYS:
        with pytest.raises(InvalidRequest):
            check({key: deep}, new=False)
    with pytest.raises(InvalidRequest):
        check({"args": {"a": deep}}, new=False)
