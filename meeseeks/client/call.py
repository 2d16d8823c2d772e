"""One request of a Client on its way, and what becomes of it when its connection breaks."""

from __future__ import annotations

import enum
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from meeseeks.errors import MeeseeksError

from .settings import Place

__all__ = ["Call", "Guest", "Repeat"]


class Repeat(enum.Enum):
    """What becomes of a request that was sent on a connection that broke before the answer."""

    ANYWHERE = "it is sent again, to whichever node is connected then: a question, or a kill"
    SAME_NODE = "it is sent again, but only to the node that may have it already: a submit"
    NEVER = "it fails: a second one would not mean the same"
    THIS_LIFE = "it fails, sent or not: the guest looks anew once there is a connection again"


class Call:
    """One request on its way. Made by any thread, ended once by the I/O thread."""

    __slots__ = (
        "callback",
        "deadline",
        "ended",
        "error",
        "frame",
        "id",
        "kind",
        "life",
        "repeat",
        "result",
        "sent_to",
        "timeout",
    )

    def __init__(self, call_id: int, kind: str, frame: bytes, timeout: float, repeat: Repeat) -> None:
        self.id, self.kind, self.frame, self.timeout, self.repeat = call_id, kind, frame, timeout, repeat
        self.deadline = time.monotonic() + timeout
        self.life: int | None = None  # of the connection that it was sent on; None: not sent, or to be sent again
        self.sent_to: Place | None = None  # the node that may have it
        self.result: Any = None
        self.error: MeeseeksError | None = None
        self.ended = threading.Event()
        self.callback: Callable[[Call], None] | None = None


class Guest(Protocol):
    """What else the I/O thread serves: the replica of the node's table, where a Client has a cache."""

    def on_tick(self, now: float) -> float:
        """Do what is due; returns when it wants to be called again."""

    def on_ready(self, now: float) -> None:
        """A connection was made: nothing that was asked on an earlier one will be answered."""

    def on_update(self, frame: bytes, now: float) -> None:
        """A broadcast of the node."""

    def has_unsent(self) -> bool:
        """Whether something must still be delivered before the channel may close."""

    def on_end(self) -> None:
        """The channel is closed."""
