"""Our own stdin, handed on to a job piece by piece, as fast as the job reads it."""

from __future__ import annotations

import os
import stat
import threading
from typing import TYPE_CHECKING, Any

from meeseeks.errors import ClientClosed, MeeseeksError, NodeUnreachable, RequestFailed, RequestTimeout

from .output import warn

if TYPE_CHECKING:
    from meeseeks import Client

__all__ = ["Feeder", "has_input"]

_STDIN = 0
_PIECE = 256 * 1024
_PAUSE_FIRST, _PAUSE_LAST = 0.02, 0.5


def has_input() -> bool:
    """Whether stdin is there to be read by a program: a pipe, a file or a socket, and no terminal or /dev/null."""
    try:
        kind = os.fstat(_STDIN)
    except OSError:  # closed
        return False
    return not stat.S_ISCHR(kind.st_mode)


class Feeder:
    """Reads stdin in a thread of its own, from `start` on, until it ends or the job wants no more of it.

    A piece is sent again until it is known to have arrived. The thread is in nobody's way: it ends with the program.
    """

    def __init__(self, client: Client, jid: str) -> None:
        self._client = client
        self._jid = jid
        self._run: Any = None
        self._offset = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._feed, name="mks-stdin", daemon=True)

    def start(self, run: Any) -> None:
        """The job runs, and this is the run to feed. A later one is told that there is nothing for it."""
        if self._run is None:
            self._run = run
            self._thread.start()

    def stop(self) -> None:
        """The job is over: do not try any more."""
        self._stopped.set()

    def _feed(self) -> None:
        try:
            while (data := _read()) and self._give(data, eof=False):
                continue
            if not data:
                self._give(b"", eof=True)
        except ClientClosed:
            return
        except MeeseeksError as error:
            warn(f"job {self._jid} gets no more of stdin: {error}")

    def _give(self, data: bytes, *, eof: bool) -> bool:
        """Return when the job has been given all of it; False if it wants no more."""
        pause = _PAUSE_FIRST
        left = memoryview(data)
        while not self._stopped.is_set():
            answer = self._ask(bytes(left), eof=eof)
            if answer is not None and answer["run"] not in (None, self._run):
                if self._offset:  # what was read is gone with the run that read it
                    left, eof = memoryview(b""), True
                self._run, self._offset = answer["run"], 0
                continue
            if answer is None or answer["run"] is None:
                self._stopped.wait(pause)
                pause = min(_PAUSE_LAST, pause * 1.5)
                continue
            pause = _PAUSE_FIRST
            left = left[max(0, answer["taken"] - self._offset) :]
            self._offset = max(self._offset, answer["taken"])
            if not answer["open"]:
                _close_stdin()
                return False
            if not left:
                return True
        return False

    def _ask(self, data: bytes, *, eof: bool) -> dict[str, Any] | None:
        """Send a piece; None if it can't be told whether it arrived."""
        piece = {"id": self._jid, "run": self._run, "offset": self._offset, "data": data, "eof": eof}
        try:
            answer: dict[str, Any] = self._client.request({"input": piece})["input"]
        except (RequestFailed, NodeUnreachable, RequestTimeout):
            return None  # whoever shows the job's output knows how long to try
        return {"run": None, "taken": 0, "open": True, **answer}


def _read() -> bytes:
    while True:
        try:
            return os.read(_STDIN, _PIECE)
        except BlockingIOError:
            _wait_readable()
        except OSError as error:
            warn(f"can't read stdin: {error.strerror}")
            return b""


def _wait_readable() -> None:
    import select

    select.select([_STDIN], [], [])


def _close_stdin() -> None:
    """Whoever writes to us is to see that nobody reads it, as he would with the command itself."""
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(null, _STDIN)
    os.close(null)
