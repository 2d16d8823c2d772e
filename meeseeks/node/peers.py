"""The links of a node: a DEALER for requests and a SUB for broadcasts a peer, and how a peer is met.

Order matters and is kept here: subscribe first, then ask for the snapshot, so that nothing falls in between; what
came twice is sorted out by seq in the core.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from itertools import count
from typing import Any

from meeseeks.core.effects import Dial, Link, SyncWanted, Unlink
from meeseeks.core.names import NameTaken
from meeseeks.core.node_state import NodeState
from meeseeks.core.peer import Unwanted
from meeseeks.errors import InvalidRequest, MeeseeksError, ProtocolError
from meeseeks.wire import codec, sockets, transfer
from meeseeks.wire.messages import ErrorInfo, Hello, Reply, Request, SyncRequest

from .line import Dialer, Line
from .pace import Pace
from .rarely import Rarely

__all__ = ["Peers"]

log = logging.getLogger(__name__)

_GREET_EVERY = 1.0
_FORGET_DIAL_AFTER = 10.0
_UNANSWERED_AFTER = 5.0
"""Seconds after which the log says that nobody answers at an address that the configuration names."""
_SPREAD_S = 5.0
_SYNC_WITHIN = 900.0
"""A part of a large table may take its time over a slow link, and is worth having whenever it comes."""
_DRAIN_MAX = 1000
"""Messages read from one peer in one turn: the others want to be heard as well."""

Answer = Callable[[Reply], None]


class Peers:
    """All links of one node. It belongs to the node's loop, and never blocks it."""

    def __init__(self, state: NodeState, poller: sockets.Poller, hello: Callable[[], Hello], dialer: Dialer) -> None:
        self._state = state
        self._poller = poller
        self._hello = hello
        self._dialer = dialer
        self._dials: dict[tuple[str, int], Line] = {}
        self._links: dict[str, Line] = {}
        self._answers: dict[int, tuple[float, Answer]] = {}
        self._number = count(1)
        self._fixed: set[tuple[str, int]] = set()
        self._complained_of: dict[tuple[str, int], str] = {}  # addresses that can't be dialled, and why
        self._known_as: dict[tuple[str, int], str] = {}  # a dialled address -> the node that answered there
        self._rarely = Rarely(log)
        self._spread: dict[tuple[str, str], float] = {}  # what was sent to all, and until when it is not sent again
        self._unsent: dict[tuple[str, str | None], SyncWanted] = {}
        self._syncs = Pace()
        self._synced_by: dict[tuple[str, str | None], tuple[str, sockets.Socket]] = {}
        self._said: dict[tuple[str, int], str] = {}
        self.refused: str | None = None
        """Why a node that we dialled would not have us, if the last answer was a refusal."""
        self.refused_for_good = False
        """It was for our name, which is another node's: waiting would not help."""

    # --- what the configuration names

    def set_fixed(self, addresses: Iterable[tuple[str, int]]) -> None:
        """Dial these addresses until they answer, and again whenever their node does not know us any more."""
        wanted = set(addresses)
        for at in self._fixed - wanted:
            self._drop_dial(at)
            # It may not have answered there yet, and be linked all the same: it said hello itself.
            names = {name for name, line in self._links.items() if (line.host, line.port) == at}
            if at in self._known_as:
                names.add(self._known_as.pop(at))
            for name in names:
                self._state.mesh.on_unlinked(name)
        self._fixed = wanted

    def tick(self, now: float) -> None:
        """Dial, greet again those who do not know us, give up what has not been answered."""
        for line in [*self._dials.values(), *self._links.values()]:
            line.tend(now)
        for at in self._fixed - self._dials.keys():
            if self._known_as.get(at) not in self._links:
                self._dial(at, now)
        for at, line in list(self._dials.items()):
            self._greet(line, now)
            is_explained = line.trouble or at in self._said
            if at in self._fixed and now - line.dialled_at > _UNANSWERED_AFTER and not is_explained:
                self._complain_of(at, "no node answers there yet; it goes on trying")
            if at not in self._fixed and now - line.dialled_at > _FORGET_DIAL_AFTER:
                self._drop_dial(at)
        for name, line in self._links.items():
            peer = self._state.mesh.peers.get(name)
            is_unmet = peer is None or peer.beat is None or self._state.settings.name not in peer.beat.sees
            # One that is silent may be back, and publish at another port: it knows nobody, and can't say so.
            if is_unmet or not self._state.mesh.is_alive(name, self._state.ledger.now):
                self._greet(line, now)
        unsent, self._unsent = self._unsent, {}
        for wanted in unsent.values():
            self.sync(wanted, now)
        for number, (deadline, _) in list(self._answers.items()):
            if deadline < now:
                del self._answers[number]

    # --- effects

    def carry_out(self, effect: Link | Unlink | Dial, now: float) -> None:
        """Open, change or close a link as the core wants it."""
        if isinstance(effect, Dial):
            at = (effect.host, effect.port)
            if at not in self._dials and all((line.host, line.port) != at for line in self._links.values()):
                self._dial(at, now)
        elif isinstance(effect, Unlink):
            line = self._links.pop(effect.peer, None)
            if line is not None:
                line.close()
        else:
            try:
                self._link(effect, now)
            except MeeseeksError as error:
                log.warning("can't link to node %s: %s", effect.peer, error)
                self._state.mesh.on_unreachable(effect.peer)

    def _link(self, effect: Link, now: float) -> None:
        at = (effect.host, effect.port)
        line = self._links.get(effect.peer)
        if line is not None and ((line.host, line.port) != at or line.pub_port != effect.pub_port):
            self._links.pop(effect.peer).close()
            line = None
        if line is None:
            line = self._dials.pop(at, None) or self._open(*at, now)
            try:
                line.listen(effect.pub_port)
            except MeeseeksError:
                line.close()
                raise
            self._links[effect.peer] = line
            log.info("linked to node %s at %s:%d", effect.peer, effect.host, effect.port)
        line.follow(effect.topic)

    def sync(self, wanted: SyncWanted, now: float) -> None:
        """Ask a peer for what we missed. An answer that does not come is asked for again by the core."""
        line, what = self._links.get(wanted.peer), (wanted.peer, wanted.origin)
        if line is None:
            return
        by = (wanted.incarnation, line.dealer)
        if self._synced_by.get(what) != by:  # what was asked before by another connection, or of another life, is lost
            self._synced_by[what] = by
            self._syncs.forget(what)
        if not self._syncs.may_ask(what, now):
            return

        def answered(reply: Reply) -> None:
            self._syncs.answered(what, self._state.ledger.now)
            if reply.response is None:
                self._rarely.say(("sync", wanted.peer), f"node {wanted.peer} refused a sync: {reply.error}")
                return
            snapshot = codec.as_snapshot(reply.response.get("sync"), self._dropped(wanted.peer))
            self._state.on_snapshot(snapshot)

        request = SyncRequest(incarnation=wanted.incarnation, since=wanted.since, origin=wanted.origin)
        if self._send(line, "sync", request, answered, now + _SYNC_WITHIN):
            self._syncs.asked(what, now)
        else:
            self._unsent[wanted.peer, wanted.origin] = wanted  # the connection is still being made

    def request(self, peer: str, kind: str, data: Any, answer: Answer, deadline: float) -> bool:
        """Send a request to a linked peer; `answer` is called with its reply, if one comes by the deadline."""
        line = self._links.get(peer)
        return line is not None and self._send(line, kind, data, answer, deadline)

    def spread(self, kind: str, data: str, now: float) -> None:
        """Send a request to all linked peers, unless it was sent just now: so it does not go round in circles."""
        self._spread = {key: until for key, until in self._spread.items() if until > now}
        if (kind, data) in self._spread:
            return
        self._spread[kind, data] = now + _SPREAD_S
        for name, line in self._links.items():
            self._send(line, kind, data, self._complaining(name, kind, data), now + 5.0)

    def _complaining(self, name: str, kind: str, data: str) -> Answer:
        """Nobody waits for what a peer answers: why it would not is in the log, or nowhere."""

        def answered(reply: Reply) -> None:
            if reply.error is not None:
                self._rarely.say((kind, name), f"node {name} refused {kind!r} of {data!r}: {reply.error.message}")

        return answered

    # --- sockets

    def receive(self, ready: dict[Any, int]) -> None:
        """Read what came in on any link."""
        for line in [*self._dials.values(), *self._links.values()]:
            if line.dealer in ready:
                self._read_replies(line)
            if line.subscriber is not None and line.subscriber in ready:
                self._read_updates(line)

    def close(self) -> None:
        """Close all links."""
        for line in [*self._dials.values(), *self._links.values()]:
            line.close()
        self._dials.clear()
        self._links.clear()

    def _read_replies(self, line: Line) -> None:
        for _ in range(_DRAIN_MAX):
            if (frame := transfer.receive_reply(line.dealer)) is None:
                return
            try:
                reply = codec.decode_reply(frame)
                waiting = self._answers.pop(reply.id, None) if isinstance(reply.id, int) else None
                if waiting is not None:
                    waiting[1](reply)
            except ProtocolError as error:
                self._complain(line, "an answer", str(error))
            except Exception:  # noqa: BLE001 - the border: what one peer says must not take the node down
                self._complain(line, "an answer")

    def _read_updates(self, line: Line) -> None:
        assert line.subscriber is not None
        for _ in range(_DRAIN_MAX):
            if (frame := transfer.receive_update(line.subscriber)) is None:
                return
            try:
                dropped = self._dropped(line.host)
                self._state.on_update(codec.decode_update(frame, dropped))
            except ProtocolError as error:
                self._complain(line, "a broadcast", str(error))
            except Exception:  # noqa: BLE001 - as above
                self._complain(line, "a broadcast")

    def _dropped(self, who: str) -> Callable[[str], None]:
        return lambda why: self._rarely.say(("dropped", who), f"dropped what {who} sent: {why}")

    def _complain(self, line: Line, what: str, why: str = "") -> None:
        """Of what a peer sent and nobody understands: it may send it again with each heartbeat, or much more often."""
        text = f"{what} of {line.host}:{line.port} was not understood" + (f": {why}" if why else "")
        self._rarely.say(
            (line.host, line.port, what), text, trace=not why, level=logging.WARNING if why else logging.ERROR
        )

    def _send(self, line: Line, kind: str, data: Any, answer: Answer, deadline: float) -> bool:
        number = next(self._number)
        if not transfer.send_nowait(line.dealer, [codec.encode(Request(id=number, request={kind: data}))]):
            return False
        self._answers[number] = (deadline, answer)
        return True

    def _greet(self, line: Line, now: float) -> None:
        if now - line.greeted_at < _GREET_EVERY:
            return

        def answered(reply: Reply) -> None:
            if reply.response is None:
                self._on_refused(line, reply)
                return
            hello = codec.convert(reply.response.get("hello"), Hello)
            try:
                if line.is_introduced:
                    self._on_hello(line, hello)
                else:
                    self._introduce(line, hello)
            except InvalidRequest as error:
                if hello.incarnation == self._state.incarnation:
                    self._fixed.discard((line.host, line.port))  # our own address: nothing to link to
                    self._drop_dial((line.host, line.port))
                    return
                self._say_once(line, f"is not linked to: {error}")

        if self._send(line, "hello", self._hello(), answered, now + 5.0):
            line.greeted_at = now

    def _introduce(self, line: Line, hello: Hello) -> None:
        """That node has heard who we are. Say it again, by the key that proves it, if it is who it should be.

        It must not hear it otherwise: it would take our table for that of its mesh, and start another one's jobs.
        """
        self._state.mesh.check_name(hello.node, hello.incarnation)
        line.introduce()
        line.greeted_at = float("-inf")
        self._greet(line, self._state.ledger.now)

    def _on_hello(self, line: Line, hello: Hello) -> None:
        at = (line.host, line.port)
        if at in self._fixed:
            self._state.mesh.unwanted.discard(hello.node)
        self._state.on_met(hello.node, hello.incarnation, line.host, hello.port, hello.pub_port)
        self.refused = None
        self._complained_of.pop(at, None)
        # The node may be linked already under another of its addresses: one link is enough.
        self._known_as[at] = hello.node
        if at in self._dials and hello.node in self._links:
            self._drop_dial(at)

    def _on_refused(self, line: Line, reply: Reply) -> None:
        error = reply.error or ErrorInfo("", "no reason given")
        if error.code == Unwanted.code:
            self._let_go(line)
        else:
            self.refused, self.refused_for_good = error.message, error.code == NameTaken.code
        self._say_once(line, f"does not link to us: {error.message}")

    def _let_go(self, line: Line) -> None:
        """Hear no more of a node that doesn't hear us: it would be taken for one that can be given jobs.

        If it is one of those that are to be linked, it is still asked.
        """
        for name in [name for name, link in self._links.items() if link is line]:
            self._state.mesh.on_unreachable(name)
            self.carry_out(Unlink(name), self._state.ledger.now)

    def _say_once(self, line: Line, why: str) -> None:
        at = (line.host, line.port)
        if self._said.get(at) != why:  # it is asked every second
            self._said[at] = why
            log.warning("the node at %s:%d %s", *at, why)

    def _dial(self, at: tuple[str, int], now: float) -> None:
        try:
            self._dials[at] = self._open(*at, now)
        except MeeseeksError as error:
            self._complain_of(at, str(error))

    def _complain_of(self, at: tuple[str, int], why: str) -> None:
        if self._complained_of.get(at) != why:
            self._complained_of[at] = why
            log.warning("can't link to %s:%d: %s", *at, why)

    def _open(self, host: str, port: int, now: float) -> Line:
        line = Line(host, port, self._dialer, self._poller)
        line.dialled_at = now
        return line

    def _drop_dial(self, at: tuple[str, int]) -> None:
        line = self._dials.pop(at, None)
        if line is not None:
            line.close()
