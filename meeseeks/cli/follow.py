"""A job's output, byte for byte, while it runs: asked for piece by piece of the node that we talk to.

What was shown is counted here, so a connection that breaks, or a node that is started again, costs no byte and repeats
none.
"""

from __future__ import annotations

import logging
import os
import select
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from meeseeks.client.arguments import is_exited
from meeseeks.errors import InvalidRequest, MeeseeksError, NodeUnreachable, RequestFailed, RequestTimeout

if TYPE_CHECKING:
    from meeseeks import Client

__all__ = ["PATIENCE_S", "STREAMS", "Follower", "Incomplete", "write"]

STREAMS = {"stdout": 1, "stderr": 2}
"""Each of a job's streams and the file descriptor here that it goes to."""

PATIENCE_S = 30.0
"""How long a node that is gone is waited for, unless the user says otherwise."""

_WAIT_S = 2.0
_PIECE = 1024 * 1024
_UNSTARTED_S = 3.0
_UNKNOWN_FOR_S = 3.0  # a node that we have moved on to may not have heard of the job yet
_PAUSE_FIRST, _PAUSE_LAST = 0.01, 0.25


class Incomplete(MeeseeksError):
    """The job is over, and the node that has the rest of its output is out of reach. `info` is how it ended."""

    def __init__(self, info: Mapping[str, Any], why: Exception) -> None:
        jid = info["id"]
        super().__init__(
            f"job {jid} has ended, and the rest of its output is out of reach: {why}; "
            f"'mks logs {jid}' shows it once that node is back"
        )
        self.info = info


class Follower:
    """Copies what a job writes to our own stdout and stderr. A run after `restart` or `retries` begins anew.

    `patience`: seconds for which nodes that are gone are waited for, when nothing can be known without them.
    """

    def __init__(self, client: Client, jid: str, streams: tuple[str, ...], timeout: float, patience: float) -> None:
        self.run: Any = None
        self.offsets = dict.fromkeys(STREAMS, 0)
        self._client = client
        self._jid = jid
        self._streams = streams
        self._wait = min(_WAIT_S, timeout / 4)
        self._patience = patience
        # A node that goes away is waited for; what a Client logs of it would stand among the job's own stderr.
        logging.getLogger("meeseeks.client").addHandler(logging.NullHandler())
        logging.getLogger("meeseeks.client").propagate = False

    def follow(
        self, on_run: Callable[[Any], None] | None = None, on_wait: Callable[[], None] | None = None
    ) -> dict[str, Any] | None:
        """Until the job is over for good: its last jobinfo, or None if no node knows it.

        `on_run` hears of each run, `on_wait` once if there is none for some seconds.
        Incomplete, NodeUnreachable or RequestTimeout once patience is at its end.
        """
        pause, trouble_at, unknown_at, began_at = _PAUSE_FIRST, 0.0, 0.0, time.monotonic()
        while True:
            try:
                answer = self._ask()
                trouble_at = unknown_at = 0.0
            except InvalidRequest:
                unknown_at = unknown_at or time.monotonic()
                if time.monotonic() - unknown_at > _UNKNOWN_FOR_S:
                    return None
                answer = {}
            except (NodeUnreachable, RequestTimeout, RequestFailed) as error:
                trouble_at = trouble_at or time.monotonic()
                self._judge(error, is_late=time.monotonic() - trouble_at > self._patience)
                answer = {}
            has_news = self._show(answer, on_run)
            if answer.get("ended") and is_exited(answer["info"]):
                info: dict[str, Any] = answer["info"]
                return info
            if self.run is None and on_wait is not None and time.monotonic() - began_at > _UNSTARTED_S:
                on_wait()
                on_wait = None
            if has_news:
                pause = _PAUSE_FIRST
            elif not answer or answer.get("ended"):  # else the node has waited for us
                time.sleep(pause)
                pause = min(_PAUSE_LAST, pause * 1.5)

    def _ask(self) -> dict[str, Any]:
        known = {"run": self.run, "limit": _PIECE, "wait": self._wait, **self.offsets}
        answer: dict[str, Any] = self._client.request({"follow": {"id": self._jid, **known}})["follow"]
        return answer

    def _judge(self, error: Exception, *, is_late: bool) -> None:
        """Raise what there is to say if it is no use to go on."""
        if not isinstance(error, RequestFailed):
            if is_late:
                raise error
            return
        # Our own node answers, and the job's does not: as long as the job may live, its node may come back.
        try:
            info = self._client.query([self._jid]).get(self._jid)
        except (NodeUnreachable, RequestTimeout, RequestFailed):
            return
        if info is not None and is_exited(info) and (is_late or info["rc"] is None):
            raise Incomplete(info, error)

    def _show(self, answer: Mapping[str, Any], on_run: Callable[[Any], None] | None) -> bool:
        run = answer.get("run")
        if run is None:
            return False
        has_news: bool = run != self.run
        if has_news:
            self.run, self.offsets = run, dict.fromkeys(STREAMS, 0)
            if on_run is not None:
                on_run(run)
        for stream, fd in STREAMS.items():
            data = answer.get(stream, b"")
            if data and stream in self._streams:
                write(fd, data)
            self.offsets[stream] += len(data)
            has_news |= bool(data)
        return has_news


def write(fd: int, data: bytes) -> None:
    """All of it, however slowly it is taken."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:  # a pipe or terminal that somebody else has set so
            select.select([], [fd], [])
