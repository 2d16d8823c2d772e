"""A job's output inside `mks top`: the last lines of a stream, read by a thread, so that no key waits for a node."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from meeseeks.client.arguments import is_exited
from meeseeks.errors import InvalidRequest, MeeseeksError

from .top_screen import Line

if TYPE_CHECKING:
    from meeseeks import Client

__all__ = ["Log"]

_LINES_KEPT = 2000
_FROM_END = 64 * 1024
_PIECE = 256 * 1024
_FAR = 2**53
"""An offset behind whatever a stream may have: nothing of it is wanted."""
_WAIT_S = 2.0
"""How long the node keeps a question to which it has no news; its answer comes as soon as it has."""
_AGAIN_S = 0.3


class Log:
    """Follows one stream of one job until it is closed. Reads near the end first: of a long output only that counts."""

    def __init__(self, client: Client, jid: str, stream: str = "stdout") -> None:
        self.jid = jid
        self.stream = stream
        self._client = client
        self._lines: deque[str] = deque(maxlen=_LINES_KEPT)
        self._part = b""
        self._trouble = "reading"
        self._last: Mapping[str, Any] | None = None  # the job, once it has ended
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
            state = self._trouble or self._how()
        rows = max(0, height - 2)
        shown: list[Line] = [[(line.rstrip("\r"), "")] for line in lines[-rows:]]
        head: Line = [(f"{self.stream} of {self.jid}", "bold"), (f"  {state}", "dim")]
        other = "stdout" if self.stream == "stderr" else "stderr"
        keys: Line = [(f"t {other}  q back", "dim")]
        return [head, *shown, *([[]] * (rows - len(shown))), keys]

    def _how(self) -> str:
        """What the job does, by the cache; of one that has left it, how it ended."""
        info = self._client.get([self.jid]).get(self.jid) or self._last
        if info is None:
            return ""
        if info[self.stream] is not None:
            return f"goes into {info[self.stream]} on node {info['node']}"
        return "has not started" if info["state"] == "new" else str(info["state"])

    # --- the thread

    def _follow(self) -> None:
        place: tuple[Any, int] | None = None  # which run, and how much of it is known
        while not self._closed.is_set():
            try:
                if place is None:
                    place = self._near_end()
                    self._note("")
                answer = self._ask("follow", run=place[0], limit=_PIECE, wait=_WAIT_S, **self._offsets(place[1]))
            except InvalidRequest:
                self._note("the job is known no more")
                return
            except MeeseeksError as error:
                self._note(f"can't be read now: {error}")
                if self._client.closed:
                    return
                self._closed.wait(_AGAIN_S)
                continue
            place = self._take(answer, *place)
            if answer.get("ended"):
                with self._lock:
                    self._last = answer["info"]
                if is_exited(answer["info"]):
                    return
                self._closed.wait(_AGAIN_S)  # it is about to run again

    def _near_end(self) -> tuple[Any, int]:
        first = self._ask("output", stream=self.stream, offset=0, limit=1)
        return first.get("run"), max(0, first["size"] - _FROM_END)

    def _offsets(self, known: int) -> dict[str, int]:
        return {"stdout": _FAR, "stderr": _FAR, self.stream: known}

    def _take(self, answer: Mapping[str, Any], run: Any, known: int) -> tuple[Any, int]:
        """Keep what is new; the run that it is of, and how much of that is known now."""
        data: bytes = answer.get(self.stream, b"")
        with self._lock:
            self._trouble = ""
            if answer.get("run") != run:
                run, known = answer.get("run"), 0
                self._lines.clear()
                self._part = b""
            *whole, self._part = (self._part + data).split(b"\n")
            self._part = self._part[-_PIECE:]
            self._lines.extend(line.decode(errors="replace") for line in whole)
        return run, known + len(data)

    def _ask(self, kind: str, **wanted: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self._client.request({kind: {"id": self.jid, **wanted}})[kind]
        return answer

    def _note(self, trouble: str) -> None:
        with self._lock:
            self._trouble = trouble
