from __future__ import annotations

from tests.cli.conftest import COMMAND, environment
from tests.cli.screen import ScreenTerminal
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


def test_the_tree_tells_who_hears_whom(good, nodes):
    assert good("stat", "--tree").lines == [["a", "b", "both"], ["b", "a", "both"]]
    assert good("stat", "--tree", "--json").json == {"node": "a", "nodes": {"a": ["b"], "b": ["a"]}}
    with ScreenTerminal([*COMMAND, "stat", "--tree"], env=environment(nodes[0])) as terminal:
        assert terminal.wait_end() == 0
        assert terminal.screen[:4] == ["a (asked)", "└── b", "b", "└── a"]


def test_a_terminal_has_tables_with_titles(good, nodes):
    good("sub", "--id", "stat-shown", "--wait", "p", "--", "true")
    with ScreenTerminal([*COMMAND, "stat"], env=environment(nodes[0]), columns=100, lines=60) as terminal:
        assert terminal.wait_end() == 0
        shown = terminal.screen
    assert shown[0].startswith("Jobs: ")
    assert {"Nodes, as a sees them", "Pools", "Ended last"} <= set(shown)
