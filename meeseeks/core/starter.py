"""Which claimed jobs are handed to the executor, and when: slots, holds, and fresh leases.

A leased job that has no fresh lease is parked until one comes, and does not keep others from its slot.
"""

from __future__ import annotations

from typing import Any

from .effects import Order, Renew, Start, TaskKey
from .ledger import Ledger
from .lifecycle import Phase, phase_of
from .mesh import Mesh
from .pools import Pool, Task, Tasks
from .record import Record, Spec, Status, is_dead

__all__ = ["Starter", "key_of"]

_TOLD_BEATS = 5
"""Heartbeats within which a node that is heard again has heard of our jobs, and has said what it knows of them."""


def key_of(record: Record, run: int) -> TaskKey:
    """The name of one start of a job, in the assignment that its status tells of."""
    return TaskKey(record.spec.id, record.status.generation, record.status.epoch, run)


def _asked(spec: Spec) -> tuple[Any, ...]:
    return (spec.args, spec.config, spec.stdin, spec.stdout, spec.stderr, spec.runtime, spec.tags)


class Starter:
    """Turns claimed jobs into orders. Pools, tasks and orders are its owner's."""

    def __init__(self, ledger: Ledger, mesh: Mesh, pools: dict[str, Pool], tasks: Tasks, orders: list[Order]) -> None:
        self.ledger = ledger
        self.mesh = mesh
        self.pools = pools
        self.tasks = tasks
        self.orders = orders
        self._parked: dict[str, dict[str, None]] = {}  # lessor -> claimed jobs that wait for a lease of it

    def is_lined_up(self, record: Record, pool: Pool) -> bool:
        """Whether the job waits for a slot of this pool, or for a lease of the node that has assigned it now."""
        jid = record.spec.id
        return jid in pool.ready or jid in self._parked.get(record.status.epoch[1], ())

    def forget(self, jid: str) -> None:
        """The job is not ours any more, or is not to be started now."""
        for pool in self.pools.values():
            pool.ready.pop(jid, None)
        for parked in self._parked.values():
            parked.pop(jid, None)

    def why_back(self, record: Record) -> str:
        """Why a job that was handed over, and may not have started, is to come back into the line; blank: it is not."""
        if self.pools[record.spec.pool].settings.hold:
            return "its pool is on hold"
        asked = _asked(record.spec)  # what an earlier life of this node has told the executor is not known any more
        is_changed = any(not task.started and task.asked != asked for task in self.tasks.of_job(record.spec.id))
        return "it was changed, or may have been" if is_changed else ""

    def start_ready(self) -> None:
        """Order as many tasks as there is room for. What can't start for want of a lease makes room for others."""
        for name, pool in self.pools.items():
            while pool.ready and pool.has_room():
                jid = next(iter(pool.ready))
                del pool.ready[jid]
                pool.ready_since = pool.moved_at = self.ledger.now
                record = self.ledger.table.get(jid)
                if record is not None and self._may_start(record, name):
                    self._start(record, pool)

    def _may_start(self, record: Record, pool: str) -> bool:
        """Whether it still is what it was when it was lined up; and parks it if only its lease is missing."""
        status = record.status
        if phase_of(status) is not Phase.CLAIMED or status.node != self.ledger.name or record.spec.pool != pool:
            return False
        if is_dead(record) or record.spec.hold or self.tasks.of_job(record.spec.id):
            return False
        lessor = status.epoch[1]
        if not status.leased or lessor == self.ledger.name:
            return True
        lease = self.mesh.lease(lessor)
        if lease is not None and lease[0] > self.ledger.now and not self._may_be_over(status):
            return True
        self._parked.setdefault(lessor, {})[record.spec.id] = None
        return False

    def _may_be_over(self, status: Status) -> bool:
        """Whether its lessor, back after a long time, may have given it to others and forgotten it: it says so soon."""
        assigned_at, lessor = status.assign_ts, self.mesh.peers[status.epoch[1]]
        if assigned_at is None or assigned_at >= self.ledger.wall - self.ledger.settings.expire / 2:
            return False
        return self.ledger.now - lessor.lent_at < _TOLD_BEATS * self.ledger.settings.heartbeat

    def _start(self, record: Record, pool: Pool) -> None:
        spec, status = record.spec, record.status
        key = key_of(record, status.start_count + 1)
        lessor = status.epoch[1] if status.leased and status.epoch[1] != self.ledger.name else None
        lease = self.mesh.lease(lessor) if lessor is not None else None
        self.tasks.add(Task(key, spec.pool, lessor, _asked(spec)))
        pool.in_flight += 1
        limits = [limit for limit in (spec.runtime or pool.settings.runtime,) if limit]
        is_command = not isinstance(spec.args, dict)
        self.orders.append(
            Start(
                key=key,
                pool=spec.pool,
                args=tuple(spec.args) if is_command else (),
                env=self._env(record),
                stdin=spec.stdin,
                stdout=spec.stdout,
                stderr=spec.stderr,
                runtime=limits[0] if limits else None,
                grace=pool.settings.grace,
                config=spec.config if is_command else dict(spec.args),  # type: ignore[arg-type]
                lessor=lessor,
                start_by_at=lease[0] if lease is not None else None,
                kill_at=lease[1] if lease is not None else None,
            )
        )

    def _env(self, record: Record) -> dict[str, str]:
        spec = record.spec
        return {
            "MEESEEKS_JOB_ID": spec.id,
            "MEESEEKS_POOL": spec.pool,
            "MEESEEKS_NODE": self.ledger.name,
            "MEESEEKS_SUBMIT_NODE": spec.submit_node,
            "MEESEEKS_TAGS": ",".join(spec.tags),
        }

    def on_renewed(self, lessors: set[str]) -> None:
        """Leases were renewed: tell the executor, and let those start that waited for it."""
        for lessor in sorted(lessors):
            lease = self.mesh.lease(lessor)
            if lease is None:
                continue
            if self.tasks.lessors[lessor]:
                self.orders.append(Renew(lessor, *lease))
            for jid in self._parked.pop(lessor, {}):
                self.ledger.dirty[jid] = None
