"""The one Client that all Jobs share which name none."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .client import Client

__all__ = ["SHARED"]


class _Shared:
    """A place for one Client, made when it is first needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._client: Client | None = None
        self._again: Callable[[], Client] | None = None
        self._after_fork: Callable[[], Client] | None = None

    def replace(self, client: Client | None, again: Callable[[], Client] | None = None) -> None:
        """Use this one from now on (None: make a new one when it is needed). Jobs that have the former keep it.

        `again` makes the same in a process that is forked.
        """
        with self._lock:
            self._client, self._again, self._after_fork = client, again, None

    def get(self, make: Callable[[], Client]) -> Client:
        """The Client; made now if there is none yet, or if it was closed."""
        with self._lock:
            if self._client is None or self._client.closed:
                self._client = (self._after_fork or make)()
            return self._client

    def on_fork(self) -> None:
        """In the child, where the thread of the Client is not; another thread may have held the lock."""
        self._lock = threading.Lock()
        self._client, self._after_fork = None, self._again


SHARED = _Shared()
os.register_at_fork(after_in_child=SHARED.on_fork)
