"""`mks top` in a terminal, as a person uses it: what it shows, what its keys do, and how it leaves the terminal."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest

from meeseeks.cli.cells import cut_id
from tests.cli.conftest import COMMAND, environment
from tests.cli.screen import ScreenTerminal
from tests.support.wait import wait_until

FIRST_ROW = 8
"""Of the jobs, under two nodes and two pools."""
HEADS = ("NODE ", "POOL ", "STATE ", "ENDED ")


@contextmanager
def top(nodes, *args, columns=80, lines=24, heads=HEADS) -> Iterator[ScreenTerminal]:
    command = [*COMMAND, "top", *args]
    with ScreenTerminal(command, env=environment(nodes[0]), columns=columns, lines=lines) as terminal:
        terminal.wait_screen(lambda text: all(head in text for head in heads))
        yield terminal
        if terminal.process.poll() is None:
            terminal.type(b"q")
            assert terminal.wait_end() == 0


def is_selected(terminal: ScreenTerminal, text: str) -> bool:
    for y, line in enumerate(terminal.screen):
        if (x := line.find(text)) >= 0 and terminal.emulator.buffer[y][x].reverse:
            return True
    return False


def selected_row(terminal: ScreenTerminal) -> int | None:
    rows = range(len(terminal.screen))
    return next((y for y in rows if terminal.emulator.buffer[y][0].reverse), None)


def selected_job(terminal: ScreenTerminal) -> str:
    row = selected_row(terminal)
    assert row is not None
    return terminal.screen[row].split()[4]


def point_at(terminal: ScreenTerminal, jid: str) -> None:
    """From the first job on, press j until that one is the one."""
    terminal.type(b"g")
    terminal.wait_screen(lambda _text: selected_row(terminal) == FIRST_ROW)
    while not is_selected(terminal, jid):
        row = selected_row(terminal)
        terminal.type(b"j")
        terminal.wait_screen(lambda _text, row=row: selected_row(terminal) != row)


numbers = count(1)


@pytest.fixture
def jobs(good, mks):
    """A job that runs, one that waits for nothing that comes, one that is held, one that has failed: by their ends."""
    n = next(numbers)
    good("sub", "--id", f"runs{n}", "--tag", "top", "p@a", "--", "sh", "-c", "echo hello; echo oops >&2; sleep 60")
    assert mks("sub", "--id", f"waits{n}", "--tag", "top", "nowhere", "--", "true").code == 0
    good("sub", "--id", f"holds{n}", "--tag", "top", "--hold", "p", "--", "true")
    good("sub", "--id", f"fails{n}", "--tag", "top", "p", "--", "/no/such/program")
    yield n
    good("kill", "tag=top")
    wait_until(lambda: not any(job["active"] for job in good("ls", "tag=top", "--json").json))
    good("set", "--where", "tag=top", "tags=")


def test_it_shows_nodes_pools_and_jobs(nodes, jobs):
    with top(nodes, "tag=top") as terminal:
        text = terminal.wait_screen(lambda text: "running" in text and "[can't start" in text and text)
        assert re.search(r"^a +online +\d+\.\d\d  p 1/2$", text, re.MULTILINE)
        assert re.search(r"^b +online +\d+\.\d\d  p 0/2  q 0/1$", text, re.MULTILINE)
        assert re.search(r"^p +█+░+ +1/4 +\d+  a b$", text, re.MULTILINE)
        assert re.search(r"^running +\d+s  a +p +runs\d+ +sh -c", text, re.MULTILINE)
        assert re.search(r"^held +\d+s  [ab] +p +holds\d+ +true$", text, re.MULTILINE)
        assert re.search(r"^waiting +\d+s  - +nowhere  waits\d+ +true$", text, re.MULTILINE)
        assert re.search(r"^failed +0s +\d+s +-  [ab] +p +fails\d+ +\[can't start '/no/such/pr", text, re.MULTILINE)
        assert terminal.colour_of("failed  ") == "red"
        assert terminal.colour_of("running  ") == "cyan"
        assert max(map(len, terminal.screen)) <= 80


def test_a_change_shows_by_itself(nodes, good):
    with top(nodes, "id=pushed*") as terminal:
        good("sub", "--id", "pushed1", "p", "--", "sleep", "60")
        terminal.wait_screen(lambda text: re.search(r"^running .*pushed1 +sleep 60$", text, re.MULTILINE))
        good("kill", "pushed1")
        terminal.wait_screen(lambda text: re.search(r"^killed .* -15 .*pushed1 +sleep 60$", text, re.MULTILINE))


def test_keys_kill_hold_and_release(nodes, good, jobs):
    with top(nodes, "tag=top") as terminal:
        point_at(terminal, f"runs{jobs}")
        terminal.type(b"x")
        terminal.wait_screen(lambda text: f"kill runs{jobs}? y / n" in text)
        terminal.type(b"n")
        terminal.wait_screen(lambda text: f"kill runs{jobs}?" not in text)
        terminal.type(b"h")
        terminal.wait_screen(lambda text: f"runs{jobs} runs already" in text)
        point_at(terminal, f"waits{jobs}")
        terminal.type(b"h")
        terminal.wait_screen(
            lambda text: f"waits{jobs} is on hold" in text and re.search("^held .*waits", text, re.MULTILINE)
        )
        wait_until(lambda: good("get", f"waits{jobs}", "--json").json[0]["hold"])
        terminal.type(b"r")
        terminal.wait_screen(lambda text: f"waits{jobs} is released" in text)
        wait_until(lambda: not good("get", f"waits{jobs}", "--json").json[0]["hold"])
        point_at(terminal, f"holds{jobs}")
        terminal.type(b"xy")
        terminal.wait_screen(lambda text: re.search(r"^killed .*holds", text, re.MULTILINE))
        assert good("ls", f"runs{jobs}").lines[0][1] == "running"
        point_at(terminal, f"fails{jobs}")
        terminal.type(b"x")
        terminal.wait_screen(lambda text: f"fails{jobs} has ended" in text)


def test_it_follows_the_output_of_a_job(nodes, jobs):
    with top(nodes, "tag=top") as terminal:
        point_at(terminal, f"runs{jobs}")
        terminal.type(b"l")
        terminal.wait_screen(lambda text: f"stdout of runs{jobs}  running" in text and "\nhello\n" in text)
        terminal.type(b"t")
        terminal.wait_screen(lambda text: f"stderr of runs{jobs}" in text and "\noops\n" in text)
        terminal.type(b"q")
        terminal.wait_screen(lambda text: "NODE " in text)
        for jid, said in ((f"waits{jobs}", "has not started"), (f"fails{jobs}", "failed")):
            point_at(terminal, jid)
            terminal.type(b"l")
            terminal.wait_screen(lambda text, jid=jid, said=said: f"stdout of {jid}  {said}" in text)
            terminal.type(b"q")
            terminal.wait_screen(lambda text: "NODE " in text)


def test_a_log_goes_on_with_the_next_run_of_its_job(nodes, good, tmp_path):
    go = tmp_path / "go"
    script = f"echo run $MEESEEKS_NODE; while [ ! -e {go} ]; do sleep 0.05; done; rm {go}; exit 1"
    good("sub", "--id", "reruns", "--retries", "1", "p@b", "--", "sh", "-c", f"echo $$; {script}")
    with top(nodes, "id=reruns") as terminal:
        point_at(terminal, "reruns")
        terminal.type(b"l")
        first = terminal.wait_screen(lambda text: "stdout of reruns  running" in text and re.search(r"\n(\d+)\n", text))
        go.touch()
        terminal.wait_screen(lambda text: (again := re.search(r"\n(\d+)\n", text)) and again[1] != first[1])
        go.touch()
        terminal.wait_screen(lambda text: "stdout of reruns  failed" in text)
        terminal.type(b"q")
        terminal.wait_screen(lambda text: "NODE " in text)


def test_a_filter_can_be_typed(nodes, jobs):
    with top(nodes) as terminal:
        terminal.type(f"/id=wx\x7faits{jobs}\r".encode())
        terminal.wait_screen(lambda text: "filter: id=waits" in text and "waits" in text and "holds" not in text)
        terminal.type(b"/\x15hol\r")
        terminal.wait_screen(lambda text: "filter: hol " in text and "holds" in text)
        terminal.type(b"/\x15colour=red\r")
        terminal.wait_screen(lambda text: "colour" in text and "filter: hol " not in text)  # the sentence, for a while
        terminal.type(b"s")
        terminal.wait_screen(lambda text: "sort:id" in text, timeout=30)


def test_thousands_of_jobs_are_no_burden(nodes, good):
    good("sub", "--id", "heap", "--array", "3000", "--tag", "heap", "--hold", "p", "--", "true")
    with top(nodes, "tag=heap") as terminal:
        terminal.wait_screen(lambda text: re.search(r"1-\d+ of 3,000$", text, re.MULTILINE))
        terminal.type(b"G")
        terminal.wait_screen(lambda text: "-3,000 of 3,000" in text and is_selected(terminal, "heap-"))
        last = selected_job(terminal)
        terminal.type(b"\x1b[5~\x1b[A")
        terminal.wait_screen(lambda _text: is_selected(terminal, "heap-") and selected_job(terminal) != last)
        terminal.type(b"g")
        first = r"1-\d+ of 3,000$"
        terminal.wait_screen(lambda text: re.search(first, text, re.MULTILINE) and is_selected(terminal, "heap-"))
    good("kill", "tag=heap")


@pytest.mark.parametrize(("columns", "lines"), [(200, 50), (40, 12), (20, 5)])
def test_it_takes_any_size_and_a_new_one(nodes, jobs, columns, lines):
    with top(nodes, "tag=top") as terminal:
        terminal.wait_screen(lambda text: "runs" in text)
        terminal.resize(columns, lines)
        terminal.wait_screen(lambda _text: re.match(r"filter: ta.*  q quit$", terminal.screen[-1]))
        assert len(terminal.screen) == lines
        assert re.search(r"(^|  )\d run(ning)?  \d wait", terminal.screen[0])


def test_a_narrow_one_still_tells_the_jobs_apart(nodes, good):
    good("sub", "--id", "narrow", "--array", "2", "p@a", "--", "sleep", "60")
    good("sub", "--id", "narrow-ended", "--wait", "p", "--", "true")
    with top(nodes, "id=narrow*", columns=40, lines=16, heads=HEADS[:1]) as terminal:
        text = terminal.wait_screen(lambda text: "ENDED" in text and "narrow-1" in text and text)
        assert re.search(r"^running +\d+s  a +narrow-0 +sl", text, re.MULTILINE)
        assert re.search(r"^done +\d+s +0  narrow-ended +t", text, re.MULTILINE)
        assert max(map(len, terminal.screen)) <= 40
    good("kill", "narrow-*")


def test_nothing_is_wiped_behind_a_full_line(nodes, jobs):
    """The cursor stays on its last letter, so a real terminal would wipe that; the emulator of these tests does not."""
    with top(nodes, "tag=top") as terminal:
        terminal.wait_screen(lambda text: "runs" in text)
        written = re.split(r"\x1b\[\d+;1H", terminal.text)[1:]
    full = [line for line in written if len(re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", line)) >= 80]
    assert full
    assert not [line for line in full if "\x1b[K" in line]


def test_a_node_that_is_gone_is_said(mesh_of, good):
    (a,) = mesh_of(1)
    with top([a]) as terminal:
        a.stop()
        terminal.wait_screen(lambda text: "the node does not answer" in text)
        a.restart()
        terminal.wait_screen(lambda text: "the node does not answer" not in text)


@pytest.mark.parametrize(("end", "code"), [(b"q", 0), (b"\x03", 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_the_terminal_is_as_before_however_it_ends(nodes, end, code):
    with top(nodes) as terminal:
        if isinstance(end, bytes):
            terminal.type(end)
        else:
            os.kill(terminal.process.pid, end)
        assert terminal.wait_end() == code
        for on, off in (("\x1b[?1049h", "\x1b[?1049l"), ("\x1b[?25l", "\x1b[?25h"), ("\x1b[?7l", "\x1b[?7h")):
            assert terminal.text.rindex(off) > terminal.text.rindex(on)
        assert "Traceback" not in terminal.text


def test_ctrl_z_gives_the_terminal_back_for_a_while(nodes):
    with top(nodes) as terminal:
        shown = terminal.text.count("mks top")
        terminal.type(b"\x1a")
        terminal.wait_for("\x1b[?1049l")
        wait_until(lambda: Path(f"/proc/{terminal.process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
        os.kill(terminal.process.pid, signal.SIGCONT)
        terminal.wait_screen(lambda _text: terminal.text.count("mks top") > shown)


@pytest.mark.parametrize(
    ("jid", "cells", "shown"),
    [
        ("short", 8, "short   "),
        ("0123456789abcdef0123456789abcdef-12", 20, "0123456789abc…def-12"),
        ("0123456789abcdef@render-node", 16, "012345678…r-node"),
        ("0123456789", 5, "0123…"),
    ],
)
def test_an_id_is_cut_where_it_says_least(jid, cells, shown):
    assert cut_id(jid, cells) == shown
