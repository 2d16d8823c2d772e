"""The end of the process: what was written to a cache and not delivered yet still has its `timeout`."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import weakref
from typing import Protocol

__all__ = ["close_at_exit", "forget"]


class _Closable(Protocol):
    def close(self) -> None:
        """Deliver what is unsent, within a deadline, and end."""

    def undelivered(self) -> str:
        """What to say of what came to nothing; blank if all is well."""


_log = logging.getLogger(__name__)
_open: weakref.WeakSet[_Closable] = weakref.WeakSet()
_finalized: set[int] = set()  # this process, and those that forked it, where multiprocessing is to tell of the end


def close_at_exit(one: _Closable) -> None:
    """Have it closed at the end of this process, unless it is forgotten before."""
    _open.add(one)
    # A child that multiprocessing has forked ends without `atexit`, but for what is registered with it in the child.
    util = sys.modules.get("multiprocessing.util")
    if util is not None and os.getpid() not in _finalized:
        _finalized.add(os.getpid())
        util.Finalize(None, _close_all, exitpriority=0)


def forget(one: _Closable) -> None:
    """It is closed."""
    _open.discard(one)


@atexit.register
def _close_all() -> None:
    for one in list(_open):
        one.close()
        if undelivered := one.undelivered():  # nobody else says so where a script just ends
            _log.warning("%s", undelivered)
