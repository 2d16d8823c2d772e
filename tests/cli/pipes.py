"""`mks` with pipes at its streams, for what is too large, or too long, for one call."""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path
from typing import IO, Any

from tests.cli.conftest import COMMAND, TIMEOUT, environment
from tests.support.nodes import NodeProcess

__all__ = ["Writer", "into_a_full_disk", "memory", "start"]


def start(node: NodeProcess | None, *args: str, stdin: int | IO[bytes] = subprocess.DEVNULL, **env: str) -> Any:
    """`mks args`, with pipes for stdout and stderr."""
    return subprocess.Popen(
        [*COMMAND, *args],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**environment(node), **env},
    )


def memory(pid: int) -> int:
    """The most that a running process has had in memory at once, in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) // 1024
    raise AssertionError(f"process {pid} has ended")


class Writer(threading.Thread):
    """Writes to a pipe as fast as that takes it; `written` is how far it is. It is closed at the end unless `keep`."""

    def __init__(self, pipe: IO[bytes], data: bytes, *, keep: bool = False) -> None:
        super().__init__(daemon=True)
        self._pipe, self._data, self._keep = pipe, data, keep
        self.written = 0
        self.broke = False
        self.start()

    def run(self) -> None:
        try:
            while self.written < len(self._data):
                self.written += os.write(self._pipe.fileno(), self._data[self.written : self.written + 65536])
        except BrokenPipeError:
            self.broke = True
        if not self._keep:
            self._pipe.close()


def into_a_full_disk(node: NodeProcess, *args: str) -> subprocess.CompletedProcess[str]:
    """A whole call of `mks` whose output can't be written, for want of room."""
    with Path("/dev/full").open("wb") as full:
        return subprocess.run(
            [*COMMAND, *args],
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=TIMEOUT,
            env=environment(node),
            check=False,
            text=True,
        )
