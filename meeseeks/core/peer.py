"""Another node, as one node knows it: who it is, when it was heard, and how far its stream was followed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import ClassVar

from meeseeks.errors import InvalidRequest

from .effects import OWN, Beat
from .record import Record

__all__ = ["NEVER_AT", "TAIL_LENGTH", "Peer", "Unwanted"]

NEVER_AT = float("-inf")
TAIL_LENGTH = 10_000
"""How many of a peer's last changes are remembered as its own, for those who missed them when it died."""


class Unwanted(InvalidRequest):
    """A node says hello to one whose configuration it was taken out of: it may be put in again."""

    code: ClassVar[str] = "unwanted"


class Peer:
    """Another node: what is known of it, and the stream of it that is followed (if `linked`)."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.incarnation = ""
        self.former: set[str] = set()
        self.beat: Beat | None = None
        self.heard_at = NEVER_AT
        self.direct_at = NEVER_AT
        self.via = ""
        """The linked peer through which its last heartbeat came first: the way to it."""
        self.covered: Beat | None = None
        self.lease_at = NEVER_AT
        self.lent_at = NEVER_AT
        """Since when its lease has been renewed without a break in which it may have given jobs to others."""
        # the stream
        self.linked = False
        self.topic = OWN
        self.host = ""
        self.port = 0
        self.pub_port = 0
        self.applied = 0  # everything on the followed topic up to this seq of the peer is in our table
        self.complete = 0  # so is everything that the peer had applied itself, of whatever node, up to this seq
        self.synced = False
        self.asked_at = NEVER_AT
        self.dialled_at = NEVER_AT
        self.uncovered: list[tuple[int, Beat]] = []  # heartbeats that wait until `applied` reaches a seq
        self.tail: deque[tuple[int, str]] = deque(maxlen=TAIL_LENGTH)  # (its seq, job id) of its last changes
        self.tail_from = 0  # the tail is whole for those who stand at this seq or later

    @property
    def reach(self) -> int:
        """The last seq of it that anything was heard of, be there a gap before it or not."""
        return max(self.applied, self.tail[-1][0]) if self.tail else self.applied

    def sees_beyond(self, known: set[str]) -> bool:
        """Whether it hears of nodes that are not among these."""
        return self.beat is not None and not known.issuperset(self.beat.sees)

    def reborn(self, incarnation: str) -> None:
        """It began a new life: its numbers start afresh."""
        if self.incarnation:
            self.former.add(self.incarnation)
        self.former.discard(incarnation)
        self.incarnation = incarnation
        self.beat = self.covered = None
        self.lease_at = NEVER_AT
        self.applied = self.complete = self.tail_from = 0
        self.synced = False
        self.asked_at = NEVER_AT
        self.uncovered.clear()
        self.tail.clear()

    def hears(self, name: str, incarnation: str) -> bool:
        """Whether it says that it hears this life of a node: who doesn't learns of no job that is assigned to it."""
        return self.beat is not None and self.beat.acks.get(name, ("", 0))[0] == incarnation

    def remember(self, seq: int, records: Iterable[Record]) -> None:
        """Note changes as this peer's own."""
        for record in records:
            if len(self.tail) == TAIL_LENGTH:
                self.tail_from = self.tail[0][0]
            self.tail.append((seq, record.spec.id))

    def tail_since(self, incarnation: str, since: int) -> tuple[dict[str, int], str, int] | None:
        """See `Mesh.tail_of`."""
        if incarnation != self.incarnation:
            since = 0
        if since < self.tail_from:
            return None
        return {jid: seq for seq, jid in self.tail if seq > since}, self.incarnation, self.reach
