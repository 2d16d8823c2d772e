"""A job's output inside `mks top`: the last lines of a stream, read by a thread, so that no key waits for a node."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from meeseeks.client.arguments import is_exited
from meeseeks.errors import MeeseeksError

from .top_screen import Line

if TYPE_CHECKING:
    from meeseeks import Client

__all__ = ["Log"]

_LINES_KEPT = 2000
_FROM_END = 64 * 1024
_PIECE = 256 * 1024
_LOOK_EVERY = 0.3


class Log:
    """Follows one stream of one job until it is closed. Reads near the end first: of a long output only that counts."""

    def __init__(self, client: Client, jid: str, stream: str = "stdout") -> None:
        self.jid = jid
        self.stream = stream
        self._client = client
        self._lines: deque[str] = deque(maxlen=_LINES_KEPT)
        self._part = b""
        self._state = "reading"
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._follow, name=f"log of {jid}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop reading; does not wait for an answer that is on its way."""
        self._closed.set()

    def picture(self, height: int) -> list[Line]:
        """The last lines, under a head that says whose they are."""
        with self._lock:
            lines = [*self._lines, *([self._part.decode(errors="replace")] if self._part else [])]
            state = self._state
        rows = max(0, height - 2)
        shown: list[Line] = [[(line.rstrip("\r"), "")] for line in lines[-rows:]]
        head: Line = [(f"{self.stream} of {self.jid}", "bold"), (f"  {state}", "dim")]
        other = "stdout" if self.stream == "stderr" else "stderr"
        keys: Line = [(f"t {other}  q back", "dim")]
        return [head, *shown, *([[]] * (rows - len(shown))), keys]

    # --- the thread

    def _follow(self) -> None:
        offset = run = -1
        while not self._closed.is_set():
            try:
                info = self._client.query([self.jid]).get(self.jid)
                if info is None:
                    self._note("the job is known no more")
                    return
                if info["start_count"] != run:
                    run, offset = info["start_count"], -1
                    with self._lock:
                        self._lines.clear()
                        self._part = b""
                offset, more = self._read(info, offset)
            except MeeseeksError as error:
                self._note(f"can't be read now: {error}")
                more = False
                if self._client.closed:
                    return
            else:
                self._note(_how(info, self.stream))
                if is_exited(info) and not more:
                    return
            if not more:
                self._closed.wait(_LOOK_EVERY)

    def _read(self, info: dict[str, Any], offset: int) -> tuple[int, bool]:
        """Read a piece from the offset (-1: near the end); the new offset, and whether there may be more."""
        if not info["start_count"] or info[self.stream] is not None:
            return offset, False
        if offset < 0:
            size = self._ask(0, 1)["size"]
            offset = max(0, size - _FROM_END)
        data: bytes = self._ask(offset, _PIECE)["data"]
        with self._lock:
            *whole, self._part = (self._part + data).split(b"\n")
            self._part = self._part[-_PIECE:]
            self._lines.extend(line.decode(errors="replace") for line in whole)
        return offset + len(data), bool(data)

    def _ask(self, offset: int, limit: int) -> dict[str, Any]:
        wanted = {"id": self.jid, "stream": self.stream, "offset": offset, "limit": limit}
        answer: dict[str, Any] = self._client.request({"output": wanted})["output"]
        return answer

    def _note(self, state: str) -> None:
        with self._lock:
            self._state = state


def _how(info: dict[str, Any], stream: str) -> str:
    if info[stream] is not None:
        return f"goes into {info[stream]} on node {info['node']}"
    state: str = info["state"]
    return "has not started" if state == "new" else state
