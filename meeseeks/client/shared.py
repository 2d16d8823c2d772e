"""The one Client that all Jobs share which name none."""

from __future__ import annotations

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

    def replace(self, client: Client | None) -> None:
        """Use this one from now on (None: make a new one when it is needed). Jobs that have the former keep it."""
        with self._lock:
            self._client = client

    def get(self, make: Callable[[], Client]) -> Client:
        """The Client; made now if there is none yet, or if it was closed."""
        with self._lock:
            if self._client is None or self._client.closed:
                self._client = make()
            return self._client


SHARED = _Shared()
