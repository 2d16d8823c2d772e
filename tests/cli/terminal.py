"""A program in a pseudo-terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from types import TracebackType
from typing import Self

__all__ = ["Terminal"]


class Terminal:
    """Runs a command with a terminal of its own as stdin, stdout and stderr; `text` is all that it has shown."""

    def __init__(self, command: list[str], *, env: dict[str, str], columns: int = 80, lines: int = 24) -> None:
        self._command = command
        self._env = {**{k: v for k, v in env.items() if k not in ("NO_COLOR", "COLUMNS")}, "TERM": "xterm-256color"}
        self._size = (lines, columns)
        self._data = b""
        self._fd = -1

    def __enter__(self) -> Self:
        self._fd, inside = pty.openpty()
        fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", *self._size, 0, 0))

        def make_it_ours() -> None:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(
            self._command,
            stdin=inside,
            stdout=inside,
            stderr=inside,
            env=self._env,
            start_new_session=True,
            preexec_fn=make_it_ours,  # noqa: PLW1509 - the only thread that tests have here is this one
        )
        os.close(inside)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._fd)

    @property
    def text(self) -> str:
        return self._data.decode(errors="replace")

    def type(self, keys: bytes) -> None:
        os.write(self._fd, keys)

    def wait_for(self, wanted: str, timeout: float = 20.0) -> None:
        """Read until that text was shown."""
        deadline = time.monotonic() + timeout
        while wanted not in self.text:
            assert self._read(deadline), f"the program ended without {wanted!r}; it showed {self.text!r}"

    def wait_end(self, timeout: float = 20.0) -> int:
        """Read to the end; the exit code."""
        deadline = time.monotonic() + timeout
        while self._read(deadline):
            pass
        return self.process.wait(max(0.1, deadline - time.monotonic()))

    def _read(self, deadline: float) -> bool:
        readable, _, _ = select.select([self._fd], [], [], max(0.0, deadline - time.monotonic()))
        assert readable, f"nothing more came in time after {self.text!r}"
        try:
            data = os.read(self._fd, 65536)
        except OSError:  # EIO: the other side was closed
            return False
        self._data += data
        return bool(data)
