"""A machine's executor: it keeps the deadlines of its orders, and lives or dies apart from its node."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from meeseeks.core.effects import (
    Ack,
    Adopted,
    Dropped,
    Event,
    Exited,
    Kill,
    Order,
    Renew,
    SetSlots,
    Start,
    Started,
    TaskKey,
)

if TYPE_CHECKING:
    from .node import SimNode

__all__ = ["SimExecutor", "Task"]


class Task:
    """A process, or one that waits for its slot. Times are the machine's monotonic ones."""

    def __init__(self, order: Start) -> None:
        self.order = order
        self.key = order.key
        self.started: Started | None = None
        self.ends_at = 0.0
        self.rc = 0
        self.error: str | None = None
        self.dies_at: float | None = None
        """When it is gone, once it was told to end."""


class SimExecutor:
    """Behaves as `meeseeks.executor` does, by the contract of `core.effects`."""

    def __init__(self, node: SimNode) -> None:
        self.node = node
        self.world = node.world
        self.alive = True
        self.waiting: OrderedDict[TaskKey, Task] = OrderedDict()
        self.running: dict[TaskKey, Task] = {}
        self.exited: dict[TaskKey, Exited] = {}
        self.slots: dict[str, int] = {}
        self.leases: dict[str, tuple[float, float]] = {}
        self.lost: list[TaskKey] = []

    # --- its node

    def announce(self) -> list[Event]:
        """What a node that connects is told: ends first."""
        running = [task.started for task in self.running.values() if task.started is not None]
        return [*self.exited.values(), Adopted(waiting=list(self.waiting), running=running)]

    def obey(self, orders: list[Order]) -> None:
        """Orders arrive."""
        if not self.alive:
            return
        for order in orders:
            if isinstance(order, Start):
                self._on_start(order)
            elif isinstance(order, Ack):
                self.exited.pop(order.key, None)
            elif isinstance(order, Kill):
                self._on_kill(order)
            elif isinstance(order, Renew):
                old = self.leases.get(order.lessor, (0.0, 0.0))
                self.leases[order.lessor] = (max(old[0], order.start_by_at), max(old[1], order.kill_at))
            elif isinstance(order, SetSlots):
                self.slots[order.pool] = order.slots
        self._start_waiting()

    def die(self) -> None:
        """It is killed, and its tasks with it (the next one sweeps what is left before it does anything else)."""
        self.alive = False
        for task in list(self.running.values()):
            self.world.checks.on_end(self.node, task.key, ok=False)
        self.lost = list(self.running)
        self.running.clear()
        self.waiting.clear()

    def inherit(self, other: SimExecutor) -> None:
        """What the journal of the one before says: which tasks it started and nobody has seen the end of."""
        self.exited.update(other.exited)
        for key in other.lost:
            self.exited[key] = Exited(key=key, error="executor lost", end_ts=self.node.wall())

    # --- orders

    def _on_start(self, order: Start) -> None:
        key = order.key
        if key in self.waiting or key in self.running or key in self.exited:
            return
        self.waiting[key] = Task(order)

    def _on_kill(self, order: Kill) -> None:
        task = self.running.get(order.key)
        if task is not None:
            if not order.only_waiting:
                self._end(task, order.grace, order.why)
        elif self.waiting.pop(order.key, None) is not None:
            self._tell([Dropped(order.key)])
        else:
            self._tell([self.exited.get(order.key) or Dropped(order.key)])

    def _start_waiting(self) -> None:
        now, taken, living = self.node.mono(), {}, set()
        for task in self.running.values():
            taken[task.order.pool] = taken.get(task.order.pool, 0) + 1
            living.add(task.key.job)
        for task in list(self.waiting.values()):
            pool = task.order.pool
            slots = self.slots.get(pool, 0)
            if (slots and taken.get(pool, 0) >= slots) or task.key.job in living:
                continue
            del self.waiting[task.key]
            limits = self._limits(task)
            if any(limit is not None and limit <= now for limit in limits):
                self._tell([Dropped(task.key)])
                continue
            taken[pool] = taken.get(pool, 0) + 1
            living.add(task.key.job)
            self._spawn(task, now)

    def _limits(self, task: Task) -> tuple[float | None, float | None]:
        order = task.order
        if order.lessor is None:
            return None, None
        lease = self.leases.get(order.lessor, (0.0, 0.0))
        return max(order.start_by_at or 0.0, lease[0]), max(order.kill_at or 0.0, lease[1])

    def _spawn(self, task: Task, now: float) -> None:
        run = self.world.checks.on_spawn(self.node, task)
        duration, task.rc = self.world.fate(task.key.job, run)
        if task.order.runtime is not None and duration > task.order.runtime:
            duration = task.order.runtime + 0.1
            task.rc, task.error = -15, "runtime exceeded"
        task.ends_at = now + duration
        task.started = Started(task.key, 1000 + run, self.node.wall())
        self.running[task.key] = task
        self._tell([task.started])
        self._watch(task)

    # --- ends

    def _watch(self, task: Task) -> None:
        at = task.ends_at if task.dies_at is None else min(task.ends_at, task.dies_at)
        kill_at = self._limits(task)[1]
        if kill_at is not None:
            at = min(at, kill_at)
        self.world.at(self.node.true_time(at), self._look, task)

    def _look(self, task: Task) -> None:
        if not self.alive or task.key not in self.running:
            return
        now, kill_at = self.node.mono() + 1e-6, self._limits(task)[1]
        if task.ends_at <= now:
            self._exit(task, task.rc, task.error)
        elif (task.dies_at is not None and task.dies_at <= now) or (kill_at is not None and kill_at <= now):
            self._exit(task, -9, task.error or "lease expired")
        else:
            self._watch(task)

    def _end(self, task: Task, grace: float, why: str) -> None:
        if task.dies_at is not None:
            return
        # Most obey SIGTERM at once, some take their time, some have to be killed.
        chance = self.world.noise(11, hash(task.key.run), task.key.generation, len(task.key.job), int(task.ends_at))
        takes = 0.05 if chance < 0.6 else 1.5 if chance < 0.75 else grace
        task.error = why
        task.dies_at = self.node.mono() + min(takes, grace)
        self._watch(task)

    def _exit(self, task: Task, rc: int, error: str | None) -> None:
        del self.running[task.key]
        self.world.checks.on_end(self.node, task.key, ok=rc == 0 and error is None)
        started = task.started.start_ts if task.started is not None else None
        exited = Exited(key=task.key, rc=rc, error=error, start_ts=started, end_ts=self.node.wall())
        self.exited[task.key] = exited
        self._tell([exited])
        self._start_waiting()

    def _tell(self, events: list[Event]) -> None:
        self.node.from_executor(self, events)
