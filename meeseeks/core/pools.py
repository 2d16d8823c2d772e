"""The pools of one node: which claimed jobs may start, and how many at once."""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Iterator
from typing import Any

from .effects import PoolStatus, TaskKey
from .settings import PoolSettings

__all__ = ["Pool", "Task", "Tasks"]

_SHORT = 0.2
"""Seconds. Where jobs are shorter on average, a slot would stand empty for a good part of the time between two."""
_PREFETCH_MAX = 64
_PREFETCH_S = 0.008
"""For jobs that are even shorter than that: how much work is kept ready, so that their ends can be told together."""
_SHORTEST = 0.001


class Task:
    """One order to the executor that has not been acknowledged as over."""

    __slots__ = ("asked", "grace", "key", "killing", "lessor", "only_waiting", "pool", "started")

    def __init__(self, key: TaskKey, pool: str, lessor: str | None, asked: tuple[Any, ...] | None = None) -> None:
        self.key = key
        self.pool = pool
        self.lessor = lessor
        self.started = False
        self.killing = False
        self.only_waiting = False
        """The kill that was ordered is one that lets it run if it has started."""
        self.grace = math.inf
        """Of the kill that was ordered."""
        self.asked = asked
        """What of the spec went into the order; None if an earlier life of the node gave it."""


class Tasks:
    """All tasks of this node's executor, by key and by job."""

    def __init__(self) -> None:
        self._tasks: dict[TaskKey, Task] = {}
        self._by_job: dict[str, dict[TaskKey, Task]] = {}
        self.lessors: Counter[str] = Counter()
        """How many tasks are leased from each node."""

    def __len__(self) -> int:
        return len(self._tasks)

    def __iter__(self) -> Iterator[Task]:
        return iter(list(self._tasks.values()))

    def get(self, key: TaskKey) -> Task | None:
        """The task of a key."""
        return self._tasks.get(key)

    def of_job(self, jid: str) -> list[Task]:
        """The tasks of a job: more than one only while an old copy is being ended."""
        return list(self._by_job.get(jid, {}).values())

    def add(self, task: Task) -> None:
        """An order went out."""
        self._tasks[task.key] = task
        self._by_job.setdefault(task.key.job, {})[task.key] = task
        if task.lessor is not None:
            self.lessors[task.lessor] += 1

    def remove(self, key: TaskKey) -> Task | None:
        """It is over."""
        task = self._tasks.pop(key, None)
        if task is not None:
            if task.lessor is not None:
                self.lessors[task.lessor] -= 1
            jobs = self._by_job[key.job]
            del jobs[key]
            if not jobs:
                del self._by_job[key.job]
        return task


class Pool:
    """One pool. `ready` are its claimed jobs that may start as soon as a slot is free, in the order of their claim."""

    def __init__(self, settings: PoolSettings) -> None:
        self.settings = settings
        self.ready: OrderedDict[str, None] = OrderedDict()
        self.in_flight = 0
        """Tasks at the executor: running, or next in line there."""
        self.ready_since = 0.0
        """Since when the first in line has been there (for giving jobs back when others have room)."""
        self.moved_at = 0.0
        """When a job was last handed over to the executor, or came back from it."""
        self._mean: float | None = None

    @property
    def prefetch(self) -> int:
        """How many jobs are kept ready beyond the slots: none, unless jobs are very short here."""
        if self._mean is None or self._mean >= _SHORT or not self.settings.slots:
            return 0
        slots = self.settings.slots
        return min(max(2, slots, int(slots * _PREFETCH_S / max(self._mean, _SHORTEST))), _PREFETCH_MAX)

    def has_room(self) -> bool:
        """Whether one more task may go to the executor."""
        slots = self.settings.slots
        return not self.settings.hold and (not slots or self.in_flight < slots + self.prefetch)

    def ended(self, duration: float) -> None:
        """A task of this pool ran for so many seconds."""
        self._mean = duration if self._mean is None else 0.8 * self._mean + 0.2 * duration

    def is_ahead(self) -> bool:
        """Whether the executor has more than its slots take."""
        return 0 < self.settings.slots < self.in_flight

    def take_for_slow(self, seconds: float) -> None:
        """Its jobs take at least so long now, whatever they took before."""
        self._mean = max(seconds, self._mean or 0.0)

    def line_up(self, jid: str, now: float) -> None:
        """A claimed job may start from now on."""
        if not self.ready:
            self.ready_since = now
        self.ready[jid] = None

    def status(self, wait: bool) -> PoolStatus:
        """What the others need to know."""
        return PoolStatus(
            slots=self.settings.slots,
            running=self.in_flight,
            waiting=len(self.ready),
            hold=self.settings.hold,
            drain=self.settings.drain,
            prefetch=2 * self.prefetch,
            wait=wait,
        )
