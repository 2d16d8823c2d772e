"""The exit codes of `mks`: part of its interface, for scripts. `mks run` ends with its job's own code instead."""

from __future__ import annotations

from typing import Final

from meeseeks.errors import AuthenticationFailed, InvalidRequest, NodeUnreachable, RequestTimeout

__all__ = [
    "BROKEN_PIPE",
    "FAILED",
    "INTERRUPTED",
    "NOT_LET_IN",
    "OK",
    "SIGNAL_BASE",
    "UNREACHABLE",
    "WRONG_USAGE",
    "exit_code_of",
]

OK: Final = 0
"""It did what was asked; for `wait` and `sub --wait`: all jobs are done."""
FAILED: Final = 1
"""A job failed, was killed or is not there; or the node could not carry the request out, or of many jobs a part."""
WRONG_USAGE: Final = 2
"""The command line, a filter, a jobspec or a configuration is wrong. Nothing was changed."""
UNREACHABLE: Final = 3
"""No node answers at the address, or not in time; also a `--timeout` that has passed."""
NOT_LET_IN: Final = 4
"""A node answers and does not let us in."""
SIGNAL_BASE: Final = 128
"""Ended by signal n, or the job of `mks run` was: 128 + n, as in a shell."""
INTERRUPTED: Final = SIGNAL_BASE + 2
"""Ctrl-C."""
BROKEN_PIPE: Final = SIGNAL_BASE + 13
"""Whoever read our output went away, as `head` does."""


def exit_code_of(error: Exception) -> int:
    """The exit code that an error stands for."""
    if isinstance(error, InvalidRequest):
        return WRONG_USAGE
    if isinstance(error, AuthenticationFailed):
        return NOT_LET_IN
    if isinstance(error, (NodeUnreachable, RequestTimeout)):
        return UNREACHABLE
    return FAILED
