"""Waiting for a condition. The only place in the tests that sleeps: nothing waits for a fixed time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["wait_until"]

T = TypeVar("T")

_FIRST_POLL_S = 0.001
_LONGEST_POLL_S = 0.05
_LONGEST_TURN_S = 1.0
"""For more than that one turn does not count: a machine that stands still gives nobody the time to do anything."""


def wait_until(
    predicate: Callable[[], T],
    timeout: float = 10.0,
    describe: Callable[[], object] | str | None = None,
) -> T:
    """The first truthy value of `predicate`, which is asked again and again for `timeout` seconds.

    Else an AssertionError that says what was waited for: `describe`, a text or a function that is called only then,
    and the predicate's last value. What the predicate raises goes to the caller at once.
    """
    left_s, pause = timeout, _FIRST_POLL_S
    began_at = time.monotonic()
    while True:
        value = predicate()
        if value:
            return value
        now = time.monotonic()
        left_s, began_at = left_s - min(now - began_at, _LONGEST_TURN_S), now
        if left_s <= 0:
            break
        time.sleep(pause)
        pause = min(pause * 2, _LONGEST_POLL_S)
    said = describe() if callable(describe) else describe
    wanted = getattr(predicate, "__name__", repr(predicate))
    raise AssertionError(f"waited {timeout:g} s in vain for {said or wanted}; last value: {value!r}")
