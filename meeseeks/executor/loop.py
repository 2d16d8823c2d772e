"""The executor's loop: waits for orders, ends of processes, the next deadline and the end of its node; then one turn.

One thread, no locks. SIGCHLD wakes it through a pipe; which child it was is asked of the kernel in `Family.reap`, so a
thousand tasks need no thousand descriptors, and orphans are seen like leaders.
"""

from __future__ import annotations

import logging
import math
import os
import select
import signal
import time
from pathlib import Path

from meeseeks.clock import monotonic
from meeseeks.core.effects import Exited, Started
from meeseeks.errors import ProtocolError
from meeseeks.wire import codec
from meeseeks.wire.local import Dialer
from meeseeks.wire.messages import Event, Order

from .ends import Ends
from .executor import Executor
from .frames import frames

__all__ = ["Loop"]

_STOP_S = 9.0
"""How long a stop may take, SIGKILL to strays included: whoever stops a node waits for ten seconds."""
_WAIT_MAX_MS = 1000
"""While there is a deadline: a wait stands still while the machine sleeps, the clock of the deadlines goes on."""
_RETRY_S = 0.05
_STARTS_WAIT_S = 0.002
_ENDS_WAIT_S = 0.004
_KEEP_AGAIN_S = 2.0
_LINGER_S = 0.5
_DIAL_S = 0.02
_DIAL_MAX_S = 0.25

log = logging.getLogger(__name__)


class Loop:
    """Runs an executor on its node's line until it is stopped: by SIGTERM, SIGINT, or the end of process `parent`.

    One with `ends` outlives its node, until its tasks have ended: how they ended it tells the node that comes next, or
    keeps in `ends` if none comes for `linger_s`.
    """

    def __init__(
        self, executor: Executor, socket_path: Path, parent: int, ends: Ends | None = None, linger_s: float = 30.0
    ) -> None:
        self._executor = executor
        self._ends = ends
        self._linger_s = linger_s
        self._leave_at = self._tell_at = math.inf
        self._line = Dialer(socket_path)
        self._dial_at, self._dial_pause = 0.0, _DIAL_S
        self._parent = _watch(parent)
        self._has_met_node = self._has_lost_node = False
        self._is_asked = False
        """A node wants to know what we have. It is told after all orders that came before: the last ones of the node
        before it may have waited here, if this process was frozen when that one died."""
        self._stops_asked = 0
        self._stops_done = 0
        self._stopped_at = math.inf
        self._wake, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # only with a handler does it reach the pipe
        signal.signal(signal.SIGIO, lambda *_: None)  # of the spool's leases; without a handler it would end us
        signal.signal(signal.SIGTERM, self._ask_stop)
        signal.signal(signal.SIGINT, self._ask_stop)
        self._poller = select.poll()
        for readable in (self._line, self._wake, self._parent, self._executor.inputs):
            self._poller.register(readable, select.POLLIN)

    def run(self) -> None:
        """Until everything has ended after a stop."""
        self._dial()
        while not self._is_over():
            ready = {fd for fd, _ in self._poller.poll(self._timeout_ms())}
            if self._wake in ready:
                self._empty_pipe()
            if self._parent in ready:
                self._on_parent_gone()
            orders = self._receive() if self._line.fileno() in ready else []
            if not self._line.is_connected:
                self._dial()
            self._executor.turn(orders)
            if self._ends is not None and not self._executor.ends:
                self._ends.forget()
            if self._is_asked:
                self._is_asked = False
                self._executor.announce()
            while self._stops_done < self._stops_asked:
                self._stops_done += 1
                self._stopped_at = min(self._stopped_at, monotonic())
                self._executor.stop()
            self._tell()
        self._close()

    def _ask_stop(self, *_: object) -> None:
        self._stops_asked += 1

    def _is_over(self) -> bool:
        if (
            self._ends is not None
            and self._has_lost_node
            and not self._executor.has_tasks
            and self._may_leave(self._ends)
        ):
            return True
        return self._executor.is_over or monotonic() > self._stopped_at + _STOP_S

    def _may_leave(self, ends: Ends) -> bool:
        """No node is there, and no task. What a node has to hear of must be in a file before."""
        if not self._executor.ends:
            return True
        now = monotonic()
        if self._leave_at == math.inf:
            self._leave_at = now + self._linger_s
        if now < self._leave_at:
            return False
        self._leave_at = now + _KEEP_AGAIN_S
        return ends.keep(list(self._executor.ends))

    def _on_parent_gone(self) -> None:
        self._poller.unregister(self._parent)
        if self._ends is None:
            log.warning("the node is gone: ending its tasks")
            self._ask_stop()
        elif not self._has_met_node:
            self._has_lost_node = True  # nobody will ever connect, unless the next node finds us before we leave

    def _timeout_ms(self) -> int | None:
        if self._is_asked:
            return 0
        at = self._executor.next_at()
        if self._executor.events and self._line.is_connected:  # they could not be sent, or wait for a moment
            again_at = min(monotonic() + _RETRY_S, self._tell_at)
            at = again_at if at is None else min(again_at, at)
        if not self._line.is_connected:
            at = self._dial_at if at is None else min(self._dial_at, at)
        if self._leave_at < math.inf:
            at = min(self._leave_at, math.inf if at is None else at)
        if self._executor.is_stopping:
            at = min(self._stopped_at + _STOP_S, math.inf if at is None else at)
        # Rounded up: waking before the time would only mean to wait again.
        return None if at is None else min(max(0, math.ceil((at - monotonic()) * 1000)), _WAIT_MAX_MS)

    def _empty_pipe(self) -> None:
        os.read(self._wake, 4096)  # what is left wakes us again

    def _dial(self) -> None:
        """Connect, if a node is there; else try again soon."""
        now = monotonic()
        if now < self._dial_at:
            return
        if self._line.dial():
            self._has_lost_node, self._is_asked, self._has_met_node = False, True, True
            self._leave_at = math.inf
            self._dial_pause = _DIAL_S
        self._dial_at = now + self._dial_pause
        self._dial_pause = min(2 * self._dial_pause, _DIAL_MAX_S)

    def _receive(self) -> list[Order]:
        orders: list[Order] = []
        for frame in self._line.receive():
            try:
                batch = codec.decode_orders(frame)
            except ProtocolError as error:
                log.warning("orders that can't be read were dropped: %s", error)
                continue
            orders.extend(batch)
            if not batch:
                self._is_asked = True
        if not self._line.is_connected:
            self._has_lost_node = True
            self._dial_pause = _DIAL_S
        return orders

    def _tell(self) -> None:
        """What could not be sent is told again with the next turn."""
        events = self._executor.events
        if not self._line.is_connected or self._may_wait(events):
            return
        for sent, frame in frames(events):
            if not self._line.send(frame):
                return
            del events[:sent]
        self._executor.told()

    def _may_wait(self, events: list[Event]) -> bool:
        """Whether these events can be told a little later, together with those that follow."""
        patience = self._patience(events)
        if not patience:
            self._tell_at = math.inf
            return False
        now = monotonic()
        if self._tell_at == math.inf:
            self._tell_at = now + patience
        if now < self._tell_at:
            return True
        self._tell_at = math.inf
        return False

    def _patience(self, events: list[Event]) -> float:
        """For how many seconds the first of these may wait.

        The start of a job that is over at once is told together with its end, and ends together while there is work
        for the slots that they free: each message costs the node a turn, with a commit and a broadcast.
        """
        kinds = {type(event) for event in events}
        if kinds == {Started}:
            return _STARTS_WAIT_S
        if kinds and kinds <= {Started, Exited} and self._executor.may_hold_ends:
            return _ENDS_WAIT_S
        return 0.0

    def _close(self) -> None:
        deadline = monotonic() + 1.0
        while self._executor.kill_strays():
            if monotonic() > deadline:
                log.error("some processes of tasks don't end")
                break
            time.sleep(0.005)
        self._tell_all()
        self._executor.close()
        if self._ends is not None:
            self._ends.keep(list(self._executor.ends))  # our node may have died before it has stored them
        self._line.close(_LINGER_S)

    def _tell_all(self) -> None:
        """The last words, as fast as the node takes them."""
        deadline = monotonic() + _LINGER_S
        while self._executor.events and self._line.is_connected and monotonic() < deadline:
            self._tell_at = 0.0
            self._tell()
            self._line.receive()
            if self._executor.events:
                time.sleep(0.005)


def _watch(parent: int) -> int:
    """A descriptor that is readable once our parent has ended."""
    try:
        fd = os.pidfd_open(parent)
    except ProcessLookupError:
        fd = -1
    if fd < 0 or os.getppid() != parent:
        raise SystemExit(f"the node, process {parent}, has ended before its executor started")
    return fd
