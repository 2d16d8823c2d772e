"""`state.history`: one JSON line for each job that ended on this node, appended once its end is stored."""

from __future__ import annotations

import json
import logging
import math
import os
from collections import deque
from pathlib import Path
from typing import Any

from meeseeks.clock import monotonic
from meeseeks.errors import ConfigError

__all__ = ["History"]

_WAITING_MAX = 10_000
"""Lines that wait for room on the disk: later ones are missing."""
_RETRY_AFTER = 1.0

log = logging.getLogger(__name__)


class History:
    """An append-only file. A torn last line, left by a crash, is closed before the next one begins."""

    def __init__(self, path: str | None) -> None:
        self._file: int | None = None
        self._waiting: deque[bytes] = deque()
        self._retry_at = -math.inf
        if path is None:
            return
        try:
            self._file = os.open(Path(path), os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(f"state.history {path} can't be written: {error.strerror}") from error
        size = os.fstat(self._file).st_size
        if size and os.pread(self._file, 1, size - 1) != b"\n":
            self._waiting.append(b"\n")

    def append(self, info: dict[str, Any]) -> None:
        """Add a job; `write` writes it."""
        if self._file is None:
            return
        if len(self._waiting) >= _WAITING_MAX:
            log.warning("job %s is missing in the history: %d wait for room", info.get("id"), _WAITING_MAX)
            return
        self._waiting.append(json.dumps(info, separators=(",", ":"), default=str).encode() + b"\n")

    def write(self, *, is_stored: bool = True) -> None:
        """Write what waits, if the ends are stored: else the node's next life may tell of them again."""
        if self._file is None or not self._waiting or not is_stored or monotonic() < self._retry_at:
            return
        try:
            while self._waiting:
                line = self._waiting[0]
                count = os.write(self._file, line)
                if count < len(line):
                    self._waiting[0] = line[count:]  # the disk is full in the middle of a line
                else:
                    self._waiting.popleft()
        except OSError as error:  # a full disk must not end a node
            if self._retry_at == -math.inf:
                log.warning("the history can't be written, what ends waits for it: %s", error.strerror)
            self._retry_at = monotonic() + _RETRY_AFTER
        else:
            self._retry_at = -math.inf

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            if self._waiting:
                log.warning("%d jobs are missing in the history", len(self._waiting))
            os.close(self._file)
            self._file = None
