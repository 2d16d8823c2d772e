"""A program in a pseudo-terminal, as a person would see it: what stands where on the screen right now."""

from __future__ import annotations

import codecs
import fcntl
import os
import signal
import struct
import termios
import time
from collections.abc import Callable
from typing import TypeVar

import pyte

from tests.cli.terminal import Terminal

__all__ = ["ScreenTerminal"]

T = TypeVar("T")


class ScreenTerminal(Terminal):
    """A Terminal whose screen is kept by a terminal emulator."""

    def __init__(self, command: list[str], *, env: dict[str, str], columns: int = 80, lines: int = 24) -> None:
        super().__init__(command, env=env, columns=columns, lines=lines)
        self.emulator = pyte.Screen(columns, lines)
        self._stream = pyte.Stream(self.emulator)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._fed = 0

    @property
    def screen(self) -> list[str]:
        """The lines on the screen, without blanks at their ends."""
        self._stream.feed(self._decoder.decode(self._data[self._fed :]))
        self._fed = len(self._data)
        return [line.rstrip() for line in self.emulator.display]

    def colour_of(self, text: str) -> str:
        """The colour in which a text that is on the screen begins."""
        for y, line in enumerate(self.screen):
            if (x := line.find(text)) >= 0:
                return str(self.emulator.buffer[y][x].fg)
        raise AssertionError(f"{text!r} is not on the screen:\n" + "\n".join(self.screen))

    def wait_screen(self, ready: Callable[[str], T], timeout: float = 20.0) -> T:
        """Read until the screen, as one text, is what is wanted; the value of `ready`."""
        deadline = time.monotonic() + timeout
        while not (value := ready("\n".join(self.screen))):
            shown = "\n".join(self.screen)
            assert time.monotonic() < deadline, f"waited in vain; the screen is:\n{shown}"
            assert self._read(deadline), f"the program ended; the screen was:\n{shown}"
        return value

    def resize(self, columns: int, lines: int) -> None:
        """As when the user pulls at the window."""
        self.screen  # noqa: B018 - what was shown so far was for the old size
        self.emulator.resize(lines, columns)
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        os.killpg(self.process.pid, signal.SIGWINCH)
