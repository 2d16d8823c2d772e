"""The I/O thread of a Client: the only one that touches its sockets. User threads hand it requests and wait.

A request is kept until it is answered or its deadline has passed, and is sent again when its connection broke, to
whatever node is connected then, unless that could do it twice (`Call.repeat`). User threads share two things with the
loop: a deque, whose ends are safe to use at the same time, and a pipe that wakes the poller.
"""

from __future__ import annotations

import itertools
import logging
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from meeseeks.errors import (
    ClientClosed,
    InvalidRequest,
    MeeseeksError,
    NodeUnreachable,
    ProtocolError,
    RequestTimeout,
    from_reply,
)
from meeseeks.wire import codec, sockets
from meeseeks.wire.messages import MAX_MESSAGE_BYTES, QUESTIONS, Reply, Request

from .call import Call, Guest, Repeat
from .credentials import Credentials
from .exits import close_at_exit, forget
from .link import Link
from .settings import Address, Place

__all__ = ["Channel"]

_log = logging.getLogger(__name__)

_SEND_RETRY = 0.002
"""Seconds after which a send is tried again that a connection, although it is there, did not take."""
_UPDATES_A_TURN = 1000
_REFUSALS = 2
"""So many refused handshakes in a row mean that we are not let in; one may also be a node that is being stopped."""
_GRACE = 2.0
"""Seconds beyond its deadline that a caller waits for the loop to say how its request ended."""


class Channel:
    """Requests to one node of a list, by one daemon thread. All public methods may be called by any thread.

    With several addresses a node that leaves a request unanswered for half of `timeout`, and says nothing else
    meanwhile, is taken for gone: there is time left then to ask the next one.
    """

    def __init__(
        self,
        addresses: Sequence[Address],
        timeout: float,
        credentials: Credentials | None = None,
        host: str | None = None,
    ) -> None:
        self.link = Link(addresses, credentials, host, timeout)
        self.timeout = timeout
        self._silence = timeout / 2.0
        self._mute_since: float | None = None  # the node owes an answer, and has said nothing since
        self._ids = itertools.count(1)
        self._incoming: deque[Call] = deque()
        self._calls: dict[int, Call] = {}
        self._unsent: deque[Call] = deque()
        self._deadline = float("inf")  # the earliest of all calls, or earlier
        self._life = 0
        self._guest: Guest | None = None
        self._awake = False
        self._close_by: float | None = None
        self._broken: str | None = None
        self.unsettled: Callable[[], list[str]] = list
        """Jobs with writes of a cache that were not acknowledged yet."""
        self._pid = os.getpid()
        self._wake_out, self._wake_in = os.pipe()
        os.set_blocking(self._wake_in, False)
        os.set_blocking(self._wake_out, False)
        self._started = threading.Event()
        self._pipe_lock = threading.RLock()  # a Client may be collected, and so released, anywhere
        self._thread = threading.Thread(target=self._run, name="meeseeks-client", daemon=True)

    def start(self, guest: Guest | None = None) -> None:
        """Start the thread, and return when it runs. RuntimeError where there can be no more threads."""
        self._guest = guest
        try:
            self._thread.start()
        except RuntimeError as error:
            self._broken = str(error)
            self._end()
            raise
        self._started.wait()
        close_at_exit(self)

    def call(self, kind: str, payload: Any, *, repeat: Repeat = Repeat.ANYWHERE, timeout: float | None = None) -> Any:
        """The node's answer to a request. Raises its error, or by the deadline one that says why there is none."""
        return self.wait(self.post(kind, payload, repeat=repeat, timeout=timeout))

    def post(
        self,
        kind: str,
        payload: Any,
        *,
        repeat: Repeat = Repeat.ANYWHERE,
        timeout: float | None = None,
        callback: Callable[[Call], None] | None = None,
        sent_to: Place | None = None,
    ) -> Call:
        """Hand a request in without waiting. `callback` runs in the I/O thread when it has ended.

        `sent_to`: the node that may have it already, which is the only one to get it (with SAME_NODE).
        """
        call_id = next(self._ids)
        frame = self.encode(kind, payload, call_id)
        call = Call(call_id, kind, frame, self.timeout if timeout is None else timeout, repeat)
        call.callback, call.sent_to = callback, sent_to
        if threading.current_thread() is not self._thread:  # which goes on delivering while it is being closed
            self.check_open()
        self._incoming.append(call)
        self.wake()
        return call

    def wait(self, call: Call) -> Any:
        """Wait for a call's end: its result, or its error raised."""
        if not call.ended.wait(max(0.0, call.deadline - time.monotonic()) + _GRACE):
            self.check_open()
            raise RequestTimeout(f"the client's own thread did not carry out {call.kind!r} in time")
        if call.error is not None:
            raise call.error
        return call.result

    @staticmethod
    def encode(kind: str, payload: Any, call_id: int = 0) -> bytes:
        """A request as its frame; InvalidRequest if it can't be one, or is too large for a message."""
        try:
            frame = codec.encode(Request(id=call_id, request={kind: payload}))
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            # Imported when it is wanted: `mks` would wait for it at each call.
            raise import_module("meeseeks.client.unsendable").unsendable(kind, payload, error) from error
        if len(frame) > MAX_MESSAGE_BYTES:
            raise InvalidRequest(
                f"{kind}: the request has {len(frame)} bytes, a message at most {MAX_MESSAGE_BYTES}: send it in parts"
            )
        return frame

    def wake(self) -> None:
        """Let the loop look at what was handed in. Costs nothing while it is awake anyway."""
        if self._awake:
            return
        self._awake = True
        with self._pipe_lock:
            if self._wake_in >= 0:
                os.write(self._wake_in, b"\0")

    def release(self) -> None:
        """Ask the thread to end, once what is unsent has been delivered or `timeout` has passed. Does not wait."""
        if self._close_by is None and not self.inherited:
            self._close_by = time.monotonic() + self.timeout
            self.wake()

    def close(self) -> None:
        """Deliver what is unsent within `timeout`, end the thread, and return when it has ended."""
        self.release()
        if not self.inherited and threading.current_thread() is not self._thread:
            self._thread.join(self.timeout + _GRACE)

    def undelivered(self) -> str:
        """What to say once it is closed of writes that came to nothing; blank if there are none."""
        left = [] if self.inherited else self.unsettled()
        names = ", ".join(left[:5]) + (", …" if len(left) > 5 else "")
        asked = f"{self.link.describe()} did not acknowledge within {self.timeout:g} s"
        return f"closed with {len(left)} jobs whose submits or kills {asked}: {names}" if left else ""

    @property
    def closed(self) -> bool:
        """Whether it is of no use any more: closed, by its owner or by a defect, or inherited."""
        return self._close_by is not None or self._broken is not None or self.inherited

    @property
    def inherited(self) -> bool:
        """Whether this is a child that was forked: the thread, and all that it does, is the parent's."""
        return self._pid != os.getpid()

    def check_open(self) -> None:
        """ClientClosed, with the reason, where it is of no use any more."""
        if self.inherited:
            raise ClientClosed(f"this Client was made in process {self._pid}: make a new one after a fork")
        if self._broken is not None:
            raise ClientClosed(f"this Client was closed by a defect of its own: {self._broken}; please report it")
        if self._close_by is not None:
            raise ClientClosed("this Client is closed")

    def check_let_in(self) -> None:
        """`check_open`, and AuthenticationFailed where no node lets us in."""
        self.check_open()
        if self.link.refusals >= _REFUSALS:
            raise self.link.failure()

    # --- the thread

    def _run(self) -> None:
        self._started.set()
        try:
            self.link.poller.register(self._wake_out, sockets.POLLIN)
            while not self._may_end():
                self._turn()
        except Exception as error:  # noqa: BLE001 - the border of the thread: callers must hear of it
            _log.exception("the I/O thread of a Client met a defect")
            self._broken = f"{type(error).__name__}: {error}"
        finally:
            self._end()

    def _may_end(self) -> bool:
        if self._close_by is None:
            return False
        unsent = self._guest is not None and self._guest.has_unsent()
        return not unsent or time.monotonic() >= self._close_by

    def _end(self) -> None:
        if self._guest is not None:
            self._guest.on_end()
        self.link.end()
        why = f"was closed by a defect of its own: {self._broken}" if self._broken else "is closed"
        for call in [*self._calls.values(), *self._incoming]:
            self._finish(call, error=ClientClosed(f"this Client {why}"))
        with self._pipe_lock:
            os.close(self._wake_in)
            os.close(self._wake_out)
            self._wake_in = -1
        forget(self)

    def _turn(self) -> None:
        now = time.monotonic()
        due = min(self.link.tick(now), self._close_by or float("inf"))
        self._notice_life(now)
        if self._guest is not None:
            due = min(due, self._guest.on_tick(now))
        self._take_in()
        if self._unsent and self.link.ready:
            self._send()
            due = min(due, now + _SEND_RETRY) if self._sendable() else due
        if self._mute_since is not None and self.link.has_others:
            due = min(due, self._mute_since + self._silence)
        timeout = 0.0 if self._incoming else max(0.0, min(due, self._deadline) - time.monotonic())
        readable = dict(self.link.poller.poll(math.ceil(timeout * 1000.0)))
        if self._wake_out in readable:
            # In this order: who hands something in while it is still set need not write, since `_take_in` comes after.
            os.read(self._wake_out, 4096)
            self._awake = False
        now = time.monotonic()
        self._receive(now)
        self.link.read_monitor(now)
        self._leave_if_mute(now)
        if self.link.refusals >= _REFUSALS:
            self._give_up()
        self._expire(now)

    def _take_in(self) -> None:
        while self._incoming:
            call = self._incoming.popleft()
            self._calls[call.id] = call
            self._unsent.append(call)
            self._deadline = min(self._deadline, call.deadline)

    def _notice_life(self, now: float) -> None:
        """Where the connection has changed, sort out what was sent on the one before."""
        if self.link.lives == self._life:
            return
        self._life, self._mute_since = self.link.lives, None
        for call in list(self._calls.values()):
            if self.link.ready and not self._fits_here(call):
                self._finish(call, error=self._stranded(call))
                continue
            if call.life is None and call.repeat is not Repeat.THIS_LIFE:
                continue
            call.life = None
            if call.repeat in (Repeat.NEVER, Repeat.THIS_LIFE):
                self._finish(call, error=self._broke(call))
            else:
                self._unsent.append(call)
        if self.link.ready and self._guest is not None:
            self._guest.on_ready(now)

    def _broke(self, call: Call) -> RequestTimeout:
        return RequestTimeout(
            f"the connection to {self.link.describe()} broke before it answered {call.kind!r}, which may have been "
            "carried out: look before you repeat it"
        )

    def _stranded(self, call: Call) -> RequestTimeout:
        assert call.sent_to is not None
        return RequestTimeout(
            f"{self.link.describe(call.sent_to)} went away before it answered {call.kind!r}, which may have been "
            f"carried out; it is asked of no other node. Now connected: {self.link.describe()}"
        )

    def _leave_if_mute(self, now: float) -> None:
        """Where there are other addresses: a node that says nothing for long, although it was asked, is gone."""
        if self._mute_since is None or not self.link.ready or not self.link.has_others:
            return
        if now - self._mute_since < self._silence:
            return
        if any(call.life == self._life for call in self._calls.values()):
            _log.warning("%s has been silent for %.1f s: on to the next", self.link.describe(), now - self._mute_since)
            self.link.move_on(now)
        self._mute_since = None

    def _sendable(self) -> bool:
        return any(self._fits_here(call) for call in self._unsent)

    def _fits_here(self, call: Call) -> bool:
        return call.repeat is not Repeat.SAME_NODE or call.sent_to in (None, self.link.place)

    def _send(self) -> None:
        kept: list[Call] = []
        while self._unsent:
            call = self._unsent.popleft()
            if call.id not in self._calls:
                continue
            if not self._fits_here(call):
                kept.append(call)
                continue
            if not self.link.send(call.frame):
                self._unsent.appendleft(call)
                break
            call.life, call.sent_to = self._life, self.link.place
            if self._mute_since is None:
                self._mute_since = time.monotonic()
        self._unsent.extend(kept)

    def _receive(self, now: float) -> None:
        while (frame := self.link.receive()) is not None:
            self._heard(now)
            try:
                reply = codec.decode_reply(frame)
            except ProtocolError as error:
                _log.warning("%s sent a reply that is none: %s", self.link.describe(), error)
                continue
            if reply.node:
                self.link.name = reply.node
            self._answer(reply)
        for _ in range(_UPDATES_A_TURN):
            update = self.link.receive_update()
            if update is None:
                return
            self._heard(now)
            if self._guest is not None:
                self._guest.on_update(update, now)

    def _heard(self, now: float) -> None:
        self._mute_since = now if self._calls else None

    def _answer(self, reply: Reply) -> None:
        call = self._calls.get(reply.id) if isinstance(reply.id, int) else None
        if call is None:
            return  # its caller has given up
        if reply.error is not None:
            self._finish(call, error=from_reply(reply.error.code, reply.error.message))
        elif reply.response is not None and call.kind in reply.response:
            self._finish(call, result=reply.response[call.kind])
        else:
            where = self.link.describe()
            self._finish(call, error=ProtocolError(f"{where} answered {call.kind!r} with something else"))

    def _finish(self, call: Call, result: Any = None, error: MeeseeksError | None = None) -> None:
        self._calls.pop(call.id, None)
        call.result, call.error = result, error
        call.ended.set()
        if call.callback is not None and not (self._broken or isinstance(error, ClientClosed)):
            call.callback(call)

    def _expire(self, now: float) -> None:
        if now < self._deadline:
            return
        for call in [call for call in self._calls.values() if call.deadline <= now]:
            self._finish(call, error=self._why_late(call))
        self._unsent = deque(call for call in self._unsent if call.id in self._calls)
        self._deadline = min((call.deadline for call in self._calls.values()), default=float("inf"))

    def _give_up(self) -> None:
        """No key fits: who waits for an answer is told so at once, since waiting does not help."""
        for call in list(self._calls.values()):
            self._finish(call, error=self.link.failure())

    def _why_late(self, call: Call) -> MeeseeksError:
        if not self.link.ready:
            error = self.link.failure()
            if call.sent_to is not None and isinstance(error, NodeUnreachable) and call.kind not in QUESTIONS:
                return RequestTimeout(f"{error}; {call.kind!r} was sent and not answered: it may have been carried out")
            return error
        where = self.link.describe(call.sent_to)
        text = f"{where} did not answer {call.kind!r} within {call.timeout:g} s"
        return RequestTimeout(text if call.repeat is Repeat.ANYWHERE else f"{text}; it may have been carried out")
