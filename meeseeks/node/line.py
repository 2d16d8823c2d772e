"""One line of a node to another one: a DEALER for requests, and a SUB once it is known where the other publishes.

It watches its connections: where a handshake was refused it says why in the log, once, and makes a new connection
after a pause, since ZeroMQ gives such a connection up, or repeats it without any pause.
"""

from __future__ import annotations

import logging
from typing import Any

from meeseeks.config import NodeConfig
from meeseeks.core.tls_options import TlsOptions, check_tls
from meeseeks.errors import MeeseeksError
from meeseeks.wire import sockets
from meeseeks.wire.keys import Keys
from meeseeks.wire.ways import Way

from .lookups import Lookups

__all__ = ["Dialer", "Line"]

log = logging.getLogger(__name__)

_REOPEN_AFTER = 1.0
_SAY_EVERY = 60.0

_WHY = {
    "refused_key": "it does not know our key: is it a node of another mesh?",
    "refused_mechanism": "one of us encrypts, and the other does not, or it is no node: compare security.mode",
    "refused_handshake": "it has another mesh's key, is being stopped, or is no node",
}


class Dialer:
    """How connections to other nodes are made: with which keys, and through which TLS.

    `keys` are the mesh's, `own` those of this node's identity, for connections that prove it.
    """

    def __init__(self, keys: Keys | None, own: Keys | None, config: NodeConfig) -> None:
        self._keys = keys
        self._own = own
        self._ways: dict[TlsOptions | None, Way] = {}
        self._named: dict[tuple[str, int], TlsOptions | None] = {}
        self._default: TlsOptions | None = None
        self._lookups = Lookups()
        self.configure(config)

    def configure(self, config: NodeConfig) -> None:
        """Take over which peers speak TLS. InvalidRequest, and nothing has changed, if a file can't be used."""
        named = {peer: _options(ssl) for peer, ssl in config.peer_ssl().items()}
        default = _options(config.defaults.get("ssl"))
        for options in [*named.values(), default]:
            if options not in self._ways:
                self._ways[options] = Way(options)
        self._named, self._default = named, default

    @property
    def proves(self) -> bool:
        """Whether identities are proved here: not where nothing is encrypted."""
        return self._own is not None

    def dealer(self, host: str, port: int, *, own: bool = False) -> tuple[sockets.Socket, sockets.Socket]:
        """A DEALER and its monitor. With `own` it comes by the key of this node's identity."""
        to = self._endpoint(host, port, port)
        return sockets.watched_dealer(to, self._own if own else self._keys, once=own)

    def subscriber(self, host: str, port: int, pub_port: int) -> tuple[sockets.Socket, sockets.Socket]:
        """A SUB to `pub_port` of the node that takes requests at `port`, and its monitor."""
        return sockets.watched_subscriber(self._endpoint(host, port, pub_port), self._keys)

    def address(self, host: str, port: int) -> str | None:
        """To where connections are made for a host; None as long as its address is not known."""
        return host if self._way(host, port).takes_names else self._lookups.address(host)

    def look_up(self, host: str, port: int) -> None:
        """Nobody was reached there: it may have another address by now."""
        if not self._way(host, port).takes_names:
            self._lookups.ask(host)

    def why(self, host: str, port: int, pub_port: int) -> str | None:
        """What TLS has to say about a connection that did not come about."""
        way = self._way(host, port)
        failure = way.failure(host, port, host) or way.failure(host, pub_port, host)
        return failure.why if failure is not None else None

    def close(self) -> None:
        """End all tunnels."""
        for way in self._ways.values():
            way.close()

    def _endpoint(self, host: str, port: int, to_port: int) -> str | None:
        address = self.address(host, port)
        return None if address is None else self._way(host, port).endpoint(address, to_port, host)

    def _way(self, host: str, port: int) -> Way:
        return self._ways[self._named.get((host, port), self._default)]


def _options(ssl: Any) -> TlsOptions | None:
    return None if ssl is None else check_tls(ssl)


class Line:
    """The connections to one address, before its node is known by name, and as part of a link afterwards.

    The DEALER comes by the mesh's key first, and by that of our identity once the node there has been told of it. When
    that connection ends it begins again: a node that was started anew has to be told again.
    """

    def __init__(self, host: str, port: int, dialer: Dialer, poller: sockets.Poller) -> None:
        self.host, self.port = host, port
        self.pub_port = 0
        self.greeted_at = float("-inf")
        self.dialled_at = float("-inf")
        self.subscriber: sockets.Socket | None = None
        self._dialer = dialer
        self._poller = poller
        self._topic = ""
        self._reopen_at: float | None = None
        self._said: tuple[str, float] = ("", 0.0)
        self._monitors: list[sockets.Socket] = []
        self._words: dict[sockets.Socket, str] = {}  # what each of them told last
        self._address = dialer.address(host, port)
        self.is_introduced = not dialer.proves
        """Whether the node there can tell by our key who we are."""
        self.dealer = self._take(dialer.dealer(host, port))
        self._dealer_monitor = self._monitors[-1]

    @property
    def trouble(self) -> str:
        """What the log says already of connections that do not come about; '' if it says nothing."""
        return self._said[0] or ("its address is not known" if self._address is None else "")

    def listen(self, pub_port: int) -> None:
        """Connect to where the node publishes."""
        self.subscriber = self._take(self._dialer.subscriber(self.host, self.port, pub_port))
        self.pub_port = pub_port

    def follow(self, topic: str) -> None:
        """Subscribe to this topic, and to no other."""
        if topic == self._topic or self.subscriber is None:
            return
        sockets.subscribe(self.subscriber, topic)
        if self._topic:
            sockets.unsubscribe(self.subscriber, self._topic)
        self._topic = topic

    def introduce(self) -> None:
        """The node there knows our identity by now: come by its key from now on. What is asked is asked anew."""
        self._change_dealer(own=True)

    def _change_dealer(self, *, own: bool) -> None:
        dealer, monitor = self.dealer, self._dealer_monitor
        self.dealer = self._take(self._dialer.dealer(self.host, self.port, own=own))
        self._dealer_monitor = self._monitors[-1]
        self.is_introduced = own
        self._monitors.remove(monitor)
        self._drop([dealer], [monitor])

    def _begin_again(self) -> bool:
        self._dialer.look_up(self.host, self.port)
        try:
            self._change_dealer(own=False)
        except MeeseeksError as error:
            log.warning("can't connect to %s:%d again: %s", self.host, self.port, error)
            return False
        return True

    def tend(self, now: float) -> None:
        """Look what became of the connections; make new ones, after a pause, where one was refused."""
        if self.is_introduced and self._dialer.proves:
            while (word := sockets.monitor_event(self._dealer_monitor)) is not None:
                if word not in ("connected", "ready"):
                    self._reopen_at = None if self._begin_again() else now + _REOPEN_AFTER
                    break
        for monitor in self._monitors:
            while (word := sockets.monitor_event(monitor)) is not None:
                before, self._words[monitor] = self._words.get(monitor), word
                if word in ("retried", "disconnected"):
                    self._dialer.look_up(self.host, self.port)
                if word in _WHY:
                    self._on_refused(word, now)
                elif word == "disconnected" and before == "connected":
                    self._on_refused("refused_handshake", now)  # ZeroMQ does not tell every handshake that failed
        if self._address != self._dialer.address(self.host, self.port):
            self._reopen_at = now
        if self._reopen_at is not None and now >= self._reopen_at:
            self._reopen_at = now + _REOPEN_AFTER
            try:
                self._reopen()
            except MeeseeksError as error:
                log.warning("can't connect to %s:%d again: %s", self.host, self.port, error)
                return
            self._reopen_at = None

    def close(self) -> None:
        """Close the connections."""
        self._drop([self.dealer, *([self.subscriber] if self.subscriber is not None else [])], self._monitors)

    def _take(self, made: tuple[sockets.Socket, sockets.Socket]) -> sockets.Socket:
        socket, monitor = made
        self._monitors.append(monitor)
        self._poller.register(socket, sockets.POLLIN)
        return socket

    def _drop(self, connections: list[sockets.Socket], monitors: list[sockets.Socket]) -> None:
        # The monitors last: ZeroMQ waits for ever to tell something to one whose other end is closed.
        for socket in connections:
            self._poller.unregister(socket)
            sockets.close(socket)
        for monitor in monitors:
            sockets.close(monitor)
            self._words.pop(monitor, None)

    def _reopen(self) -> None:
        """The new ones first: should they fail, the old ones are still there to be closed."""
        dealer, subscriber = self.dealer, self.subscriber
        monitors, self._monitors = self._monitors, []
        self._address = self._dialer.address(self.host, self.port)
        try:
            self.dealer = self._take(self._dialer.dealer(self.host, self.port))
            self._dealer_monitor = self._monitors[-1]
            self.is_introduced = not self._dialer.proves
            self._drop([dealer], [])
            if subscriber is not None:
                self.listen(self.pub_port)
                self._drop([subscriber], [])
                topic, self._topic = self._topic, ""
                self.follow(topic)
        except MeeseeksError:
            self._monitors += monitors
            raise
        self._drop([], monitors)

    def _on_refused(self, word: str, now: float) -> None:
        if self._reopen_at is None:
            self._reopen_at = now + _REOPEN_AFTER
        why = self._dialer.why(self.host, self.port, self.pub_port) or _WHY[word]
        said, at = self._said
        if said != why or now - at >= _SAY_EVERY:
            self._said = (why, now)
            log.warning("not let in by %s:%d: %s", self.host, self.port, why)
