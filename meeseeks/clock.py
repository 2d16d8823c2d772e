"""The clock that decides: seconds since the machine was started, which nobody can set.

Unlike `time.monotonic` it goes on while the machine sleeps: a laptop that wakes up must not take a lease that ran out
meanwhile for fresh (man 2 clock_getres, CLOCK_BOOTTIME). All processes of a machine share it.
"""

from __future__ import annotations

import time

__all__ = ["monotonic"]


def monotonic() -> float:
    """Seconds; only differences mean anything."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
