from __future__ import annotations

import re

import pytest

from tests.cli.conftest import COMMAND, environment
from tests.cli.terminal import Terminal

STYLES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


def show(nodes, *args, columns=80):
    with Terminal([*COMMAND, *args], env=environment(nodes[0]), columns=columns) as terminal:
        code = terminal.wait_end()
    return code, terminal.text, STYLES.sub("", terminal.text).replace("\r", "")


def test_a_terminal_gets_tables_with_colour(nodes, good):
    (jid,) = good(
        "sub", "--tag", "shown", "--wait", "p", "--", "sh", "-c", "echo a; exit 0 # " + "long " * 30
    ).out.split()
    code, raw, text = show(nodes, "ls", "tag=shown")
    assert code == 0
    assert "\x1b[" in raw
    head, row = text.splitlines()
    assert head.split() == ["ID", "STATE", "POOL", "NODE", "RC", "TIME", "COMMAND"]
    assert row.split()[:3] == [jid, "done", "p"]
    assert row.endswith("…")
    assert len(row) <= 80


@pytest.mark.parametrize("columns", [40, 200])
def test_an_id_is_never_cut(nodes, good, columns):
    (jid,) = good("sub", "--tag", f"wide{columns}", "--hold", "p", "--", "true").out.split()
    _, _, text = show(nodes, "ls", f"tag=wide{columns}", columns=columns)
    assert jid in text
    good("kill", jid)


def test_get_shows_lines_of_output_as_lines(nodes, good):
    good("sub", "--id", "lines", "--wait", "p", "--", "printf", "one\\ntwo\\033[2J\\n")
    _, raw, text = show(nodes, "get", "lines")
    assert re.search(r"stdout +one *\n +two\\x1b\[2J *\n", text)
    assert "\x1b[2J" not in raw


def test_an_empty_table_says_so(nodes):
    assert show(nodes, "ls", "tag=nobody")[2] == "no jobs\n"


def test_nodes_and_pools_are_tables(nodes):
    assert show(nodes, "nodes")[2].split()[:3] == ["NODE", "STATE", "ADDRESS"]
    assert show(nodes, "pools")[2].split()[:3] == ["POOL", "NODE", "FREE"]


def test_ctrl_c_of_the_terminal_kills_the_job_of_run(nodes, good):
    command = [*COMMAND, "run", "--id", "typed", "p", "--", "sh", "-c", "echo on; sleep 60"]
    with Terminal(command, env=environment(nodes[0])) as terminal:
        terminal.wait_for("on")
        terminal.type(b"\x03")
        assert terminal.wait_end() == 130
    (info,) = good("get", "typed", "--json").json
    assert (info["state"], info["active"]) == ("killed", False)
