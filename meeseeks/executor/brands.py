"""A mark that processes can't lose by chance: the number of their task as their soft RLIMIT_LOCKS.

The mark in the environment (`processes.TASK_MARK`) is gone after `env -i` or sudo. Limits are inherited by whatever a
process starts, and this one means nothing: the kernel has ignored it since 2.4.25, and by default it is unlimited. Who
sets it all the same is told by its session, its parents and its environment, as are all where an admin has set the hard
limit lower than our numbers.
"""

from __future__ import annotations

import hashlib
import logging
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache

from .processes import lock_limit_of

__all__ = ["brand", "branded", "drop_brand", "is_branded_by"]

_RLIMIT_LOCKS = 10
_ABOVE = 1 << 60
"""No limit that anybody would set for itself."""
_TASKS_MAX = 1 << 32

log = logging.getLogger(__name__)


def brand(mark: str) -> int:
    """The number for a task's mark, which is `ID.NUMBER`; for the id alone, the number below its first task's."""
    family, _, number = mark.partition(".")
    return _base(family) + (int(number) if number.isdecimal() else 0)


def is_branded_by(family: str, pid: int) -> bool:
    """Whether this process is of a task of the executor whose marks begin with this id."""
    limit = lock_limit_of(pid)
    return limit is not None and 0 < limit - _base(family) < _TASKS_MAX


@contextmanager
def branded(mark: str) -> Iterator[None]:
    """What is started meanwhile has the brand of this mark, if that can be had."""
    hard = _usable_hard_limit()
    if hard is None:
        yield
        return
    with suppress(OSError, ValueError):  # somebody has lowered our limits since
        resource.setrlimit(_RLIMIT_LOCKS, (brand(mark), hard))
    try:
        yield
    finally:
        with suppress(OSError, ValueError):
            resource.setrlimit(_RLIMIT_LOCKS, (hard, hard))


def drop_brand() -> None:
    """Have none from now on: our node may itself have been started by a job."""
    _usable_hard_limit()


@cache
def _base(family: str) -> int:
    return _ABOVE + int.from_bytes(hashlib.blake2b(family.encode(), digest_size=7).digest(), "big")


@cache
def _usable_hard_limit() -> int | None:
    """None where it is too low. Our own soft limit is as high from then on."""
    hard = resource.getrlimit(_RLIMIT_LOCKS)[1]
    try:
        resource.setrlimit(_RLIMIT_LOCKS, (2 * _ABOVE, hard))
        resource.setrlimit(_RLIMIT_LOCKS, (hard, hard))
    except (OSError, ValueError) as error:
        log.info("tasks' processes get no mark in RLIMIT_LOCKS: %s", error)
        return None
    return hard
