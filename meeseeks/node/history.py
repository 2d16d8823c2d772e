"""`state.history`: one JSON line for each job that ended on this node, appended."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

from meeseeks.errors import ConfigError

__all__ = ["History"]

log = logging.getLogger(__name__)


class History:
    """An append-only file. A torn last line, left by a crash, is closed before the next one begins."""

    def __init__(self, path: str | None) -> None:
        self._file: int | None = None
        if path is None:
            return
        try:
            self._file = os.open(Path(path), os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(f"state.history {path} can't be written: {error.strerror}") from error
        size = os.fstat(self._file).st_size
        if size and os.pread(self._file, 1, size - 1) != b"\n":
            os.write(self._file, b"\n")

    def append(self, info: dict[str, Any]) -> None:
        """Add a job."""
        if self._file is None:
            return
        line = json.dumps(info, separators=(",", ":"), default=str).encode() + b"\n"
        try:
            os.write(self._file, line)
        except OSError as error:  # a full disk must not end a node
            log.warning("job %s is missing in the history: %s", info.get("id"), error)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
