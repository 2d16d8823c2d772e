"""The state folder of a node: one node at a time, and only its user may look inside."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from pathlib import Path

from meeseeks.errors import ConfigError

__all__ = ["StateFolder"]


class StateFolder:
    """`state.dir`, locked. `spool` in it has the captured output of jobs, `name` the name of its node."""

    def __init__(self, path: Path, node: str, *, keep_output: bool) -> None:
        """`keep_output`: captured output outlives the node, as the table does that names it.

        ConfigError where it is another node's: under a new name this one would end the jobs that run there.
        """
        self.path = path
        self._keep_output = keep_output
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
        try:
            self._check_name(node)
        except BaseException:
            os.close(self._lock)
            raise
        if not keep_output:  # the table lives in memory: output of an earlier life belongs to no job any more
            shutil.rmtree(self.spool, ignore_errors=True)
        try:
            self.spool.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            os.close(self._lock)
            raise ConfigError(f"state.dir {path} can't be used: {error.strerror}") from error

    def _check_name(self, node: str) -> None:
        kept = self.path / "name"
        with contextlib.suppress(OSError):  # on a full disk a later start writes it
            owner = kept.read_text("utf-8", errors="replace") if kept.exists() else ""
            if not owner:  # none, or torn by a crash
                kept.write_text(node, "utf-8")
            elif owner != node:
                raise ConfigError(
                    f"state.dir {self.path} is of node {owner!r}, and this is node {node!r}: start it with "
                    f"name={owner}, or with a state.dir of its own"
                )

    def close(self) -> None:
        """Let the next node have it; output goes with a table that named it."""
        if not self._keep_output:
            shutil.rmtree(self.spool, ignore_errors=True)
        os.close(self._lock)
