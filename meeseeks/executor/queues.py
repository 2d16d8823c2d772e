"""Which task starts next: one queue a pool, so many at once a pool, never two of one job."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from .task import Stage, Task

__all__ = ["Queues"]


@dataclass(slots=True)
class _Pool:
    slots: int = 0
    """0: no limit."""
    taken: int = 0
    waiting: deque[Task] = field(default_factory=deque)

    @property
    def is_ready(self) -> bool:
        return bool(self.waiting) and (not self.slots or self.taken < self.slots)


class Queues:
    """All pools. A task is added, then handed out by `take` and given back by `release`, or skipped once it is GONE."""

    def __init__(self) -> None:
        self._pools: dict[str, _Pool] = {}
        self._ready: dict[str, None] = {}
        """Pools that have a slot and somebody for it, in the order of their turns."""
        self._living: set[str] = set()
        """Jobs that have a task which was taken and not released."""
        self._behind: dict[str, deque[Task]] = {}
        """Tasks that had their turn while another task of their job still lived."""

    def set_slots(self, pool: str, slots: int) -> None:
        """How many tasks of this pool may be taken at once; 0: any number. Those that are stay."""
        self._pools.setdefault(pool, _Pool()).slots = slots
        self._look(pool)

    def add(self, task: Task) -> None:
        """To the end of its pool's queue."""
        self._pools.setdefault(task.order.pool, _Pool()).waiting.append(task)
        self._look(task.order.pool)

    def take(self) -> Task | None:
        """The next task that may start; the pools take turns. It holds a slot, and its job, until it is released."""
        while self._ready:
            name = next(iter(self._ready))
            del self._ready[name]
            pool = self._pools[name]
            task = pool.waiting.popleft()
            job = task.order.key.job
            if task.stage is not Stage.GONE:
                if job not in self._living:
                    pool.taken += 1
                    self._living.add(job)
                    self._look(name)
                    return task
                self._behind.setdefault(job, deque()).append(task)
            elif job not in self._living:
                self._promote(job)
            self._look(name)
        return None

    def release(self, task: Task) -> None:
        """Nothing is left of a task that was taken: its slot and its job are free."""
        job = task.order.key.job
        self._living.discard(job)
        self._pools[task.order.pool].taken -= 1
        self._look(task.order.pool)
        self._promote(job)

    def put_back(self, task: Task) -> None:
        """The task that was just taken can't start yet: it is the first in line again."""
        self._living.discard(task.order.key.job)
        pool = self._pools[task.order.pool]
        pool.taken -= 1
        pool.waiting.appendleft(task)
        self._look(task.order.pool)

    def has_waiting(self, pool: str) -> bool:
        """Whether anybody is in line there."""
        return bool(self._pools[pool].waiting)

    @property
    def has_ready(self) -> bool:
        """Whether `take` has something (or would find out that it has nothing)."""
        return bool(self._ready)

    def _promote(self, job: str) -> None:
        """The next one behind had its turn already, so it is the first in line now. Later ones stay behind it."""
        behind = self._behind.get(job)
        while behind:
            task = behind.popleft()
            if not behind:
                del self._behind[job]
            if task.stage is not Stage.GONE:
                self._pools[task.order.pool].waiting.appendleft(task)
                self._look(task.order.pool)
                return

    def _look(self, name: str) -> None:
        if self._pools[name].is_ready:
            self._ready.setdefault(name)
        else:
            self._ready.pop(name, None)
