"""A task, from the order to start it until nothing of it is left."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from meeseeks.core.effects import Start

from .deadlines import Deadline

__all__ = ["Stage", "Task"]


class Stage(enum.Enum):
    """How far a task is. It only ever moves down this list."""

    WAITING = "for a slot, for its `start_by_at`, or for an earlier task of its job to be gone"
    RUNNING = "its leader lives, and nobody has asked for its end"
    TERMINATING = "its tree was sent SIGTERM, and has `grace` to end"
    KILLING = "its tree is sent SIGKILL until nothing is left of it"
    GONE = "nothing is left of it, or it was dropped"


@dataclass(slots=True, eq=False)
class Task:
    """One start of a job. The leader is the process that was spawned; the tree is all that came of it."""

    order: Start
    mark: str
    """Unique on this machine, and in the environment of all its processes."""
    stage: Stage = Stage.WAITING
    leader: int | None = None
    """Its process id."""
    start_ts: float | None = None
    rc: int | None = None
    """What the leader ended with; None while it lives."""
    error: str | None = None
    grace: float = 5.0
    pause: float = 0.0
    """Until the next SIGKILL to what is left, in seconds."""
    put_off_at: float | None = None
    """When it was first put off because the machine was short of something."""
    note: Deadline | None = None
    runtime_end: Deadline | None = None
    lease_end: Deadline | None = None
    kill_next: Deadline | None = None
    members: set[tuple[int, int]] = field(default_factory=set)
    """(pid, start time) of processes of its tree that were seen when the tree was signalled."""

    @property
    def pid(self) -> int:
        """The leader's process id, which is its session's and its process group's as well."""
        assert self.leader is not None
        return self.leader

    @property
    def is_leaderless(self) -> bool:
        """Whether the leader has ended (its descendants may live)."""
        return self.leader is not None and self.rc is not None
