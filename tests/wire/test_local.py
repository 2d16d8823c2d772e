"""The line between a node and its executor: what it promises when an end is slow, away, or not ours."""

from __future__ import annotations

import os
import select
import socket
import struct

import pytest

from meeseeks.errors import InvalidRequest
from meeseeks.wire.local import Dialer, Line, Listener
from meeseeks.wire.messages import MAX_MESSAGE_BYTES
from tests.support.wait import wait_until


@pytest.fixture
def ends(tmp_path):
    listener, dialer = Listener(tmp_path / "line"), Dialer(tmp_path / "line")
    assert dialer.dial()
    assert listener.receive() == []  # lets it in
    yield listener, dialer
    for end in (listener, dialer):
        if not end.closed:
            end.close()


def is_readable(end: Line) -> bool:
    poller = select.poll()
    poller.register(end, select.POLLIN)
    return bool(poller.poll(0))


def received(end: Line, count: int) -> list[bytes]:
    frames: list[bytes] = []

    def has_all() -> bool:
        frames.extend(end.receive())
        return len(frames) >= count

    wait_until(has_all, 20)
    return frames


def test_frames_arrive_whole_and_in_order(ends):
    listener, dialer = ends
    sent = [b"", b"a", os.urandom(70_000), b"end"]
    for frame in sent:
        assert dialer.send(frame)
    assert is_readable(listener)
    assert received(listener, 4) == sent
    assert not is_readable(listener)
    assert listener.send(b"back")
    assert received(dialer, 1) == [b"back"]


def test_a_frame_that_does_not_fit_is_finished_as_the_other_end_reads(ends):
    listener, dialer = ends
    large = os.urandom(8 * 1024 * 1024)
    assert listener.send(large)
    assert not listener.send(b"later")  # nothing may overtake the rest of it
    got: list[bytes] = []

    def whole() -> bool:
        got.extend(dialer.receive())
        assert is_readable(listener) or got  # there is room: `receive` sends on
        assert listener.receive() == []
        return bool(got)

    wait_until(whole, 20)
    assert got == [large]
    assert listener.send(b"later")
    assert received(dialer, 1) == [b"later"]
    assert not is_readable(listener)


def test_who_never_reads_is_sent_only_so_much(ends):
    listener, dialer = ends
    count = 0
    while dialer.send(bytes(10_000)):
        count += 1
        assert count < 10_000
    assert received(listener, count)[:1] == [bytes(10_000)]


def test_last_words_are_heard_before_the_end(ends):
    listener, dialer = ends
    assert listener.send(b"unread")
    assert dialer.send(b"last words")
    dialer.close()
    assert listener.receive() == [b"last words"]
    wait_until(lambda: listener.receive() == [] and not listener.is_connected, 5)
    assert not listener.send(b"to nobody")


def test_what_was_sent_in_part_gets_its_rest_at_close(ends):
    listener, dialer = ends
    large = os.urandom(400_000)
    while dialer.send(large):
        continue  # until one is sent in part only
    received(listener, 1)
    dialer.close(linger_s=5)
    rest: list[bytes] = []

    def ended() -> bool:
        rest.extend(listener.receive())
        return not listener.is_connected

    wait_until(ended, 20)
    assert set(rest) <= {large}


def test_it_can_be_dialled_again(ends, tmp_path):
    listener, dialer = ends
    dialer.send(b"half of")
    listener.close()
    wait_until(lambda: dialer.receive() == [] and not dialer.is_connected, 5)
    assert not dialer.dial()  # nobody listens there
    again = Listener(tmp_path / "line")
    assert dialer.dial()
    assert dialer.send(b"new")
    assert received(again, 1) == [b"new"]
    again.close()


def test_nobody_else_is_let_in_meanwhile(ends, tmp_path):
    listener, dialer = ends
    with socket.socket(socket.AF_UNIX) as other:
        other.connect(str(tmp_path / "line"))
        assert listener.receive() == []
        other.settimeout(5)
        assert other.recv(1) == b""
    assert dialer.send(b"still here")
    assert received(listener, 1) == [b"still here"]


def test_what_is_no_frame_ends_the_connection(tmp_path):
    listener = Listener(tmp_path / "line")
    with socket.socket(socket.AF_UNIX) as other:
        other.connect(str(tmp_path / "line"))
        listener.receive()
        other.sendall(struct.pack("<I", MAX_MESSAGE_BYTES + 1))
        assert listener.receive() == []
        assert not listener.is_connected
    listener.close()


def test_a_path_that_is_too_long_is_refused(tmp_path):
    with pytest.raises(InvalidRequest, match="too long"):
        Listener(tmp_path / ("x" * 200))


def test_what_somebody_said_who_left_before_he_was_let_in_is_heard(tmp_path):
    listener, dialer = Listener(tmp_path / "line"), Dialer(tmp_path / "line")
    assert dialer.dial()
    assert dialer.send(b"last words")
    dialer.close()
    assert listener.receive() == [b"last words"]
    listener.close()
