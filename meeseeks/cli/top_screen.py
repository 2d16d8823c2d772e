"""The terminal of `mks top`: raw keys in, changed lines out, and the terminal as it was before, however it ends."""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import signal
import sys
import termios
import tty
from collections.abc import Sequence
from types import FrameType, TracebackType
from typing import Any, Self

from rich.cells import cell_len

from .cells import cut
from .output import clean

__all__ = ["Line", "Screen"]

Line = Sequence[tuple[str, str]]
"""Pieces of text, each with its style: words like `bold`, `red`, `reverse`, or nothing."""

_CODES = {"bold": 1, "dim": 2, "underline": 4, "reverse": 7, "red": 31, "green": 32, "yellow": 33, "cyan": 36}
_WITHOUT_COLOUR = ("bold", "underline", "reverse")
_ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l"  # the other screen, no cursor, no wrapping
_LEAVE = "\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l"
_KEYS = {
    **dict.fromkeys(("\x1b[A", "\x1bOA"), "up"),
    **dict.fromkeys(("\x1b[B", "\x1bOB"), "down"),
    **dict.fromkeys(("\x1b[H", "\x1bOH", "\x1b[1~"), "home"),
    **dict.fromkeys(("\x1b[F", "\x1bOF", "\x1b[4~"), "end"),
    "\x1b[5~": "page up",
    "\x1b[6~": "page down",
    "\r": "enter",
    "\n": "enter",
    "\t": "tab",
    "\x1b": "escape",
    "\x7f": "backspace",
    "\b": "backspace",
    "\x15": "clear",
}
_SEQUENCE = re.compile(r"\x1b[\[O][0-9;]*[A-Za-z~]|.", re.DOTALL)
_ESCAPE_S = 0.05
"""How long the rest of a key's sequence may take after its escape."""


class Screen:
    """While it is entered, the terminal is ours. Ctrl-Z works; a signal that ends us restores it first."""

    def __init__(self) -> None:
        self._in, self._out = sys.stdin.fileno(), sys.stdout.fileno()
        self._colours = "NO_COLOR" not in os.environ
        self._shown: list[str] = []
        self._before: list[Any] = []
        self._handlers: dict[int, Any] = {}
        self._wake_r, self._wake_w = -1, -1
        self._resized = self._stopped = False
        self.width, self.height = 80, 24

    def __enter__(self) -> Self:
        self._before = termios.tcgetattr(self._in)
        self._wake_r, self._wake_w = os.pipe()
        os.set_blocking(self._wake_r, False)
        os.set_blocking(self._wake_w, False)
        self._wakeup_before = signal.set_wakeup_fd(self._wake_w, warn_on_full_buffer=False)
        signals: dict[int, Any] = {signal.SIGWINCH: self._on_resize, signal.SIGTSTP: self._on_stop}
        signals |= {signal.SIGTERM: self._on_end, signal.SIGHUP: self._on_end}
        self._handlers = {number: signal.signal(number, handler) for number, handler in signals.items()}
        self._take()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._give_back()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        os.close(self._wake_r)
        os.close(self._wake_w)

    def keys(self, timeout: float) -> list[str]:
        """The keys that are pressed within the time, as soon as there are any; also returns when the size changes."""
        readable, _, _ = select.select([self._in, self._wake_r], [], [], timeout)
        if self._wake_r in readable:
            os.read(self._wake_r, 4096)
            self._after_signal()
        if self._in not in readable:
            return []
        data = os.read(self._in, 4096)
        if not data:
            raise EOFError("the terminal is gone")
        if data.endswith(b"\x1b") and select.select([self._in], [], [], _ESCAPE_S)[0]:
            data += os.read(self._in, 4096)
        found = _SEQUENCE.findall(data.decode(errors="ignore"))
        return [_KEYS.get(key, key) for key in found if key in _KEYS or len(key) == 1]

    def show(self, lines: Sequence[Line]) -> None:
        """Write what differs from what is on the screen."""
        painted = [self._paint(line) for line in lines[: self.height]]
        painted += ["\x1b[K"] * (self.height - len(painted))
        out = [
            f"\x1b[{at};1H{text}"
            for at, (text, before) in enumerate(zip(painted, self._shown, strict=True), 1)
            if text != before
        ]
        if out:
            self._write("".join(out))
            self._shown = painted

    # --- inside

    def _paint(self, line: Line) -> str:
        left, out = self.width, []
        for text, style in line:
            if left <= 0:
                break
            shown = clean(text)
            if cell_len(shown) > left:
                shown = cut(shown, left)
            left -= cell_len(shown)
            codes = ";".join(str(_CODES[word]) for word in style.split() if self._colours or word in _WITHOUT_COLOUR)
            out.append(f"\x1b[{codes}m{shown}\x1b[0m" if codes else shown)
        # Behind a full line there is nothing to be wiped: the cursor stays on its last letter, which would go.
        return "".join([*out, "\x1b[K"] if left > 0 else out)

    def _write(self, text: str) -> None:
        data = memoryview(text.encode(errors="replace"))
        while data:
            data = data[os.write(self._out, data) :]

    def _take(self) -> None:
        tty.setcbreak(self._in)
        self._write(_ENTER)
        self._measure()

    def _measure(self) -> None:
        size = shutil.get_terminal_size()
        with contextlib.suppress(OSError):  # some have no size: the environment's, or 80×24
            size = os.get_terminal_size(self._out)
        self.width, self.height = max(20, size.columns), max(5, size.lines)
        self._shown = ["\0"] * self.height  # nothing is there that could stay

    def _give_back(self) -> None:
        try:
            self._write(_LEAVE)
            termios.tcsetattr(self._in, termios.TCSADRAIN, self._before)
        except (OSError, termios.error):  # the window was closed
            return

    # A handler may be called in the middle of anything: it only notes that, and `keys` is woken.

    def _on_resize(self, _number: int, _frame: FrameType | None) -> None:
        self._resized = True

    def _on_stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stopped = True

    def _after_signal(self) -> None:
        if self._stopped:
            self._stopped = False
            self._give_back()
            os.kill(os.getpid(), signal.SIGSTOP)
            self._take()
        if self._resized:
            self._resized = False
            self._measure()

    def _on_end(self, number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)
