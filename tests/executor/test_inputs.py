"""Stdin that comes in pieces: taken once, in order, no faster than it is read, and kept while no node is there."""

from __future__ import annotations

import itertools

import pytest

from meeseeks.core.effects import TaskKey
from meeseeks.wire.messages import Fed, Feed
from tests.support.wait import wait_until

NUMBERS = itertools.count(1)
MIB = 1024 * 1024


def feed(node, key, offset: int, data: bytes, *, eof: bool = False) -> tuple[int, bool]:
    """(how much was taken by now, whether more is wanted)."""
    number = next(NUMBERS)
    node.send(Feed(key=key, number=number, offset=offset, data=data, eof=eof))

    def answer() -> Fed | None:
        node.poll()
        return next((fed for fed in node.handle.take_fed() if fed.number == number), None)

    fed = wait_until(answer, 20, "an answer")
    assert fed.key == key
    return fed.taken, fed.open


def cat(node, job: str = "cat", **rest) -> TaskKey:
    key = node.start(job, "cat", stdin="-", **rest)
    node.started(key)
    return key


def test_pieces_come_in_order_and_end(node):
    key = cat(node)
    assert feed(node, key, 0, b"one\n") == (4, True)
    assert feed(node, key, 4, b"\0\xff") == (6, True)
    assert feed(node, key, 6, b"end", eof=True) == (9, False)
    end = node.exited(key)
    assert (end.rc, end.stdout_data) == (0, b"one\n\0\xffend")


def test_a_piece_that_is_sent_again_does_nothing_and_a_gap_is_not_filled(node):
    key = cat(node)
    assert feed(node, key, 0, b"abc") == (3, True)
    assert feed(node, key, 0, b"abc") == (3, True)
    assert feed(node, key, 1, b"bcde") == (5, True)
    assert feed(node, key, 9, b"later", eof=True) == (5, True)
    assert feed(node, key, 5, b"", eof=True) == (5, False)
    assert feed(node, key, 5, b"", eof=True)[1] is False
    assert node.exited(key).stdout_data == b"abcde"


def test_a_reader_that_is_slow_is_waited_for(node, tmp_path):
    go = tmp_path / "go"
    key = node.start("slow", "sh", "-c", f"while ! [ -e {go} ]; do sleep 0.02; done; exec wc -c", stdin="-")
    node.started(key)
    taken = 0
    for _ in range(3):
        taken, is_open = feed(node, key, taken, bytes(MIB))
        assert is_open
    assert MIB <= taken < 2 * MIB, "what is in the pipe and the buffer, and no more"
    go.touch()
    while taken < 5 * MIB:
        taken, _ = feed(node, key, taken, bytes(5 * MIB - taken)[:MIB])
    feed(node, key, taken, b"", eof=True)
    assert int(node.exited(key).stdout_data) == 5 * MIB


def test_nobody_reads_any_more(node):
    closed = node.start("closed", "sh", "-c", "exec <&-; echo; exec sleep 60", stdin="-")
    node.started(closed)
    wait_until(lambda: not feed(node, closed, 0, b"x")[1])
    node.kill(closed)
    node.exited(closed)
    for key in (closed, node.key("no-such-task")):
        assert feed(node, key, 0, b"x")[1] is False


@pytest.mark.parametrize("what", [{"run": 2}, {"stdin": None}])
def test_only_a_first_run_that_asks_for_it_is_given_input(node, what):
    key = node.start("job", "cat", **{"stdin": "-", **what})
    assert node.exited(key).rc == 0
    assert feed(node, key, 0, b"x")[1] is False


def test_input_outlives_the_node(make_node, tmp_path):
    first = make_node(outlive=True)
    key = cat(first)
    assert feed(first, key, 0, b"before ") == (7, True)
    first.handle.detach()
    second = make_node(outlive=True)
    second.adopted()
    assert feed(second, key, 0, b"before and after", eof=True) == (16, False)
    assert second.exited(key).stdout_data == b"before and after"
