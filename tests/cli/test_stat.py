from __future__ import annotations

import pytest

from meeseeks.cli.overview import branches, nodes_linked
from tests.cli.conftest import COMMAND, call, environment
from tests.cli.screen import ScreenTerminal
from tests.support.nodes import mesh
from tests.support.wait import wait_until


def test_stat_tells_nodes_pools_and_jobs(good):
    good("sub", "--id", "stat-runs", "p@b", "--", "sleep", "60")
    good("sub", "--id", "stat-waits", "--node", "b", "--hold", "q", "--", "true")
    good("sub", "--id", "stat-done", "--wait", "p", "--", "true")
    wait_until(lambda: good("ls", "stat-runs").lines[0][1] == "running")
    lines = good("stat").lines
    assert [line[1:3] for line in lines if line[0] == "node"] == [["a", "online"], ["b", "online"]]
    assert [line[1:] for line in lines if line[0] == "pool"] == [
        ["p", "1/4", "0", "-", "a b"],
        ["q", "0/1", "1", "-", "b"],
    ]
    assert ["jobs", "running", "1"] in lines
    assert [line[1:3] for line in lines if line[0] == "running"] == [["stat-runs", "running"]]
    assert "stat-done" in {line[1] for line in lines if line[0] == "ended"}
    found = good("stat", "--json").json
    assert found["node"] == "a"
    assert found["pools"]["q"] == {
        "slots": 1,
        "running": 0,
        "waiting": 1,
        "nodes": ["b"],
        "hold": False,
        "drain": False,
    }
    assert found["jobs"]["new"] == 1
    good("kill", "stat-*")


def test_the_tree_tells_who_is_linked_with_whom(good, nodes):
    wait_until(lambda: good("stat", "--tree").lines == [["a", "b", "both"], ["b", "a", "both"]])
    assert good("stat", "--tree", "--json").json == {"node": "a", "nodes": {"a": ["b"], "b": ["a"]}}
    with ScreenTerminal([*COMMAND, "stat", "--tree"], env=environment(nodes[0])) as terminal:
        assert terminal.wait_end() == 0
        assert terminal.screen[:3] == ["a (asked)", "└── b", "2 nodes, 1 link"]


@pytest.fixture
def line(tmp_path):
    """Three nodes in a line, and what may be asked of the one in its middle and the one at its end."""
    with mesh(tmp_path, 3, shape="line") as started:
        wait_until(lambda: len(call(started[0], "stat", "--tree").lines) == 4)
        yield started


def test_nodes_that_only_hear_of_each_other_are_not_linked(line):
    links = [["a", "b", "both"], ["b", "a", "both"], ["b", "c", "both"], ["c", "b", "both"]]
    # That c has its link as well is in its next heartbeat, which comes to a by b.
    wait_until(
        lambda: call(line[0], "stat", "--tree").lines == links, 10, lambda: call(line[0], "stat", "--tree").lines
    )
    assert call(line[0], "nodes", "--json").json["a"]["sees"] == ["b", "c"]
    with ScreenTerminal([*COMMAND, "stat", "--tree"], env=environment(line[0])) as terminal:
        assert terminal.wait_end() == 0
        assert terminal.screen[:4] == ["a (asked)", "└── b", "    └── c", "3 nodes, 2 links"]
    line[2].stop()
    wait_until(lambda: call(line[0], "nodes").lines[2][1] == "left")
    assert call(line[0], "nodes").lines[2][3::2] == ["-", "-"]  # no load, and no free slots
    with ScreenTerminal([*COMMAND, "stat", "--tree"], env=environment(line[1])) as terminal:
        assert terminal.wait_end() == 0
        assert terminal.screen[:4] == ["b (asked)", "└── a", "c is left", "2 nodes, 1 link"]


def test_a_tree_has_each_node_once_and_names_the_links_beside_it():
    ring = {"a": "bd", "b": "ac", "c": "bd", "d": "ac", "e": ""}
    links = nodes_linked({name: {"online": True, "links": list(other)} for name, other in ring.items()})
    first, lonely = branches(links, "a")
    assert [(one.name, one.also) for one in first.below] == [("b", []), ("d", ["c"])]
    assert [(one.name, one.also) for one in first.below[0].below] == [("c", ["d"])]
    assert (lonely.name, lonely.parent, lonely.below) == ("e", None, [])


def test_a_link_that_one_of_two_has_is_one_way():
    says = {"a": ["b"], "b": [], "gone": ["a"]}
    links = nodes_linked({name: {"online": name != "gone", "links": other} for name, other in says.items()})
    assert links == {"a": [("b", False)], "b": [("a", False)]}
    assert [one.one_way for one in branches(links, "b")[0].below] == [True]


def test_a_terminal_has_tables_with_titles(good, nodes):
    good("sub", "--id", "stat-shown", "--wait", "p", "--", "true")
    with ScreenTerminal([*COMMAND, "stat"], env=environment(nodes[0]), columns=100, lines=60) as terminal:
        assert terminal.wait_end() == 0
        shown = terminal.screen
    assert shown[0].startswith("Jobs: ")
    assert {"Nodes, as a sees them", "Pools", "Ended last"} <= set(shown)
