"""Where a name leads to now, asked again and again while nobody answers where it led to before.

A node may come back at another address, and ZeroMQ only ever tries the one that it was given. The question is asked in
a thread of its own: where the network is down it takes long, and a Client is to say so by its deadline.
"""

from __future__ import annotations

import logging
import threading
from collections import deque

from meeseeks.errors import NodeUnreachable
from meeseeks.wire.origin import ip_version

from .settings import Address

__all__ = ["Lookup"]

_log = logging.getLogger(__name__)

_PAUSE_MIN, _PAUSE_MAX = 1.0, 30.0
"""Seconds before the first question and between two of them: twice as long each time."""
_GLANCE = 0.1
"""Seconds between two looks whether the answer is there."""


class Lookup:
    """The addresses of one name. Used by the thread of its Link."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._is_name = not ip_version(address.host)
        self._pause = _PAUSE_MIN
        self._at: float | None = None  # of the next question
        self._asking = False
        self._answers: deque[list[str]] = deque()

    def rest(self) -> None:
        """A node answers where we are: nothing is to be asked until it is gone."""
        self._pause, self._at = _PAUSE_MIN, None

    def look(self, now: float) -> list[str]:
        """The latest answer, once; empty if there is none now. Asks when it is time to."""
        if self._answers:
            self._asking = False
            return self._answers.popleft()
        if self._at is None:
            self._at = now + self._pause
        if self._is_name and not self._asking and now >= self._at:
            self._asking = True
            self._pause = min(_PAUSE_MAX, self._pause * 2)
            self._at = now + self._pause
            try:
                threading.Thread(target=self._ask, name="meeseeks-lookup", daemon=True).start()
            except RuntimeError as error:  # from Python 3.12 on also where the process ends, and we deliver the rest
                _log.warning("can't look up %s now: %s", self._address, error)
                self._asking = False
        return []

    def due(self, now: float) -> float:
        """When `look` wants to be called again."""
        if not self._is_name:
            return now + 3600.0
        return now + _GLANCE if self._asking else self._at or now

    def _ask(self) -> None:
        try:
            self._answers.append(self._address.resolve())
        except NodeUnreachable:
            self._answers.append([])  # names may be out of order as well: the address that we have is kept
