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


@pytest.mark.parametrize(("name", "columns"), [("0123456789abcdef" * 2, 80), ("0123456789abcdef" * 2, 200), ("i", 40)])
def test_an_id_is_whole_where_there_is_room(nodes, good, name, columns):
    jid = f"{name}-{columns}"
    good("sub", "--id", jid, "--hold", "p", "--", "true")
    _, _, text = show(nodes, "ls", f"id={jid}", columns=columns)
    assert jid in text
    good("kill", jid)


@pytest.mark.parametrize("columns", [50, 60])
def test_a_long_id_is_cut_in_its_middle_and_no_line_is_broken(nodes, good, columns):
    jid = f"{columns}-0123456789abcdef0123456789-end"
    good("sub", "--id", jid, "--hold", "p", "--", "sleep", "60")
    _, _, text = show(nodes, "ls", f"id={jid}", columns=columns)
    head, row = text.splitlines()
    assert re.match(rf"{columns}-01\w*….*9-end  new", row)
    assert max(map(len, (head, row))) <= columns
    assert good("ls", f"id={jid}").lines[0][0] == jid
    good("kill", jid)


def test_what_is_done_to_very_many_jobs_is_told_in_numbers(nodes, good):
    good("sub", "--id", "lot", "--array", "60", "--hold", "p", "--", "true")
    assert show(nodes, "set", "--where", "id=lot-*", "retries=1")[2] == "60 jobs: 60 new\n"
    assert show(nodes, "kill", "lot-*")[2] == "60 jobs: 60 killed\n"
    assert len(good("kill", "lot-*").lines) == 60
    code, _, text = show(nodes, "set", "--where", "tag=nobody", "hold=true", columns=200)
    assert (code, text) == (0, "mks: no job matches tag=nobody\n")


def test_get_shows_lines_of_output_as_lines(nodes, good):
    good("sub", "--id", "lines", "--wait", "p", "--", "printf", "one\\ntwo\\033[2J\\n")
    _, raw, text = show(nodes, "get", "lines")
    assert re.search(r"stdout +one *\n +two\\x1b\[2J *\n", text)
    assert "\x1b[2J" not in raw


def test_a_filter_that_matches_nothing_says_so(nodes):
    assert show(nodes, "ls", "tag=nobody")[2] == "mks: no job matches tag=nobody\n"


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
