"""Who listens to which topic of a node, and that nobody subscribes to others.

libzmq keeps each topic that is subscribed to as long as its connection lives, in some fifty bytes for each character of
it. There are only two topics: whoever asks for another one is no peer or client of ours, and his connection is ended.
"""

from __future__ import annotations

from meeseeks.core.effects import ALL, OWN
from meeseeks.wire import transfer
from meeseeks.wire.room import hang_up

from .rarely import Rarely

__all__ = ["Subscriptions"]

_A_TURN = 1000
_TOPICS = (OWN, ALL)


class Subscriptions:
    """What somebody has subscribed to at the publisher of a node."""

    def __init__(self, rarely: Rarely) -> None:
        self.wanted: set[str] = set()
        """The topics that somebody listens to."""
        self._prefixes: set[str] = set()
        self._rarely = rarely

    def read(self, publisher: transfer.Socket) -> bool:
        """Take in what has come; whether somebody subscribed. What is too much for a turn is read in the next one."""
        is_new = False
        for _ in range(_A_TURN):
            if (asked := transfer.receive_subscription(publisher)) is None:
                break
            if not any(topic.startswith(asked.topic) for topic in _TOPICS):
                if asked.begins:
                    self._rarely.say(("topic", asked.host), f"turned away {asked.host}: there is no such topic to hear")
                    hang_up(asked.fd)
                continue
            (self._prefixes.add if asked.begins else self._prefixes.discard)(asked.topic)
            self.wanted = {topic for topic in _TOPICS if any(map(topic.startswith, self._prefixes))}
            is_new = is_new or asked.begins
        return is_new

    def clear(self) -> None:
        """The publisher was closed: nobody listens."""
        self._prefixes.clear()
        self.wanted = set()
