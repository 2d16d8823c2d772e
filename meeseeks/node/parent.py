"""A node that another process has started for itself ends with it, also where that one is killed without a word."""

from __future__ import annotations

import ctypes
import os
import signal

__all__ = ["PARENT", "end_with_parent"]

PARENT = "MEESEEKS_PARENT"
"""The environment variable that has the process id of who started the node, and without whom it is not to live."""
_PR_SET_PDEATHSIG = 1


def end_with_parent() -> bool:
    """Have a SIGTERM come when the process that PARENT names ends; False if it has ended already.

    The variable is taken out of the environment: what the node starts is not meant. `prctl(2)` has it that the signal
    comes when the *thread* ends that started us: it has to be the main one.
    """
    parent = os.environ.pop(PARENT, None)
    if parent is None:
        return True
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    return parent == str(os.getppid())
