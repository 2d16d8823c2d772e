"""The connection to one of the nodes that a Client may use: its sockets, what became of them, whom to try next.

Owned by the I/O thread, like every socket here; `state` and `describe` may be read by others. ZeroMQ reconnects by
itself as long as there is only one address; if that is a name, a Link follows it to where it leads to by then. With
several, a Link moves on when one refuses, is silent or goes away.
"""

from __future__ import annotations

import enum
import logging
import math
import time
from collections.abc import Sequence

from meeseeks.errors import AuthenticationFailed, MeeseeksError, NodeUnreachable, RequestFailed
from meeseeks.wire import sockets, transfer
from meeseeks.wire.keys import Keys

from .credentials import Credentials
from .lookup import Lookup
from .settings import Address, Place

__all__ = ["Link", "LinkState"]

_log = logging.getLogger(__name__)

_PATIENCE = 2.0
"""Seconds that an address has to answer while there are others to try; fewer where a request has no time for that."""
_PAUSE = 0.25
"""Seconds between two rounds through all addresses."""
_MUTE_FOR = 3.0
"""Seconds after which the end of a connection that said nothing is ZeroMQ's own patience, and no refusal."""
_HANDSHAKE_PAUSE = 0.5
"""Seconds after a refused handshake. ZeroMQ gives such a connection up, or repeats it without any back-off."""
_JUST_BEGUN = "it was asked only just now, and had no time to answer"


class LinkState(enum.Enum):
    """What is known of the connection; the value is how it is told."""

    UNRESOLVED = "its name has no address"
    CONNECTING = "no answer to the attempt to connect; is the host up and reachable?"
    REFUSED = "connection refused; is it running? start it with 'mks node'"
    ACCEPTED = "the connection is accepted, and nobody speaks; is the node stopped, or is this another service?"
    NOT_LET_IN = "it does not let us in"
    READY = "connected"


class Link:
    """At most one DEALER with its monitor, and a SUB once the node's PUB port is known.

    With a `host` only that one of the hosts that an address stands for is used. Within `timeout` every address has its
    turn, and time is left for the answer of the last.
    """

    def __init__(
        self,
        addresses: Sequence[Address],
        credentials: Credentials | None = None,
        host: str | None = None,
        timeout: float = math.inf,
    ) -> None:
        self.addresses = tuple(addresses)
        self._patience = min(_PATIENCE, timeout / (len(self.addresses) + 1))
        self._only_host = host
        self._lookup = Lookup(self.addresses[0] if host is None else Address(host, 0))
        self._credentials = credentials or Credentials()
        self._keys: Keys | None = None
        self._refused: dict[Address, str] = {}
        """Who does not let us in, and why."""
        self.poller = sockets.Poller()
        self.at = 0
        """Which of `addresses` is used or tried now."""
        self.state = LinkState.CONNECTING
        self._names: dict[Place, str] = {}
        self.lives = 0
        """Grows with every connection that is made or lost: what was sent in an earlier life may be lost."""
        self.refusals = 0
        """Handshakes refused in a row by all addresses there are."""
        self._why: dict[Address, str] = {}
        self._hosts: list[str] = []  # of the present address, not tried yet
        self._host = ""
        self._since = self._accepted_at = 0.0
        self._retry_at: float | None = 0.0
        self._dealer: sockets.Socket | None = None
        self._monitor: sockets.Socket | None = None
        self._sub: sockets.Socket | None = None
        self._pub_port = 0
        self._heard = False
        self._tried = 0

    @property
    def address(self) -> Address:
        """The address that is used or tried now."""
        return self.addresses[self.at]

    @property
    def place(self) -> Place:
        """The very listener that is used or tried now."""
        return Place(self.address, self._host)

    @property
    def name(self) -> str:
        """The node's own name, once it answered."""
        return self._names.get(self.place, "")

    @name.setter
    def name(self, name: str) -> None:
        self._names[self.place] = name

    @property
    def ready(self) -> bool:
        """Whether a node is at the other end."""
        return self.state is LinkState.READY

    @property
    def has_others(self) -> bool:
        """Whether there is another address, or another host of this one, to move on to."""
        return len(self.addresses) > 1 or len(self._hosts) > 0 or self._tried > 1

    @property
    def is_followed(self) -> bool:
        """Whether broadcasts of the node have come on this connection."""
        return self._heard

    def describe(self, place: Place | None = None) -> str:
        """A node as an error names it (default: the present one): 'node a at HOST:PORT', 'HOST:PORT' without a name."""
        place = self.place if place is None else place
        name = self._names.get(place)
        return f"node {name} at {place.address}" if name else str(place.address)

    def failure(self) -> MeeseeksError:
        """Why no node is at the other end, as the error that a caller gets."""
        if len(self._refused) == len(self.addresses):
            told = [f"{where} does not let us in: {why}" for where, why in self._refused.items()]
            return AuthenticationFailed("; ".join(told))
        reasons = dict(self._why)
        if self._has_just_begun():
            reasons.setdefault(self.address, _JUST_BEGUN)
        elif self.state is not LinkState.UNRESOLVED:
            reasons[self.address] = self.state.value
        told = [f"no node answers at {where}: {why}" for where, why in reasons.items() if where != self.address]
        now = reasons.get(self.address, self.state.value)
        told.append(f"{self.describe()} is gone: {now}" if self.name else f"no node answers at {self.address}: {now}")
        return NodeUnreachable("; ".join(told))

    def _has_just_begun(self) -> bool:
        """Whether its turn is still too short to say anything of this address, one of several."""
        if len(self.addresses) == 1 or self.state not in (LinkState.CONNECTING, LinkState.ACCEPTED):
            return False
        return self._retry_at is not None or time.monotonic() < self._since + self._patience / 2.0

    # --- what the I/O thread calls

    def tick(self, now: float) -> float:
        """Connect, or move on, where it is time to; returns when it wants to be called again."""
        if self._retry_at is not None and now >= self._retry_at:
            self._connect(now)
        elif self._retry_at is None and not self.ready:
            if not self.has_others:
                self._follow_name(now)
            elif now >= self._since + self._patience:
                self.move_on(now)
        if self._retry_at is not None:
            return self._retry_at
        if self.ready:
            return now + 3600.0
        return self._since + self._patience if self.has_others else self._lookup.due(now)

    def read_monitor(self, now: float) -> None:
        """Take in what happened to the connection."""
        while self._monitor is not None:
            word = sockets.monitor_event(self._monitor)
            if word is None:
                return
            self._on_word(word, now)

    def send(self, frame: bytes) -> bool:
        """Send a request; False where it can't be sent now."""
        return self._dealer is not None and transfer.send_nowait(self._dealer, [frame])

    def receive(self) -> bytes | None:
        """The next reply, or None."""
        return transfer.receive_reply(self._dealer) if self._dealer is not None else None

    def receive_update(self) -> bytes | None:
        """The next broadcast, or None."""
        update = transfer.receive_update(self._sub) if self._sub is not None else None
        self._heard = self._heard or update is not None
        return update

    def follow(self, topic: str, pub_port: int) -> None:
        """Subscribe to a topic of the node that is connected, which publishes on `pub_port`."""
        if pub_port == self._pub_port and self._sub is not None:
            return
        self._close_sub()
        self._sub = sockets.subscriber(
            self._credentials.way.endpoint(self._host, pub_port, self.address.host), self._keys
        )
        sockets.subscribe(self._sub, topic)
        self.poller.register(self._sub, sockets.POLLIN)
        self._pub_port = pub_port

    def unfollow(self) -> None:
        """Close the subscription: a new one is made at once, while ZeroMQ would take its time to reconnect."""
        self._close_sub()

    def move_on(self, now: float) -> None:
        """Leave this connection; try the next address, or the same one again if it is the only one."""
        if not self.ready and self.state is not LinkState.NOT_LET_IN:
            self._why[self.address] = self.state.value
        self.close()
        if not self._hosts:
            if self.at + 1 == len(self.addresses) or self.ready:
                self._retry_at = now + _PAUSE
            self.at, self._host = (self.at + 1) % len(self.addresses), ""
            self._tried = 0
        self.state = LinkState.CONNECTING
        self._retry_at = self._retry_at or now

    def close(self) -> None:
        """Close the sockets. Whatever was on its way is lost."""
        self.lives += 1
        self._close_sub()
        # The DEALER first: a thread of ZeroMQ that has something to tell to a monitor whose other end is closed waits
        # for ever, and all sockets of the process with it.
        for socket in (self._dealer, self._monitor):
            if socket is not None:
                self.poller.unregister(socket)
                sockets.close(socket)
        self._monitor = self._dealer = None

    def end(self) -> None:
        """Close everything, for good."""
        self.close()
        self._credentials.way.close()

    # --- inside

    def _follow_name(self, now: float) -> None:
        """Connect anew where the only name leads elsewhere by now; else ZeroMQ goes on trying."""
        hosts = self._lookup.look(now)
        if hosts and self._host not in hosts:
            _log.warning("%s is at another address now: %s", self.address, ", ".join(hosts))
            self._hosts, self._tried = hosts, 0
            self._connect(now)

    def _connect(self, now: float) -> None:
        self.close()
        self._retry_at = None
        self._since = now
        if not self._hosts:
            self._tried = 0
            try:
                self._hosts = [self._only_host] if self._only_host is not None else self.address.resolve()
            except NodeUnreachable as error:
                self.state = LinkState.UNRESOLVED if len(self.addresses) == 1 else LinkState.CONNECTING
                self._why[self.address] = str(error).partition(": ")[2]
                self.at, self._host = (self.at + 1) % len(self.addresses), ""
                self._retry_at = now + _HANDSHAKE_PAUSE
                return
        self._host = self._hosts.pop(0)
        self._tried += 1
        self.state = LinkState.CONNECTING
        self._keys = self._credentials.keys()
        try:
            where = self._credentials.way.endpoint(self._host, self.address.port, self.address.host)
            self._dealer, self._monitor = sockets.watched_dealer(where, self._keys)
        except RequestFailed as error:  # no room for what it needs here
            self.state = LinkState.UNRESOLVED
            self._why[self.address] = str(error)
            self._retry_at = now + _HANDSHAKE_PAUSE
            return
        self.poller.register(self._dealer, sockets.POLLIN)
        self.poller.register(self._monitor, sockets.POLLIN)

    def _on_word(self, word: str, now: float) -> None:
        if word == "ready":
            self.state, self._why, self._tried = LinkState.READY, {}, 0
            self._hosts.clear()
            self._lookup.rest()
            self.lives += 1
            self.refusals = 0
            self._refused.clear()
            _log.info("connected to %s", self.address)
        elif word == "connected":
            self.state, self._accepted_at = LinkState.ACCEPTED, now
        elif word.startswith("refused"):
            self._on_refused(word, now)
        elif word == "disconnected":
            if self.ready:
                _log.warning("%s went away", self.describe())
                self.lives += 1
                self._since = now
                self.state = LinkState.CONNECTING
            elif self.state is LinkState.ACCEPTED:  # ZeroMQ does not tell every handshake that failed
                self._on_refused("refused_handshake", now)
        elif self.state is not LinkState.READY:  # retried
            self.state, self.refusals = LinkState.REFUSED, 0
            self._refused.pop(self.address, None)
            # A node that was there a moment ago may be restarting: it has its time before the next one is tried.
            if self.has_others and (not self.name or now >= self._since + self._patience):
                self.move_on(now)

    def _on_refused(self, word: str, now: float) -> None:
        failure = self._credentials.way.failure(self._host, self.address.port, self.address.host)
        if failure is not None and not failure.reached:
            self._on_unreachable(now)
            return
        if word == "refused_handshake" and failure is None and now - self._accepted_at >= _MUTE_FOR:
            self.state = LinkState.ACCEPTED  # nobody refused: nobody said anything
            self.close()
            self._retry_at = now
            return
        if word == "refused_handshake" and failure is None and self.name:
            # It has let us in before, and says nothing of our key: a tunnel, say, whose other end is gone for a while.
            self._on_unreachable(now)
            return
        self.state = LinkState.NOT_LET_IN
        why = failure.why if failure is not None else self._credentials.why(word)
        self._refused[self.address] = self._why[self.address] = why
        self.close()
        self._hosts.clear()  # the node was found: its other addresses would say the same
        if len(self._refused) == len(self.addresses):
            self.refusals += 1
        if len(self.addresses) > 1:
            self.move_on(now)
        else:
            self._retry_at = now + _HANDSHAKE_PAUSE

    def _on_unreachable(self, now: float) -> None:
        """Nobody is there, although something takes connections: TLS says so, or a tunnel closes them at once."""
        self.state, self.refusals = LinkState.REFUSED, 0
        self._refused.pop(self.address, None)
        self.close()
        if self.has_others and (not self.name or now >= self._since + self._patience):
            self.move_on(now)
        else:
            self._retry_at = now + _PAUSE

    def _close_sub(self) -> None:
        if self._sub is not None:
            self.poller.unregister(self._sub)
            sockets.close(self._sub)
        self._sub, self._pub_port, self._heard = None, 0, False
