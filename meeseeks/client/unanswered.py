"""Submits that were sent and not answered: which node may have each job, and how it reads until somebody knows."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any, NamedTuple

from meeseeks.core.record import jobinfo

from .arguments import checked, is_several
from .settings import Place

__all__ = ["Unanswered"]

_KEPT = 10_000
"""Jobs that are remembered; beyond that the oldest is forgotten, so that a client that only fails does not grow."""


class _Entry(NamedTuple):
    place: Place
    node: str
    spec: Mapping[str, Any]
    at: float


class Unanswered:
    """By job id. Any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[str, _Entry] = {}

    def note(self, specs: Sequence[Mapping[str, Any]], place: Place, node: str) -> None:
        """These jobspecs, which have ids, were sent to the node at `place` (`node` as an error names it)."""
        with self._lock:
            for spec in specs:
                self._entries[spec["id"]] = _Entry(place, node, spec, time.time())
            while len(self._entries) > _KEPT:
                del self._entries[next(iter(self._entries))]

    def heard_of(self, jids: Iterable[str]) -> None:
        """These jobs are known to the mesh, or a node has said what became of their submit."""
        if self._entries:
            with self._lock:
                for jid in jids:
                    self._entries.pop(jid, None)

    def place(self, jid: object) -> Place | None:
        """Where the node is that may have a job; None if the job is not in doubt."""
        with self._lock:
            entry = self._entries.get(jid) if isinstance(jid, str) else None
            return None if entry is None else entry.place

    def infos(self, jids: Iterable[str]) -> dict[str, dict[str, Any]]:
        """The jobinfo of each of these jobs that is in doubt: its `state` is 'unknown', and `error` says why."""
        if not self._entries:
            return {}
        with self._lock:
            found = {jid: entry for jid in jids if (entry := self._entries.get(jid)) is not None}
        return {jid: _doubtful(jid, entry) for jid, entry in found.items() if not is_several(entry.spec.get("node"))}


def _doubtful(jid: str, entry: _Entry) -> dict[str, Any]:
    shown = import_module("meeseeks.client.shown")  # of the cache; a Client without one comes here seldom
    info = jobinfo(shown.provisional(jid, checked(entry.spec, new=True), "", entry.at), 0)
    return {**info, "submit_node": None, "state": shown.UNKNOWN, "error": f"{entry.node} did not answer its submit"}
