"""What every run must keep, by the truth that only the simulator knows: the promises of DESIGN section 3."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from meeseeks.core.effects import Effects, TaskKey
from meeseeks.core.lifecycle import phase_of
from meeseeks.core.record import RUNNING, Record, StatusKey

from .ends import problems_of
from .invariants import broken_invariants
from .plan import SHORT_EXPIRE
from .truth import Job, Run

if TYPE_CHECKING:
    from .executor import SimExecutor, Task
    from .node import SimNode
    from .world import World

__all__ = ["Checks"]


_ENDS_WITHIN = 12.0
"""From hearing that a process must end to its end: the longest grace, and some time to move."""


class Note(NamedTuple):
    """A line of the story: `job` is None where it is about the mesh."""

    at: float
    job: str | None
    text: str


class Checks:
    """Hears of everything that happens; `violations` are the broken promises."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.violations: list[str] = []
        self.guilty: set[str] = set()
        """Jobs that a violation is about."""
        self.jobs: dict[str, Job] = {}
        self.story: list[Note] = []
        self.starts = 0
        self.turns = 0
        self._keys: list[dict[str, StatusKey]] = [{} for _ in world.plan.names]
        self._kills: list[dict[str, int]] = [{} for _ in world.plan.names]
        """Of each node: the last generations that are killed, as far as it has heard."""

    def note(self, job: str | None, text: str) -> None:
        """Add to the story."""
        self.story.append(Note(self.world.now, job, text))

    def violation(self, job: str | None, text: str) -> None:
        """A promise was broken."""
        self.note(job, f"VIOLATION {text}")
        self.violations.append(f"t={self.world.now:.1f} {job or ''}: {text}")
        if job is not None:
            self.guilty.add(job)

    def job(self, jid: str) -> Job:
        """What is known of a job."""
        found = self.jobs.get(jid)
        if found is None:
            found = self.jobs[jid] = Job(jid)
        return found

    # --- what users did

    def on_created(self, jid: str, node: str) -> None:
        """A node took a job in."""
        self.job(jid).created_at.add(node)
        self.note(jid, f"created at {node}")

    def on_rerun(self, record: Record, node: str, *, was_lost: bool) -> None:
        """A node took a rerun in."""
        job, generation = self.job(record.spec.id), record.spec.generation
        job.reruns.setdefault(generation, set()).add(node)
        self.note(job.id, f"generation {generation} wanted at {node}{' (it was lost)' if was_lost else ''}")
        if was_lost:
            job.risky.add(generation)

    def on_adopted(self, node: str, records: list[Record]) -> None:
        """A node became the submit node of jobs, as which it knows them. Who knows less than others do, may double."""
        for record in records:
            job = self.job(record.spec.id)
            job.adopters.add(node)
            self.note(job.id, f"adopted by {node}")
            if max(job.keys, default=record.status.key) > record.status.key:
                self.note(job.id, "of which others know more than it does")
                job.risky.add(record.spec.generation)

    def on_changed(self, record: Record) -> None:
        """A node took a change of a job in. If others forget the job, only its age tells that it is not new."""
        job = self.job(record.spec.id)
        if (
            self.world.plan.settings[0].expire == SHORT_EXPIRE
            and max(job.keys, default=record.status.key) > record.status.key
        ):
            self.note(job.id, "of which others know more than its node does")
            job.risky.add(record.spec.generation)

    def on_acked(self, jids: list[str]) -> None:
        """A client was told that these are taken care of."""
        for jid in jids:
            self.job(jid).acked = True

    def on_killed(self, node: str, killed: list[tuple[str, int]]) -> None:
        """A client was told that these generations are killed."""
        for jid, generation in killed:
            kills = self.job(jid).kills
            kills[node] = max(kills.get(node, 0), generation)
            self.note(jid, f"kill of generation {generation} acknowledged by {node}")

    # --- what broke

    def on_boot(self, node: SimNode) -> None:
        """A node starts; what it restored is where its table may not fall behind."""
        assert node.state is not None
        self._keys[node.index] = {record.spec.id: record.status.key for record in node.state.table}
        self.note(None, f"{node.name} starts with {len(node.state.table)} jobs")

    def on_memory_lost(self, node: SimNode) -> None:
        """A node without a disk died: nothing is promised of what it knew (DESIGN section 7)."""
        assert node.state is not None
        for record in node.state.table:
            self.job(record.spec.id).excused = f"{node.name} had no disk"
        for job in self.jobs.values():
            if (
                node.name in job.expired_at
            ):  # of which it does not even know any more that there was something to forget
                job.excused = f"{node.name} had no disk"

    def on_power_cut(self, node: SimNode, executor: SimExecutor | None, lost: set[str]) -> None:
        """What was written in the last second is lost: such a job may start again, no other."""
        self.note(None, f"{node.name} lost its last writes about {sorted(lost)}")
        for jid in lost:
            self.job(jid).excused = f"{node.name} lost its last second"
        for key in (*executor.lost, *executor.exited) if executor is not None else ():
            row = node.disk.rows.get(key.job)
            status = row[1].status if row is not None else None
            job = self.job(key.job)
            if status is None or (status.generation, status.epoch, status.start_count) < key[1:]:
                job.excused = f"{node.name} lost its last second"
            elif status.state == RUNNING:  # how it ended was not on disk: it counts as failed
                for run in job.runs:
                    run.ok &= run.key != key

    def on_gone(self, node: SimNode) -> None:
        """A node will not come back."""
        self.note(None, f"{node.name} is gone for good")

    # --- what a node does

    def on_turn(self, node: SimNode, effects: Effects) -> None:
        """A turn of a node ends."""
        self.turns += 1
        keys = self._keys[node.index]
        for record in effects.records:
            jid, key = record.spec.id, record.status.key
            job = self.job(jid)
            if key < keys.get(jid, key):
                self.violation(jid, f"the status of {node.name} went back from {keys[jid]} to {key}")
            keys[jid] = key
            self._kills[node.index][jid] = record.spec.killed_generation
            job.see(record.spec)
            for run in job.runs:
                if run.alive and run.node == node.name and not run.must_end and not run.is_named_by(record):
                    run.must_end = True
                    self.world.after(_ENDS_WITHIN, self._has_ended, node, node.life, job, run, self.world.now)
            if key not in job.keys:
                job.keys.add(key)
                self._on_new_status(node, job, record)
        if self.world.noise(20, node.index, self.turns) < 0.03:
            for text in broken_invariants(node.state):
                self.violation(None, f"{node.name}: {text}")

    def _has_ended(self, node: SimNode, life: int, job: Job, run: Run, since: float) -> None:
        """A node has heard that a process of its own is to end; it had the time for it."""
        if run.alive and node.life == life and node.frozen_at < since and not node.is_frozen:
            self.violation(job.id, f"{node.name} knows since {since:.1f} that {run.key} must end, and it lives")

    def _on_new_status(self, node: SimNode, job: Job, record: Record) -> None:
        status = record.status
        self.note(
            job.id,
            f"{node.name}: {phase_of(status).name} {status.key} on {status.node} {status.error or ''}"
            f"{' leased' if status.leased else ''} fails={status.fail_count}",
        )

    def on_taken_back(self, node: SimNode, before: Record, after: Record) -> None:
        """A submit node gives a leased job up at its node: no copy of it may live by now."""
        job, (generation, epoch, _) = self.job(before.spec.id), after.status.key
        self.note(job.id, f"{node.name}: takes it back from {before.status.node}, epoch {epoch}")
        job.taken_back.add((generation, epoch))
        alive = [run for run in job.heard_of() if (run.key.generation, run.key.epoch) < (generation, epoch)]
        if alive and not job.may_double(generation):
            self.violation(job.id, f"{node.name} takes it back while it runs on {alive[0].node}: {alive[0].key}")

    def on_expired(self, node: SimNode, jids: list[str]) -> None:
        """A node forgot jobs that were over: it may hear of them again, by a node that was away for that long."""
        for jid in jids:
            job = self.job(jid)
            job.expired_at.add(node.name)
            alive = [run.key.generation for run in job.runs if run.alive]
            killed = self._kills[node.index].pop(jid, 0)  # who has not heard of a kill takes a lost job for over
            if any(one <= killed and not job.may_double(one) for one in alive):
                self.violation(jid, f"{node.name} forgets it: it was killed, and it runs")
            self._keys[node.index].pop(jid, None)
            self.note(jid, f"{node.name}: expired")

    # --- what executors do

    def on_spawn(self, node: SimNode, task: Task) -> int:
        """A process starts. Returns which start of this job it is."""
        self.starts += 1
        key = task.key
        job = self.job(key.job)
        if not job.may_double(key.generation):
            alive = job.heard_of()
            if alive:
                self.violation(job.id, f"second live copy {key} on {node.name}: {alive[0].key} runs on {alive[0].node}")
            why_not = job.why_not_start(key)
            if why_not is not None:
                self.violation(job.id, f"started on {node.name} as {key}: {why_not}")
        if job.expired_at and key.generation <= job.killed and not job.may_double(key.generation):
            self.violation(job.id, f"started on {node.name}: it was killed, and its kill was forgotten")
        if job.always_held:
            self.violation(job.id, f"started on {node.name} although it is held")
        job.runs.append(Run(self.world.now, node.name, key))
        self.note(job.id, f"{node.name}: process starts {key[1:]}{' leased' if task.order.lessor else ''}")
        return len(job.runs)

    def on_end(self, node: SimNode, key: TaskKey, *, ok: bool) -> None:
        """A process is gone."""
        self.note(key.job, f"{node.name}: process of {key[1:]} is gone {'(fine)' if ok else '(failed)'}")
        for run in reversed(self.job(key.job).runs):
            if run.key == key and run.alive and run.node == node.name:
                run.ended_at, run.ok = self.world.now, ok
                return

    # --- the end

    def doubles_are_over(self) -> None:
        """All nodes have talked for a while: copies that doubled, for whatever reason, must be over (fenced)."""
        for job in self.jobs.values():
            alive = [run for run in job.runs if run.alive]
            if len(alive) > 1:
                self.violation(job.id, f"{len(alive)} copies still live: {alive}")

    def problems(self) -> list[tuple[str | None, str]]:
        """What is still wrong although nothing breaks any more."""
        return problems_of(self.world, self.jobs)

    def unsettled(self) -> bool:
        """Whether more time may help."""
        return bool(self.problems())

    def at_end(self) -> None:
        """Time was given: what is wrong now stays wrong."""
        for job, text in self.problems():
            self.violation(job, text)
        for node in self.world.nodes:
            if node.state is not None:
                for text in broken_invariants(node.state):
                    self.violation(None, f"{node.name}: {text}")
