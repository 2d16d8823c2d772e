"""A job's output, byte for byte, while it runs: read piece by piece through the node that we talk to."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from meeseeks.client.arguments import is_exited
from meeseeks.errors import RequestFailed

from .output import warn

if TYPE_CHECKING:
    from meeseeks import Client

__all__ = ["Follower"]

_STREAMS = {"stdout": 1, "stderr": 2}
"""Each of the job's streams and the file descriptor here that it goes to."""
_PIECE = 1024 * 1024


class Follower:
    """Copies what a job writes to our own stdout and stderr. A run after `restart` or `retries` begins anew."""

    def __init__(self, client: Client, jid: str) -> None:
        self._client = client
        self._jid = jid
        self._run = 0
        self._offsets = dict.fromkeys(_STREAMS, 0)

    def step(self) -> tuple[dict[str, Any] | None, bool]:
        """Copy what is new: (the jobinfo, or None where the node knows the job no more; whether there was anything)."""
        info: dict[str, Any] | None = self._client.query([self._jid]).get(self._jid)
        if info is None:
            return None, False
        if info["start_count"] != self._run:
            self._run = info["start_count"]
            self._offsets = dict.fromkeys(_STREAMS, 0)
        copied = False
        if self._run and not _is_redirected(info):
            for stream in _STREAMS:
                copied |= self._copy(info, stream)
        return info, copied

    def _copy(self, info: dict[str, Any], stream: str) -> bool:
        """Copy a stream up to its present end."""
        over, begun_at = is_exited(info), self._offsets[stream]
        if info[stream] is not None or (over and not info[f"{stream}_size"] and not begun_at):
            return False
        while True:
            wanted = {"id": self._jid, "stream": stream, "offset": self._offsets[stream], "limit": _PIECE}
            try:
                piece = self._client.request({"output": wanted})["output"]
            except RequestFailed as error:
                if not over:
                    return self._offsets[stream] > begun_at  # its node is out of reach for now
                warn(f"the rest of the job's {stream} is missing: {error}")
                return False
            data = piece["data"]
            if not data:
                return self._offsets[stream] > begun_at
            _write(_STREAMS[stream], data)
            self._offsets[stream] += len(data)


def _is_redirected(info: dict[str, Any]) -> bool:
    return info["stdout"] is not None and info["stderr"] is not None


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
