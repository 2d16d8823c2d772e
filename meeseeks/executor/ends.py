"""Ends that no node has acknowledged, in a file: an executor need not live until there is a node to tell them to.

Whoever comes next reads them, and tells them as its own. One that is told twice does no harm: a node knows by the
task's key what it has stored already.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from meeseeks.core.effects import Exited

__all__ = ["ENDS_NAME", "Ends"]

ENDS_NAME = "executor.ends"
"""Its file name, in the folder that holds the spool."""

_decoder = msgspec.msgpack.Decoder(list[Exited])

log = logging.getLogger(__name__)


class Ends:
    """The file of an executor that outlives its node."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._is_there = path.exists()
        self._trouble: str | None = None

    def read(self) -> list[Exited]:
        """What an earlier executor has kept. What can't be read is left where it is, and told in the log."""
        if not self._is_there:
            return []
        try:
            return _decoder.decode(self._path.read_bytes())
        except (OSError, msgspec.DecodeError) as error:
            log.error("%s can't be read: %s: its jobs will read 'executor lost'", self._path, error)  # noqa: TRY400 - the sentence says it all
            return []

    def keep(self, ends: Sequence[Exited]) -> bool:
        """Have exactly these on the disk, if need be in place of others. False where there is no room."""
        if not ends:
            self.forget()
            return True
        partial = self._path.with_suffix(".ends-new")
        try:
            fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(msgspec.msgpack.encode(list(ends)))
                file.flush()
                os.fsync(fd)
            partial.rename(self._path)
        except OSError as error:
            if self._trouble != error.strerror:
                log.warning("%d ends can't be kept in %s: %s", len(ends), self._path, error.strerror)
            self._trouble = error.strerror
            partial.unlink(missing_ok=True)
            return False
        self._is_there, self._trouble = True, None
        log.info("%d ends are kept in %s for the next node", len(ends), self._path)
        return True

    def forget(self) -> None:
        """All that was kept has been acknowledged."""
        if self._is_there:
            self._path.unlink(missing_ok=True)
            self._is_there = False
