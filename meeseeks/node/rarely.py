"""Warnings that somebody else can cause as often as he likes: one line about each matter in a while."""

from __future__ import annotations

import logging
from collections.abc import Hashable

from meeseeks.clock import monotonic

__all__ = ["Rarely"]

_EVERY_S = 10.0
_MATTERS_MAX = 1000


class Rarely:
    """Says the first of a kind at once, and then one in ten seconds, with the number of those that were left out."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._said: dict[Hashable, tuple[float, int]] = {}

    def say(self, matter: Hashable, text: str, *, level: int = logging.WARNING, trace: bool = False) -> None:
        """Log `text`, unless something of this `matter` was logged just now. `trace`: with the exception at hand."""
        now = monotonic()
        at, left_out = self._said.get(matter, (float("-inf"), 0))
        if now - at < _EVERY_S:
            self._said[matter] = at, left_out + 1
            return
        if matter not in self._said and len(self._said) >= _MATTERS_MAX:
            self._said.clear()
        self._said[matter] = now, 0
        more = f" ({left_out} more like this were not logged)" if left_out else ""
        self._log.log(level, "%s%s", text, more, exc_info=trace)
