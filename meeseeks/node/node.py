"""The loop of a node: wait, drain what is there, let the core decide on the whole batch, store, then send.

Nothing leaves the process before the records of its turn are stored: no reply, no broadcast, no order. One thread,
no locks; nothing in here blocks but the wait.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import time
from collections.abc import Callable
from typing import Any

import meeseeks
from meeseeks import config as configuration
from meeseeks.clock import monotonic
from meeseeks.config import NodeConfig
from meeseeks.core.effects import Effects, Event, Exited, Start, Started, Update
from meeseeks.core.node_state import Endpoints, NodeState
from meeseeks.core.placement import CONFIG_POOL
from meeseeks.core.record import jobinfo
from meeseeks.errors import MeeseeksError
from meeseeks.executor.handle import ExecutorHandle
from meeseeks.wire import codec, sockets, transfer
from meeseeks.wire.messages import MAX_MESSAGE_BYTES, Hello, Reply
from meeseeks.wire.room import hang_up

from .access import Access
from .asker import Asker, frame_of
from .doors import Doors
from .durability import Durability
from .folder import StateFolder
from .handlers import HANDLERS, LATER
from .history import History
from .identity import Identity, KnownNames
from .line import Dialer
from .peers import Peers
from .rarely import Rarely
from .streams import Streams
from .subscriptions import Subscriptions

__all__ = ["Node"]

log = logging.getLogger(__name__)

_STOP_WITHIN = 8.0
_CLOSE_WITHIN = 10.0
_READ_WITHIN = 0.02
"""Seconds for the requests of one turn: so that a flood does not keep the others waiting."""
_LAST_WORDS_MS = 1000
_EXECUTOR_PAUSE, _MUTE_S = 2.0, 5.0


class Node:
    """One node: its sockets, its executor, its core. `run` returns when it has been told to stop and all is quiet."""

    def __init__(self, config: NodeConfig) -> None:
        self.config = config
        self.name = config.name
        self.replies: list[tuple[list[bytes], Reply]] = []
        self._rarely = Rarely(log)
        self._stop_at: float | None = None
        self._was_heard = False  # by a node of the mesh
        self._config_jobs: list[Event] = []
        self._executor_lives = True
        self._executor_at = monotonic()  # when it was started, or is to be
        self.access = Access(config)
        self._subscriptions = Subscriptions(self._rarely)
        self._folder = StateFolder(config.state_dir, config.name, keep_output=config.state.sync != "memory")
        self._identity = Identity(self._folder.path, self.access.keys)
        self._durability = Durability(config, self._folder)
        self._poller = sockets.Poller()
        self._router = sockets.router(self.access.keys)
        self._doors = Doors(config, self.access.on_turned_away)
        self.port = self._doors.open("router", self._router, config.listen.port)
        self.access.watch(self._router, self._poller)
        self._publisher: sockets.Socket | None = None
        self.pub_port = config.pub_port
        self._open_publisher(config.pub_port, first=True)
        self._endpoints = Endpoints(config.advertised, self.port, self.pub_port, meeseeks.__version__)
        life = self._identity.incarnation(self._durability.incarnation)
        self.state = NodeState(
            config.settings(), life, monotonic(), time.time(), endpoints=self._endpoints, boot=self._durability.boot
        )
        self.state.wanted_topics = set()
        self._known_names = KnownNames(self._folder.path, self.state.mesh.names)
        self._history = History(config.state.history)
        self._executor = ExecutorHandle(
            self._folder.path,
            self.name,
            inline_output=config.state.inline_output,
            outlive=self._durability.outlives,
        )
        self._spool = self._executor.spool
        self._durability.restore(self.state, self._spool)
        self._dialer = Dialer(self.access.keys, self._identity.keys, config)
        self._peers = Peers(self.state, self._poller, self.hello, self._dialer)
        self._peers.set_fixed(config.peers())
        self.streams = Streams(self.state, self._peers, self._executor)
        self._tick_at = 0.0
        self._turn_s_max = 0.0
        for socket in (self._router, self._executor.line, *self.access.sockets):
            self._poller.register(socket, sockets.POLLIN)
        self._poller.register(self._executor.pidfd, sockets.POLLIN)

    # --- life

    def run(self, wakeup_fd: int, should_stop: Callable[[], bool], should_leave: Callable[[], bool]) -> bool:
        """Go round until one of them says so; `wakeup_fd` becomes readable when they should be asked. True: it left.

        A stop ends the jobs; after `should_leave` they go on, for the node that is started next on this state folder.
        """
        self._poller.register(wakeup_fd, sockets.POLLIN)
        while not self._is_over():
            wait_s = max(0.0, min(self.state.next_turn_at, self._tick_at, self.streams.follows.look_at) - monotonic())
            if self._config_jobs or not self._executor_lives:
                wait_s = min(wait_s, 0.0 if self._config_jobs else 0.1)
            ready = dict(self._poller.poll(int(wait_s * 1000) + 1 if wait_s else 0))
            if wakeup_fd in ready:
                os.read(wakeup_fd, 4096)
            if self._stop_at is None and should_stop():
                log.info("stopping: no new jobs, ending those that run")
                self._stop_at = monotonic() + _STOP_WITHIN
                self.state.begin(monotonic(), time.time())
                self.state.stop()
            if self._stop_at is None and should_leave():
                self._leave()
                return True
            self._turn(ready)
        self.close()
        return False

    @property
    def refused(self) -> str | None:
        """Why the mesh that this node was told to join would not have it; None once anybody in it has heard it."""
        return None if self._was_heard else self._peers.refused

    @property
    def is_refused_for_good(self) -> bool:
        """Whether asking again would not help: the name is another node's."""
        return self.refused is not None and self._peers.refused_for_good

    def close(self) -> None:
        """End the executor, tell how its last jobs ended, and close everything."""
        if self._durability.trouble is not None and self.state.is_idle and self._executor_lives:
            self._leave()  # the executor keeps for the next start what could not be stored
            return
        self._executor_lives = False
        # Whoever stops a node waits for it: nothing may hang for ever.
        faulthandler.dump_traceback_later(_CLOSE_WITHIN, exit=True)
        self._turn({}, self._executor.stop(timeout=1.0))
        self._close()
        faulthandler.cancel_dump_traceback_later()

    def _leave(self) -> None:
        """Close everything but the executor: the node that comes next with this state folder takes its jobs over."""
        log.info("leaving: the executor goes on, for the next start of this node")
        self._executor.detach()
        self._close()

    def _close(self) -> None:
        self._peers.close()
        sockets.close(self._router, _LAST_WORDS_MS)
        self._close_publisher()
        self._doors.close()
        self._dialer.close()
        self.access.close()
        sockets.terminate(_LAST_WORDS_MS)
        self._history.close()
        self._durability.close()
        self._folder.close()

    def _is_over(self) -> bool:
        if self._stop_at is None:
            return False
        # Until the executor has said what it has, nobody knows what there is to end.
        is_known = self._executor.is_ready or not self._executor_lives
        return (is_known and self.state.is_idle) or monotonic() > self._stop_at

    # --- a turn

    def _turn(self, ready: dict[Any, int], last_events: list[Event] | None = None) -> None:
        now, wall = monotonic(), time.time()
        self.state.begin(now, wall)
        if last_events is None:
            self._read_executor(ready, now)
        elif last_events:
            self.state.on_executor(last_events)
        config_jobs, self._config_jobs = self._config_jobs, []
        if config_jobs:
            self.state.on_executor(config_jobs)
        self.access.receive(ready)
        if self._router in ready:
            self._read_requests()
        self._peers.receive(ready)
        if self._publisher in ready:
            self._read_subscriptions()
        self.streams.turn(now)
        self._tick(now)
        effects = self.state.finish()
        self._durability.save(self.state, effects)
        self._carry_out(effects, now)
        self._turn_s_max = max(self._turn_s_max, monotonic() - now)

    def _tick(self, now: float) -> None:
        """What is looked at from time to time, whatever happens."""
        if now < self._tick_at:
            return
        self._tick_at = now + min(0.2, self.config.heartbeat)
        self._peers.tick(now)
        if not self._was_heard:
            beats = [peer.beat for peer in self.state.mesh.peers.values() if peer.beat is not None]
            self._was_heard = any(beat.acks.get(self.name, ("",))[0] == self.state.incarnation for beat in beats)
        if self.access.tick(now):
            self._close_publisher()
        if self._publisher is None:
            self._open_publisher(self.pub_port)
        self.streams.tick(now)
        self._durability.tick(now)
        self._known_names.tick()
        self._executor.flush()
        with contextlib.suppress(OSError):  # it is read from a file: there may be none left to open
            self.state.submitter.loadavg = round(os.getloadavg()[0], 2)
        self.state.info = {"jobs": len(self.state.table), "turn_ms_max": round(1000 * self._turn_s_max, 1)}

    def _carry_out(self, effects: Effects, now: float) -> None:
        for record in effects.ended:
            self._history.append(jobinfo(record, self.state.table.seq))
        self._history.write(is_stored=self._durability.trouble is None)
        for jid in self.state.expired:
            self._spool.forget(jid)
        self.state.expired.clear()
        orders = self._durability.release([order for order in effects.orders if not self._is_config_order(order)])
        if orders and self._executor_lives:
            self._executor.send(orders)
        self._durability.settle(self.replies, now)
        for update in effects.updates:
            self._broadcast(update)
        replies, self.replies = self.replies, []
        for envelope, reply in replies:
            if not transfer.send_nowait(self._router, [*envelope, frame_of(reply, self.name)]):
                self._rarely.say("gone", "a reply could not be delivered: its asker is gone", level=logging.INFO)
        for link in effects.links:
            self._peers.carry_out(link, now)
        for sync in effects.syncs:
            self._peers.sync(sync, now)

    def _broadcast(self, update: Update) -> None:
        """Publish, in parts where it is too much for one message."""
        frame = codec.encode(update)
        if len(frame) > MAX_MESSAGE_BYTES // 2 and len(update.records) > 1:
            for half in self.state.halves(update):
                self._broadcast(half)
            return
        if self._publisher is not None:
            transfer.send_nowait(self._publisher, [update.topic.encode(), frame])

    # --- sockets

    def _open_publisher(self, port: int, *, first: bool = False) -> None:
        try:
            publisher, self.pub_port = self._doors.publisher(self.access.keys, port)
        except MeeseeksError as error:
            if first:
                raise
            if self.state.ledger.now > self._mute_since + _MUTE_S:
                self._rarely.say("publisher", f"nobody hears this node any more: {error}", level=logging.ERROR)
            return  # the one that was closed has not let its port go yet: it is tried again
        self._publisher = publisher
        self._poller.register(publisher, sockets.POLLIN)
        self.access.watch(publisher, self._poller)

    def _close_publisher(self) -> None:
        """End all subscriptions. Who may listen comes again and learns what it missed; a key that may not does not."""
        if self._publisher is None:
            return
        self._poller.unregister(self._publisher)
        sockets.close(self._publisher, _LAST_WORDS_MS)
        self.access.unwatch(self._publisher, self._poller)
        self._publisher, self._mute_since = None, self.state.ledger.now
        self._subscriptions.clear()
        self.state.wanted_topics = set()

    def _read_requests(self) -> None:
        first, until = len(self.replies), monotonic() + _READ_WITHIN
        self._durability.watch(self.state)
        while monotonic() < until and (received := transfer.receive_request(self._router)) is not None:
            self._on_request(received)
        self._durability.save_asked(self.state, self.replies, first)

    def _on_request(self, received: transfer.Received) -> None:
        try:
            request = codec.decode_request(received.body, self.access.bytes_max(received.user))
        except codec.BadRequest as error:
            if received.body is None:
                hang_up(received.fd)
            Asker(received, error.id, "", self).answer(error)
            return
        kind, data = next(iter(request.request.items()))
        asker = Asker(received, request.id, kind, self)
        try:
            self.access.check(kind, data, received.user, self.state.table)
            self._durability.check(kind)
            result = HANDLERS[kind](self, data, asker)
        except MeeseeksError as error:
            asker.answer(error)
        except Exception:  # noqa: BLE001 - the border of a handler: a defect in one request must not take the node down
            self._rarely.say(("defect", kind), f"request {kind!r} failed", level=logging.ERROR, trace=True)
            asker.answer(MeeseeksError(f"request {kind!r} met a defect of node {self.name!r}; its log has the details"))
        else:
            if result is not LATER:
                asker.answer(result)

    def _read_subscriptions(self) -> None:
        assert self._publisher is not None
        if self._subscriptions.read(self._publisher):
            self.state.on_subscribed()
        self.state.wanted_topics = self._subscriptions.wanted

    def _read_executor(self, ready: dict[Any, int], now: float) -> None:
        if not self._executor_lives:
            if now >= self._executor_at:
                self._start_executor(now)
            return
        has_died = self._executor.pidfd in ready and self._executor.died()
        is_heard = self._executor.line.fileno() in ready
        events = self._executor.receive() if is_heard or has_died else []  # asked after: its last words are among them
        if events:
            self.state.on_executor(events)
        if has_died:
            self._executor.line.hang_up()  # else it would stay readable until the next one is started
            self._poller.unregister(self._executor.pidfd)
            self._executor_lives = False
            # One that dies as soon as it is started would keep the node busy with starting it.
            pause = 0.0 if now - self._executor_at > _EXECUTOR_PAUSE else _EXECUTOR_PAUSE
            self._executor_at = now + pause
            log.error("the executor died: its jobs have failed; a new one is started in %g s", pause)
            self._durability.executor_died()
            self.state.on_executor_gone()

    def _start_executor(self, now: float) -> None:
        try:
            self._executor.restart()
        except OSError as error:
            self._executor_at = now + _EXECUTOR_PAUSE
            self._rarely.say("executor", f"can't start an executor now: {error.strerror}", level=logging.ERROR)
        else:
            self._executor_lives, self._executor_at = True, now
            self._poller.register(self._executor.pidfd, sockets.POLLIN)

    # --- what handlers need

    def hello(self) -> Hello:
        """Who this node is, for its peers."""
        return Hello(
            node=self.name,
            identity=self._identity.public,
            incarnation=self.state.incarnation,
            address=self._endpoints.address,
            port=self.port,
            pub_port=self.pub_port,
            version=meeseeks.__version__,
        )

    def forget(self, name: Any) -> dict[str, Any]:
        """Forget whose name it was, and have all others do the same."""
        answer = self.state.requests.forget(name)
        self._peers.spread("forget", name, self.state.ledger.now)
        return answer

    def change_config(self, patch: dict[str, Any]) -> dict[str, Any]:
        """Take over changed settings, and return all as they are now. A wrong patch changes nothing."""
        if patch:
            changed = configuration.change(self.config, patch)
            self._dialer.configure(changed)  # first: it reads files, and refuses those that it can't use
            self.state.configure(changed.settings())
            self.config = changed
            self._peers.set_fixed(changed.peers())
            log.info("configuration changed: %s", ", ".join(sorted(patch)))
        return configuration.without_secrets(self.config)

    def _is_config_order(self, order: Any) -> bool:
        """A job of the pool `__config` is carried out here, and reported as the executor would."""
        if not isinstance(order, Start) or order.pool != CONFIG_POOL:
            return False
        now, error = time.time(), None
        try:
            self.change_config(dict(order.config))
        except MeeseeksError as problem:
            error = str(problem)
        except Exception:  # noqa: BLE001 - the border, as for requests: the job would end the node at each start again
            self._rarely.say(("defect", CONFIG_POOL), "a pushed configuration failed", level=logging.ERROR, trace=True)
            error = f"it met a defect of node {self.name!r}; its log has the details"
        ended = Exited(key=order.key, rc=0 if error is None else 1, error=error, start_ts=now, end_ts=time.time())
        self._config_jobs += [Started(order.key, os.getpid(), now), ended]
        return True
