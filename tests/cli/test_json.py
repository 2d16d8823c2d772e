"""`mks help json` says what --json prints; here the two are compared, key by key."""

from __future__ import annotations

import re
from pathlib import Path

import meeseeks.cli
from meeseeks.cli.words import _STATES

TEXT = (Path(meeseeks.cli.__file__).parent / "topics" / "json.md").read_text()


def documented(section: str) -> set[str]:
    """The keys that the section of that name lists."""
    (body,) = re.findall(rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    return set(re.findall(r"^- `(\w+)`:", body, re.MULTILINE))


JOBS = documented("Jobs: ls, get, sub, kill, set, wait")


def test_a_job_has_the_documented_keys(good):
    for args in (
        ["sub", "--id", "json-new", "--hold", "p", "--", "true"],
        ["ls", "id=json-new"],
        ["get", "json-new"],
        ["set", "json-new", "retries=1"],
        ["sub", "--id", "json-done", "--wait", "p", "--", "true"],
        ["wait", "json-done"],
        ["kill", "json-new"],
    ):
        (job,) = good(*args[:1], "--json", *args[1:]).json
        assert set(job) == JOBS - (set() if job["state"] == "new" else {"reason"}), args


def test_the_states_of_a_job_are_those_that_can_be_asked_for():
    said = re.findall(r"^- `state`: (.*) \(", TEXT, re.MULTILINE)[0]
    assert re.findall(r"`(\w+)`", said) == list(_STATES)


def test_what_is_not_there_is_an_empty_array(mks):
    for args in (["ls", "tag=nobody"], ["get", "nosuch"], ["kill", "nosuch"], ["wait", "tag=nobody"]):
        assert mks(*args, "--json").json == []


def test_so_have_nodes_and_pools(good):
    nodes = good("nodes", "--json").json
    assert set(nodes) == {"a", "b"}
    assert all(set(status) == documented("nodes") for status in nodes.values())
    assert set(nodes["b"]["pools"]["q"]) == {"slots", "running", "waiting", "hold", "drain"}
    assert good("pools", "--json").json == {"p": {"a": 2, "b": 2}, "q": {"b": 1}}


def test_so_has_stat(good):
    good("sub", "--id", "json-stat", "--wait", "p", "--", "true")
    found = good("stat", "--json").json
    assert set(found) == documented("stat")
    assert set(found["nodes"]["a"]) == documented("nodes")
    assert set(found["pools"]["p"]) == {"slots", "running", "waiting", "nodes", "hold", "drain"}
    assert set(found["jobs"]) == {"new", "running", "done", "failed", "killed"}
    assert all(set(job) == JOBS - {"reason"} for job in found["ended"])
    assert set(good("stat", "--tree", "--json").json) == documented("stat --tree")


def test_so_has_conf(good):
    assert {"name", "listen", "pools", "state"} <= set(good("conf", "--json").json)
    assert all(set(one) == documented("conf") for one in good("conf", "--explain", "--json").json)
