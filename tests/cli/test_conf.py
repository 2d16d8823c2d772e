"""`mks conf`: the configuration of the node that is asked, or of another one that it knows."""

from __future__ import annotations

from tests.cli.conftest import call
from tests.support.nodes import mesh
from tests.support.wait import wait_until


def test_a_node_that_is_named_shows_its_own_and_takes_changes(good):
    for name in ("a", "b"):
        assert good("conf", name, "--json").json["name"] == name
    assert good("conf", "b", "pools.only_b.slots=3", "--json").json["pools"]["only_b"]["slots"] == 3
    assert "only_b" not in good("conf", "a", "--json").json["pools"]
    wait_until(lambda: good("pools", "--json").json.get("only_b") == {"b": 3}, 20)
    assert "only_b" not in good("conf", "b", "pools.only_b=null", "--json").json["pools"]


def test_a_wrong_change_of_another_node_is_refused_there(mks):
    answer = mks("conf", "b", "pools.p.slots=many")
    assert (answer.code, "pools.p.slots" in answer.err) == (2, True)


def test_a_node_that_nobody_knows_is_named_with_those_that_are_known(mks):
    answer = mks("conf", "nosuch", "pools.p.slots=2")
    assert answer.code == 2
    assert "no node 'nosuch' is known (nodes are: a, b)" in answer.err


def test_a_node_that_is_gone_is_3(tmp_path):
    with mesh(tmp_path, 2) as (a, b):
        wait_until(lambda: len(call(a, "nodes").lines) == 2, 20)
        b.stop()
        wait_until(lambda: "left" in call(a, "nodes").out, 20)
        answer = call(a, "conf", "b")
        assert (answer.code, "node 'b' is left" in answer.err) == (3, True)
