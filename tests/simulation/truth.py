"""What the simulator knows of a job: who asked for it, every process of it, and whether one more may start."""

from __future__ import annotations

from dataclasses import dataclass, field

from meeseeks.core.effects import TaskKey
from meeseeks.core.record import ACTIVE_STATES, NEW, Epoch, Record, Spec, StatusKey, is_dead

__all__ = ["Job", "Run"]


@dataclass(slots=True)
class Run:
    """A process of a job."""

    at: float
    node: str
    key: TaskKey
    ended_at: float | None = None
    ok: bool = False
    must_end: bool = False
    """Its node has heard that it must."""

    def is_named_by(self, record: Record) -> bool:
        """Whether a table that has this record lets the process live."""
        key, status = self.key, record.status
        if is_dead(record) or status.node != self.node or status.state not in ACTIVE_STATES:
            return False
        starting = status.state == NEW and status.start_count == key.run - 1
        return (status.generation, status.epoch) == key[1:3] and (starting or status.start_count == key.run)

    @property
    def alive(self) -> bool:
        """Whether it lives."""
        return self.ended_at is None


@dataclass(slots=True)
class Job:
    """A job, by the simulator's book."""

    id: str
    acked: bool = False
    kills: dict[str, int] = field(default_factory=dict)
    """The highest generation whose kill each node has acknowledged."""
    created_at: set[str] = field(default_factory=set)
    reruns: dict[int, set[str]] = field(default_factory=dict)
    risky: set[int] = field(default_factory=set)
    """Generations that a user asked for, or whose jobs were adopted, while a copy may have lived unheard."""
    adopters: set[str] = field(default_factory=set)
    excused: str | None = None
    keys: set[StatusKey] = field(default_factory=set)
    taken_back: set[tuple[int, Epoch]] = field(default_factory=set)
    given_back: set[tuple[int, Epoch]] = field(default_factory=set)
    runs: list[Run] = field(default_factory=list)
    expired_at: set[str] = field(default_factory=set)
    """Nodes that have forgotten it since it ended."""
    always_held: bool = False
    retries: int = 0
    restart: bool = False
    resubmit: bool = False
    specs: int = 0

    def see(self, spec: Spec) -> None:
        """A spec of it that was in some table: the most that it ever allowed counts."""
        self.retries = max(self.retries, spec.retries)
        self.restart |= spec.restart
        self.resubmit |= spec.resubmit
        self.always_held = spec.hold and (self.always_held or not self.specs)
        self.specs += 1

    @property
    def killed(self) -> int:
        """The highest generation whose kill was acknowledged."""
        return max(self.kills.values(), default=0)

    def may_double(self, generation: int) -> bool:
        """Whether copies may live at once for a while: by what its users did, or by what a machine forgot."""
        if self.excused is not None or self.risky or len(self.created_at) > 1 or len(self.adopters) > 1:
            return True
        return self.is_doubled(generation)

    def is_doubled(self, generation: int) -> bool:
        """Whether users asked for this generation at several nodes, which can't all have known of each other."""
        return len(self.reruns.get(generation, ())) > 1

    def heard_of(self) -> list[Run]:
        """The processes that live, without those that nobody need know of: of a generation that was doubled."""
        return [run for run in self.runs if run.alive and not self.is_doubled(run.key.generation)]

    def why_not_start(self, key: TaskKey) -> str | None:
        """Why this start has no reason; None if it has one (the rows of DESIGN section 3)."""
        before = [run for run in self.runs if run.key.generation == key.generation]
        if not before:
            if key.generation > 1 and key.generation not in self.reruns:
                return "nobody asked for this generation"
            return None
        last = before[-1]
        if last.key[1:] >= key[1:]:
            return f"{last.key} has started already"
        if any(last.key[1:3] < taken <= key[1:3] for taken in self.taken_back):
            return None if self.retries or self.resubmit else "it was taken back, and no rerun was asked for"
        if last.alive:
            return f"{last.key} was given to {last.node}, and never taken back"
        if last.key.epoch != key.epoch and self.resubmit:
            return None
        if last.key.epoch != key.epoch and not any(last.key[1:3] <= one < key[1:3] for one in self.given_back):
            return f"{last.key} was given to {last.node}, and never given back"
        if last.ok:
            return None if self.restart else "it has succeeded, and `restart` is not set"
        # A submit node that takes a job back counts the failures that it has heard of, not those that happened.
        since = max((taken for taken in self.taken_back if taken <= key[1:3]), default=(0, (0, "")))
        failures = sum(not run.ok for run in before if run.key[1:3] >= since)
        return None if failures <= self.retries else f"it has failed {failures} times, retries={self.retries}"
