"""What the executor does with each order and each end of a process. Its loop (`loop`) has the sockets and the waiting.

A task ends in one of these ways, all of which lead to SIGTERM to its whole tree, SIGKILL after a grace, and an Exited
once nothing is left:

- its leader ended by itself, and left others behind: they are ended, and the leader's exit code stands;
- a Kill, its `runtime`, or the end of this executor: `error` says which; its lease's end goes straight to SIGKILL.

No step costs more because other tasks are known, but for the kernel's list of our children: it is read once a turn in
which a leader ended (some 0.2 us for each running task).
"""

from __future__ import annotations

import logging
import signal
import time
import uuid
from collections.abc import Collection, Iterable
from functools import partial

from meeseeks.clock import monotonic
from meeseeks.core.effects import (
    Ack,
    Adopted,
    Dropped,
    Exited,
    Kill,
    Renew,
    SetSlots,
    Start,
    Started,
    TaskKey,
)
from meeseeks.wire.messages import Event, Feed, Order

from .deadlines import Deadline, Deadlines
from .family import Family
from .inputs import Inputs, is_piped
from .journal import Entry, Journal
from .leases import Leases
from .processes import inspect
from .queues import Queues
from .results import inherited, result
from .spawn import SpawnError, spawn
from .spool import Spool
from .task import Stage, Task

__all__ = ["MAX_INLINE_OUTPUT", "Executor"]

MAX_INLINE_OUTPUT = 8 * 1024 * 1024
"""Bytes of each stream: an event with both must fit into a message."""

_STARTS_A_TURN = 8  # some 4 ms: kills and exits are not to wait for a long queue
_STOP_GRACE = 5.0
_LOOKS = 20
_NOTE_AFTER = 0.05
_PUT_OFF_S, _AGAIN_S = 30.0, 0.5
_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 1.0

log = logging.getLogger(__name__)


class Executor:
    """All tasks of one node. `events` is what it has to tell; whoever has told it, clears it."""

    def __init__(
        self,
        spool: Spool,
        journal: Journal,
        inline_output: int,
        ends: Iterable[Exited] = (),
        unacked: Iterable[Entry] = (),
    ) -> None:
        """`ends` are those of an earlier executor that no node has acknowledged, as far as it could keep them.

        `unacked` is what its journal says of them: of one that was killed, that is all that there is.
        """
        self.events: list[Event] = []
        self.is_stopping = False
        self._spool = spool
        self._journal = journal
        self._inline_output = min(inline_output, MAX_INLINE_OUTPUT)
        self._id = uuid.uuid4().hex
        self._number = 0
        self._family = Family(self._id)
        self._queues = Queues()
        self._leases = Leases()
        self._deadlines = Deadlines()
        self.inputs = Inputs(self._deadlines, self.events.append)
        self._waiting: dict[TaskKey, Task] = {}
        self._running: dict[TaskKey, Task] = {}
        self._exited = {end.key: inherited(end, spool, inline_output) for end in unacked if end.key is not None}
        self._exited.update({exited.key: exited for exited in ends})
        """Ends that the node has not acknowledged."""
        self._ended_in: set[str] = set()
        """Pools of which there are ends in `events`."""
        self._leaderless: set[Task] = set()
        self._pause: Deadline | None = None
        """Until then nothing is started."""
        self._to_terminate: list[Task] = []
        self._to_kill: list[Task] = []

    # --- what the loop asks

    @property
    def is_over(self) -> bool:
        """Whether it was stopped and nothing is left to wait for."""
        return self.is_stopping and not self._running

    @property
    def may_hold_ends(self) -> bool:
        """Whether no slot stands empty, or is about to, because the node does not know of the ends in `events`."""
        return all(map(self._queues.has_waiting, self._ended_in))

    def told(self) -> None:
        """All `events` are sent."""
        self._ended_in.clear()

    @property
    def has_tasks(self) -> bool:
        """Whether anything waits or runs."""
        return bool(self._waiting or self._running)

    @property
    def ends(self) -> Collection[Exited]:
        """The ends that no node has acknowledged."""
        return self._exited.values()

    def next_at(self) -> float | None:
        """When to call `turn` at the latest, on the monotonic clock; None: when something happens."""
        at = self._deadlines.next_at()
        again_at = self._journal.again_at
        if not again_at and (self._pause is not None or not self._queues.has_ready):
            return at
        return again_at if at is None else min(again_at, at)

    def turn(self, orders: list[Order]) -> None:
        """One turn of the loop: ends first, so that nothing is done to a process that has ended by itself."""
        self._settle()
        for order in orders:
            self._obey(order)
        self.inputs.turn()
        for do in self._deadlines.due(monotonic()):
            do()
        self._signal()
        for _ in range(_STARTS_A_TURN if self._pause is None else 0):
            task = self._queues.take()
            if task is None or not self._start(task):
                break
        self._journal.flush()

    def announce(self) -> None:
        """A node has connected: tell it all that it may have missed, ends first."""
        self.events.extend(self._exited.values())
        running = [_started(task) for task in self._running.values()]
        self.events.append(Adopted(waiting=list(self._waiting), running=running))

    def stop(self) -> None:
        """End all tasks, those asked for later as well. Asked a second time, it grants no more grace."""
        grace = 0.0 if self.is_stopping else _STOP_GRACE
        self.is_stopping = True
        for task in list(self._waiting.values()):
            self._drop(task)
        for task in list(self._running.values()):
            self._end(task, min(grace, task.order.grace), "executor stopped")
        self._signal()

    def close(self) -> None:
        """Leave nothing behind but what the node may still ask for."""
        self._spool.clear()

    def kill_strays(self) -> bool:
        """Kill whatever still descends from us. False if there was nothing."""
        self._family.reap()
        return self._family.kill_all()

    # --- orders

    def _obey(self, order: Order) -> None:
        if isinstance(order, Start):
            self._on_start(order)
        elif isinstance(order, Ack):
            self._on_ack(order)
        elif isinstance(order, Kill):
            self._on_kill(order)
        elif isinstance(order, Renew):
            self._leases.renew(order)
        elif isinstance(order, Feed):
            self.inputs.feed(order)
        elif isinstance(order, SetSlots):
            self._queues.set_slots(order.pool, order.slots)

    def _on_start(self, order: Start) -> None:
        key = order.key
        if key in self._waiting or key in self._running or key in self._exited:
            return  # told twice
        if self.is_stopping:
            self.events.append(Dropped(key))
            return
        self._number += 1
        task = Task(order, f"{self._id}.{self._number}", grace=order.grace)
        self._waiting[key] = task
        self._leases.join(order)
        self._queues.add(task)

    def _on_ack(self, order: Ack) -> None:
        self._journal.acked(order.key)
        exited = self._exited.pop(order.key, None)
        if exited is not None and not exited.spooled:
            self._spool.discard(order.key)

    def _on_kill(self, order: Kill) -> None:
        if task := self._running.get(order.key):
            if order.only_waiting:
                return
            self._end(task, order.grace, order.why)
        elif task := self._waiting.get(order.key):
            self._drop(task)
        else:
            self.events.append(self._exited.get(order.key) or Dropped(order.key))

    # --- starts

    def _start(self, task: Task) -> bool:
        """False if nothing can be started now: it waits on."""
        order = task.order
        now = monotonic()
        limits = (self._leases.start_by_at(order), self._leases.kill_at(order))
        if any(limit is not None and limit <= now for limit in limits):
            self._drop(task)
            self._queues.release(task)
            return True
        if not self._journal.starting(task.mark, order.key):
            self._queues.put_back(task)
            return False
        del self._waiting[order.key]
        self._spool.discard_earlier(order.key)
        try:
            task.leader = spawn(order, task.mark, self._spool, self.inputs.open if is_piped(order) else None)
        except SpawnError as error:
            if error.may_pass and self._put_off(task, str(error), now):
                return False
            task.error = str(error)
            self._finish(task)
            return True
        now, task.start_ts = monotonic(), time.time()
        task.stage = Stage.RUNNING
        self._running[order.key] = task
        self._family.add(task)
        task.note = self._deadlines.add(now + _NOTE_AFTER, partial(self._note, task))
        self.events.append(_started(task))
        if order.runtime is not None:
            task.runtime_end = self._deadlines.add(now + order.runtime, partial(self._on_runtime, task))
        self._watch_lease(task)
        return True

    def _put_off(self, task: Task, why: str, now: float) -> bool:
        """Have it wait, and all others, until the machine may have what it lacks. False if it has waited long enough.

        All of a queue would fail within moments otherwise, and a node whose jobs fail has the freest slots.
        """
        if task.put_off_at is None:
            log.warning("%s; it is tried again for %g s, and nothing else is started meanwhile", why, _PUT_OFF_S)
            task.put_off_at = now
        if now - task.put_off_at > _PUT_OFF_S:
            return False
        self._journal.acked(task.order.key)  # nothing was started
        self.inputs.close(task.order)
        self._waiting[task.order.key] = task
        self._queues.put_back(task)
        self._pause = self._deadlines.add(now + _AGAIN_S, self._go_on)
        return True

    def _go_on(self) -> None:
        self._pause = None

    def _note(self, task: Task) -> None:
        """Its pid, for the journal. Looking it up is not cheap: a task that is over by now was found by its mark."""
        process = inspect(task.pid)
        if process is not None and task.rc is None:
            self._journal.started(task.mark, process)

    def _watch_lease(self, task: Task) -> None:
        kill_at = self._leases.kill_at(task.order)
        if kill_at is not None:
            task.lease_end = self._deadlines.add(kill_at, partial(self._on_lease_end, task))

    def _on_lease_end(self, task: Task) -> None:
        kill_at = self._leases.kill_at(task.order)
        if kill_at is not None and kill_at > monotonic():
            self._watch_lease(task)  # it was renewed
            return
        lessor = task.order.lessor
        self._end(task, 0.0, f"lease expired: submit node {lessor} is silent" if lessor else "lease expired")

    def _on_runtime(self, task: Task) -> None:
        self._end(task, task.order.grace, f"runtime of {task.order.runtime:.10g} s exceeded")

    # --- ends

    def _end(self, task: Task, grace: float, why: str) -> None:
        """Have the task's tree end within `grace`; a task that is ending already may get less time, never more."""
        if not task.is_leaderless and task.error is None:
            task.error = why
        if grace <= 0:
            if task.stage is not Stage.KILLING:
                self._kill(task)
            return
        kill_at = monotonic() + grace
        if task.stage is Stage.RUNNING:
            task.stage = Stage.TERMINATING
            self._to_terminate.append(task)
        elif task.stage is not Stage.TERMINATING or (task.kill_next is not None and task.kill_next.at <= kill_at):
            return
        self._deadlines.cancel(task.kill_next)
        task.kill_next = self._deadlines.add(kill_at, partial(self._kill, task))

    def _kill(self, task: Task) -> None:
        """SIGKILL, and once more after a pause, for what was forked in between or does not die at once."""
        if task.stage is not Stage.KILLING:
            task.stage = Stage.KILLING
            task.pause = _FIRST_PAUSE
        elif task.pause >= _LONGEST_PAUSE:
            log.warning("task of job %r (process %d) is still there after SIGKILL", task.order.key.job, task.pid)
        self._to_kill.append(task)
        self._deadlines.cancel(task.kill_next)
        task.kill_next = self._deadlines.add(monotonic() + task.pause, partial(self._kill, task))
        task.pause = min(task.pause * 2, _LONGEST_PAUSE)

    def _signal(self) -> None:
        """Send what this turn has decided: one look at the machine's processes for all of it."""
        terminate = [task for task in self._to_terminate if task.stage is Stage.TERMINATING]
        kill = [task for task in self._to_kill if task.stage is Stage.KILLING]
        self._to_terminate.clear()
        self._to_kill.clear()
        if terminate:
            # A stopped process handles SIGTERM only when it goes on.
            self._family.signal_trees(terminate, signal.SIGTERM, signal.SIGCONT)
        if kill:
            self._family.signal_trees(kill, signal.SIGKILL)
            self._family.chase(kill)

    def _settle(self) -> None:
        """Take the ends of processes; finish the tasks of which nothing is left, end what others have left behind."""
        ended, found = self._family.reap()
        self._leaderless.update(ended)
        if not found or not self._leaderless:
            return
        seen: set[tuple[int, int]] = set()
        left, again = self._family.left_of(self._leaderless, seen)
        for _ in range(_LOOKS):
            if not again:
                break
            self._leaderless.update(self._family.reap()[0])
            left, again = self._family.left_of(self._leaderless, seen)
        if again:
            # Something takes its time to end, or forks and ends faster than we look: none of them is surely gone.
            left = set(self._leaderless)
        for task in self._leaderless - left:
            self._finish(task)
        for task in left:
            if task.stage is Stage.RUNNING:
                self._end(task, task.order.grace, "")

    def _finish(self, task: Task) -> None:
        """Nothing is left of it."""
        if task.leader is not None:
            self._family.remove(task)
            self._leaderless.discard(task)
            del self._running[task.order.key]
        for deadline in (task.note, task.runtime_end, task.lease_end, task.kill_next):
            self._deadlines.cancel(deadline)
        task.stage = Stage.GONE
        self.inputs.close(task.order)
        self._leases.leave(task.order)
        exited = self._exited[task.order.key] = result(task, self._spool, self._inline_output)
        if exited.spooled:
            self._spool.keep(task.order.key)
        self._journal.ended(task.mark, exited)
        self.events.append(exited)
        self._ended_in.add(task.order.pool)
        self._queues.release(task)

    def _drop(self, task: Task) -> None:
        """It has not started, and will not."""
        task.stage = Stage.GONE
        del self._waiting[task.order.key]
        self._leases.leave(task.order)
        self.events.append(Dropped(task.order.key))


def _started(task: Task) -> Started:
    assert task.start_ts is not None
    return Started(task.order.key, task.pid, task.start_ts)
