"""The tests' own helpers: what they wait for and what they call a leak."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import count

import pytest

from tests.support.processes import children_of, is_running, kill_all, marked
from tests.support.wait import wait_until


def test_wait_until_returns_the_first_truthy_value():
    values = iter([0, None, "", "here"])
    assert wait_until(lambda: next(values)) == "here"


def test_wait_until_says_what_it_waited_for_and_what_it_saw_last():
    calls = count()
    with pytest.raises(AssertionError) as failure:
        wait_until(lambda: next(calls) < 0, timeout=0.02, describe=lambda: "pigs to fly")
    assert "0.02 s in vain for pigs to fly; last value: False" in str(failure.value)
    assert next(calls) > 1


def test_wait_until_lets_an_error_of_the_predicate_out():
    with pytest.raises(ZeroDivisionError):
        wait_until(lambda: 1 // 0)


def test_a_process_of_this_test_is_found_killed_and_gone():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        wait_until(lambda: [p for p in marked() if p.pid == child.pid and "input()" in p.command])
        assert is_running(child.pid)
        assert child.pid in children_of(os.getpid())
        kill_all([process for process in marked() if process.pid == child.pid])
        wait_until(lambda: not is_running(child.pid))
    finally:
        child.kill()
        child.communicate()
    assert marked("no such node") == []
