"""Which topics of a node anybody has listened to, and that nobody subscribes to others.

libzmq keeps each topic that is subscribed to as long as its connection lives, in some fifty bytes for each character of
it. There are only two topics: whoever asks for another one is no peer or client of ours, and his connection is ended.

That a subscription ends is not believed: libzmq hands up what anybody writes as if it did, and does not say whether
others go on to listen. To publish what nobody hears any more costs less than a microsecond for each job that changes.
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
        """The topics that somebody listens to, or did since the publisher was opened."""
        self._rarely = rarely

    def read(self, publisher: transfer.Socket) -> bool:
        """Take in what has come; whether somebody subscribed. What is too much for a turn is read in the next one."""
        is_new = False
        for _ in range(_A_TURN):
            if (asked := transfer.receive_subscription(publisher)) is None:
                break
            if not asked.begins:
                continue
            topics = {topic for topic in _TOPICS if topic.startswith(asked.topic)}
            if not topics:
                self._rarely.say(("topic", asked.host), f"turned away {asked.host}: there is no such topic to hear")
                hang_up(asked.fd)
                continue
            self.wanted |= topics
            is_new = True
        return is_new

    def clear(self) -> None:
        """The publisher was closed: nobody listens."""
        self.wanted = set()
