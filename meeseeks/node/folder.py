"""The state folder of a node: one node at a time, and only its user may look inside."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path

from meeseeks.errors import ConfigError

__all__ = ["StateFolder"]


class StateFolder:
    """`state.dir`, locked. `spool` in it has the captured output of jobs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.spool = path / "spool"
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(f"state.dir {path} can't be used: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise ConfigError(f"state.dir {path} is in use by another node: give each its own") from error
        # The table lives in memory: output of an earlier life belongs to no job any more.
        shutil.rmtree(self.spool, ignore_errors=True)
        self.spool.mkdir(mode=0o700)

    def close(self) -> None:
        """Let the next node have it; output goes with the table that named it."""
        shutil.rmtree(self.spool, ignore_errors=True)
        os.close(self._lock)
