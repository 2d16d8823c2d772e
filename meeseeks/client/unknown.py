"""Jobs that a node does not know: which of them may still come, and which are none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .arguments import is_exited

__all__ = ["UNKNOWN_FOR", "Unknown"]

UNKNOWN_FOR = 3.0
"""Seconds. A job that another node took this moment is unknown to ours for some milliseconds, or until a broadcast that
was lost is asked for again: what nobody has heard of for so long is no job."""
_PAUSE_COUNTS = 1.0
"""Most seconds of the time between two answers in which a job counts as unknown. Who was suspended in it, or waited for
a disk, has learned no more from the second answer than that the job is unknown still."""


class Unknown:
    """For how long the jobs that somebody asks for again and again have been unknown.

    Also those that were seen: the Client may have moved on to a node that has not heard of them yet.
    """

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._sorted_at = 0.0

    def sort(self, asked: Iterable[str], infos: Mapping[str, Any], now: float) -> list[str]:
        """Of the ids that were asked for just now, those that are over: ended, gone again, or no jobs at all."""
        passed, self._sorted_at = min(now - self._sorted_at, _PAUSE_COUNTS), now
        over = []
        for jid in asked:
            if jid in infos:
                self._seconds.pop(jid, None)
                if is_exited(infos[jid]):
                    over.append(jid)
                continue
            self._seconds[jid] = self._seconds[jid] + passed if jid in self._seconds else 0.0
            if self._seconds[jid] >= UNKNOWN_FOR:
                over.append(jid)
        return over
