"""What a node does with the jobs that are assigned to it: claim, start, watch, end. It is their only writer.

One rule keeps copies from doubling: a task is named by (job, generation, epoch, run), it is ordered only while the
table names exactly that run, only while no other task of the job lives here, and, for a leased job, only on a fresh
lease whose deadlines go along with the order.
"""

from __future__ import annotations

from typing import Any

from .effects import (
    Ack,
    Adopted,
    Dropped,
    Exited,
    Kill,
    Order,
    PoolStatus,
    SetSlots,
    Started,
    TaskKey,
)
from .effects import Event as TaskEvent
from .ledger import Ledger
from .lifecycle import Event, Phase, followup, phase_of
from .mesh import Mesh
from .placement import CONFIG_POOL, fits
from .pools import Pool, Task, Tasks
from .record import END_STATES, Record, is_dead, is_lost
from .settings import PoolSettings
from .starter import Starter, key_of

__all__ = ["Owner", "again_delay"]

_CONFIG_SETTINGS = PoolSettings()


def again_delay(runs: int, longest: float = 10.0) -> float:
    """Seconds before run number `runs` + 1 of a job: 0.1, 0.2, 0.4, … so that a failing job does not spin."""
    return min(longest, 0.1 * 2.0 ** min(max(runs - 1, 0), 16))


class Owner:
    """The pools and tasks of one node."""

    def __init__(self, ledger: Ledger, mesh: Mesh) -> None:
        self.ledger = ledger
        self.mesh = mesh
        self.orders: list[Order] = []
        self.tasks = Tasks()
        self.pools: dict[str, Pool] = {}
        self.starter = Starter(ledger, mesh, self.pools, self.tasks, self.orders)
        self.executor_ready = False
        self.knows_tasks = False
        """An executor has told what it has: until then it may have tasks that an earlier life of this node ordered."""
        self.stopping = False
        self.beat_due = False
        """Something changed that the others need before the next heartbeat."""
        self.unstored: list[TaskKey] = []
        self._delayed: dict[str, TaskKey] = {}
        self._prefetches: dict[str, int] = {}
        self.set_pools(ledger.settings.pools)

    # --- configuration

    def set_pools(self, settings: dict[str, PoolSettings]) -> None:
        """Take over changed pools. What runs goes on; claimed jobs of a pool that is gone go back."""
        settings = {**settings, CONFIG_POOL: _CONFIG_SETTINGS}
        for name, one in settings.items():
            pool = self.pools.get(name)
            if pool is None:
                pool = self.pools[name] = Pool(one)
                pool.in_flight = sum(task.pool == name for task in self.tasks)
            elif pool.settings == one:
                continue
            pool.settings = one
            if name != CONFIG_POOL:
                self.orders.append(SetSlots(name, one.slots))
        for name in self.pools.keys() - settings.keys():
            del self.pools[name]
        self.beat_due = True
        for jid in self.ledger.loads.on(self.ledger.name):
            self.ledger.dirty[jid] = None

    def pool_status(self) -> dict[str, PoolStatus]:
        """The pools for the next heartbeat."""
        wait = self.ledger.settings.wait_in_pool
        return {name: pool.status(wait) for name, pool in self.pools.items() if name != CONFIG_POOL}

    def stop(self) -> None:
        """Start nothing more, give back what has not started, end what runs."""
        self.stopping = True
        for jid in self.ledger.loads.on(self.ledger.name):
            self.ledger.dirty[jid] = None

    # --- one job

    def act(self, record: Record) -> None:
        """Do what the table says of a job that is assigned to this node and has not ended."""
        status = record.status
        if is_lost(record):
            if record.spec.lost[:2] != (status.generation, status.epoch):
                return  # a later assignment than this one was given up: there is nothing to refute, and no end to it
            record = self.ledger.advance(record, Event.REFUTE)
            status = record.status
        phase = phase_of(status)
        if phase is Phase.RUNNING:
            self._act_running(record)
        elif is_dead(record):
            self._act_killed(record)
        elif not self._accepts(record):
            self._give_back(record)
        elif phase is Phase.ASSIGNED:
            if record.spec.id not in self._delayed:
                self.ledger.advance(record, Event.CLAIM)  # makes the job dirty again
        elif record.spec.hold:
            self.forget_line(record.spec.id)
            self._drop_tasks(record.spec.id, "held", only_waiting=True)
        else:
            if why := self.starter.why_back(record):
                self._drop_tasks(record.spec.id, why, only_waiting=True)
            self._line_up(record)

    def fence(self, jid: str, record: Record | None) -> None:
        """End the copies of a job that its record does not name."""
        for task in self.tasks.of_job(jid):
            if record is None or record.status.state in END_STATES or self._named_by(task.key) is None:
                self._order_kill(task, "the job was given to another node")

    def forget_line(self, jid: str) -> None:
        """The job is not ours any more, or not waiting any more."""
        self.starter.forget(jid)
        self._delayed.pop(jid, None)

    def _accepts(self, record: Record) -> bool:
        pool = self.pools.get(record.spec.pool)
        if pool is None or self.stopping or not fits(record, self.ledger.name):
            return False
        if record.status.leased and record.status.epoch[1] != record.spec.submit_node:
            return False  # it has been adopted: no lease of the node that assigned it will ever come
        return record.status.active or not pool.settings.drain

    def _act_running(self, record: Record) -> None:
        key = key_of(record, record.status.start_count)
        task = self.tasks.get(key)
        if task is None:
            if self.executor_ready:
                # A node that came back without its executor, or without its memory: nobody can tell how it ended.
                self._finish(record, Event.FAIL, rc=None, error="executor lost", end_ts=self.ledger.wall)
            return
        if is_dead(record):
            self._order_kill(task, "killed")
        elif self.stopping:
            self._order_kill(task, f"node {self.ledger.name} stopped")

    def _act_killed(self, record: Record) -> None:
        self.forget_line(record.spec.id)
        if not self._drop_tasks(record.spec.id, "killed") and not self._may_have_task(record):
            self.ledger.advance(record, Event.KILL, error="killed", end_ts=self.ledger.wall)

    def _give_back(self, record: Record) -> None:
        self.forget_line(record.spec.id)
        if not self._drop_tasks(record.spec.id, "given back", only_waiting=True) and not self._may_have_task(record):
            self.ledger.advance(record, Event.BOUNCE)

    def _may_have_task(self, record: Record) -> bool:
        """Whether an executor that is mute still may start this run. It is looked at again when that has spoken."""
        return not self.knows_tasks and phase_of(record.status) is Phase.CLAIMED

    def _line_up(self, record: Record) -> None:
        jid = record.spec.id
        if self.tasks.of_job(jid) or jid in self._delayed:
            return
        for name, pool in self.pools.items():
            if name != record.spec.pool:
                pool.ready.pop(jid, None)
        pool = self.pools[record.spec.pool]
        if not self.starter.is_lined_up(record, pool):
            pool.line_up(jid, self.ledger.now)

    def _drop_tasks(self, jid: str, why: str, *, only_waiting: bool = False) -> bool:
        tasks = self.tasks.of_job(jid)
        for task in tasks:
            self._order_kill(task, why, only_waiting=only_waiting)
        return bool(tasks)

    def _order_kill(self, task: Task, why: str, *, only_waiting: bool = False) -> None:
        pool = self.pools.get(task.pool)
        grace = pool.settings.grace if pool is not None else PoolSettings().grace
        if self.stopping:
            grace = min(grace, 5.0)  # a node that is told to stop is gone within ten seconds
        if task.killing and (only_waiting or not (task.only_waiting or grace < task.grace)):
            return
        task.killing, task.only_waiting, task.grace = True, only_waiting, grace
        self.orders.append(Kill(task.key, grace, why, only_waiting))

    def start_ready(self) -> None:
        """Order as many tasks as there is room for."""
        if not self.executor_ready or self.stopping:
            return
        self.starter.start_ready()
        for name, pool in self.pools.items():
            if pool.prefetch != self._prefetches.get(name, 0):
                self._prefetches[name] = pool.prefetch
                self.beat_due = True

    def take_orders(self) -> list[Order]:
        """The orders of this turn, with the ends that are stored now and that the executor may forget."""
        orders = [*self.orders, *(Ack(key) for key in self.unstored)]
        self.orders.clear()
        self.unstored.clear()
        return orders

    def rebalance(self, has_room: dict[str, int]) -> None:
        """Give back claimed jobs that wait in line here while other nodes have had free slots for their pool."""
        if self.ledger.settings.wait_in_pool:
            return
        for name, pool in self.pools.items():
            if not pool.ready or self.ledger.now - pool.ready_since < 2 * self.ledger.settings.heartbeat:
                continue
            for jid in list(pool.ready)[: has_room.get(name, 0)]:
                record = self.ledger.table.get(jid)
                if record is not None and self._may_move(record):
                    self._give_back(record)

    def _may_move(self, record: Record) -> bool:
        """Whether another node may run it: not where it runs again (`restart`, `retries`) or nobody would assign it."""
        spec, status = record.spec, record.status
        if phase_of(status) is not Phase.CLAIMED or spec.node is not None or status.start_count:
            return False
        return spec.submit_node == self.ledger.name or self.mesh.is_alive(spec.submit_node, self.ledger.now)

    def is_delayed(self, jid: str) -> bool:
        """Whether it waits for a moment, or for word of its submit node."""
        return jid in self._delayed

    def _was_heard(self, name: str, at: float) -> bool:
        """Whether a node has heard what we said until then, and what it said to that has come."""
        peer = self.mesh.peers.get(name)
        return name == self.ledger.name or (peer is not None and peer.lease_at >= at)

    def recall(self) -> None:
        """Take jobs back into the line that were handed over in advance, where those before them are not short."""
        patience = 2 * self.ledger.settings.heartbeat
        for name, pool in self.pools.items():
            if pool.is_ahead() and self.ledger.now - pool.moved_at >= patience:
                pool.take_for_slow(patience)
                for task in self.tasks:
                    if task.pool == name and not task.started:
                        self._order_kill(task, "recalled", only_waiting=True)

    # --- what the executor tells

    def on_events(self, events: list[TaskEvent]) -> None:
        """A batch of the executor. Ends first: whoever adopts must not take a task for lost that has just ended."""
        for event in events:
            if isinstance(event, Exited):
                self._on_exited(event)
            elif isinstance(event, Started):
                self._on_started(event)
            elif isinstance(event, Dropped):
                self._on_dropped(event.key)
        started = {event.key for event in events if isinstance(event, Started)}
        for event in events:
            if isinstance(event, Adopted):
                self._on_adopted(event, started)

    def on_executor_gone(self) -> None:
        """The executor died. Its tasks live until the next one has swept them up, and has said so (Adopted)."""
        self.executor_ready = False

    def _lose(self, task: Task) -> None:
        record = self._retire(task.key)
        if record is None or phase_of(record.status) not in (Phase.CLAIMED, Phase.RUNNING):
            return
        if phase_of(record.status) is Phase.CLAIMED:
            # It was ordered, and nobody can tell whether it started: never twice, so it counts as started.
            record = self.ledger.advance(record, Event.START, pid=None, start_ts=self.ledger.wall)
        self._finish(record, Event.FAIL, rc=None, error="executor lost", end_ts=self.ledger.wall)

    def _on_adopted(self, event: Adopted, told: set[TaskKey]) -> None:
        self.executor_ready = self.knows_tasks = True
        self.orders.extend(
            SetSlots(name, pool.settings.slots) for name, pool in self.pools.items() if name != CONFIG_POOL
        )
        known = {*told, *event.waiting, *(started.key for started in event.running)}
        for task in self.tasks:
            if task.key not in known and task.pool != CONFIG_POOL:
                self._lose(task)
        for key in event.waiting:
            self._adopt(key)
        for started in event.running:
            self._adopt(started.key)
            self._on_started(started)
        for jid in self.ledger.loads.on(self.ledger.name):
            self.ledger.dirty[jid] = None

    def _adopt(self, key: TaskKey) -> None:
        """A task that an earlier life of this node ordered."""
        if self.tasks.get(key) is not None:
            return
        record = self.ledger.table.get(key.job)
        lessor = key.epoch[1] if record is not None and record.status.leased else None
        task = Task(key, record.spec.pool if record is not None else "", lessor)
        self.tasks.add(task)
        if task.pool in self.pools:
            self.pools[task.pool].in_flight += 1
        self.ledger.dirty[key.job] = None

    def _on_started(self, event: Started) -> None:
        self._adopt(event.key)  # an order of an earlier life may have reached a frozen executor only now
        task = self.tasks.get(event.key)
        if task is None or task.started:
            return
        task.started = True
        task.killing = task.killing and not task.only_waiting  # what was to be dropped has started: it may be killed
        record = self._named_by(event.key)
        if record is not None and phase_of(record.status) is Phase.CLAIMED:
            self.ledger.advance(record, Event.START, pid=event.pid, start_ts=event.start_ts)

    def _on_dropped(self, key: TaskKey) -> None:
        if self._retire(key) is not None:
            self.ledger.dirty[key.job] = None

    def _on_exited(self, event: Exited) -> None:
        self.unstored.append(event.key)
        record = self._retire(event.key)
        if record is None:
            return
        if phase_of(record.status) is Phase.CLAIMED:  # it ended before its start was told
            record = self.ledger.advance(record, Event.START, pid=None, start_ts=event.start_ts or event.end_ts)
        if phase_of(record.status) is not Phase.RUNNING:
            return
        pool = self.pools.get(record.spec.pool)
        if pool is not None and event.start_ts is not None:
            pool.ended(max(0.0, event.end_ts - event.start_ts))
        end = Event.SUCCEED if event.rc == 0 and event.error is None else Event.FAIL
        if is_dead(record):
            end = Event.KILL
        self._finish(
            record,
            end,
            rc=event.rc,
            error="killed" if end is Event.KILL else event.error,
            end_ts=event.end_ts,
            stdout_data=event.stdout_data,
            stderr_data=event.stderr_data,
            stdout_size=event.stdout_size,
            stderr_size=event.stderr_size,
            output_node=self.ledger.name if event.spooled else None,
            output_epoch=event.key.epoch if event.spooled else None,
        )

    def _finish(self, record: Record, end: Event, **facts: Any) -> None:
        """Write an end, and what follows from it on this node."""
        record = self.ledger.advance(record, end, **facts)
        again = followup(record)
        if again is None:
            return
        delay = again_delay(record.status.fail_count if again is Event.RETRY else record.status.start_count)
        self.ledger.ended.pop(record.spec.id, None)
        self.delay(self.ledger.advance(record, again), delay)

    def delay(self, record: Record, seconds: float, *, until_heard: bool = False) -> None:
        """Don't start a job before so many seconds have passed; and its submit node, if that is to tell, hears us."""
        key, heard_by = key_of(record, record.status.start_count + 1), self.ledger.now + seconds
        self._delayed[record.spec.id] = key

        def due() -> None:
            one = self.ledger.table.get(key.job)
            if one is None or self._delayed.get(key.job) != key:
                return
            if until_heard and not self._was_heard(one.spec.submit_node, heard_by):
                self.ledger.after(seconds, due)
                return
            del self._delayed[key.job]
            self.ledger.dirty[key.job] = None

        self.ledger.after(seconds, due)

    def _retire(self, key: TaskKey) -> Record | None:
        """A task is over: make room, look at its job again, and return the record if it is about this very run."""
        task = self.tasks.remove(key)
        if task is not None and task.pool in self.pools:
            pool = self.pools[task.pool]
            pool.in_flight, pool.moved_at = pool.in_flight - 1, self.ledger.now
        self.ledger.dirty[key.job] = None
        return self._named_by(key)

    def _named_by(self, key: TaskKey) -> Record | None:
        """The record of a key's job, if it tells of this very run here."""
        record = self.ledger.table.get(key.job)
        if record is None or record.status.node != self.ledger.name:
            return None
        status = record.status
        if (status.generation, status.epoch) != (key.generation, key.epoch):
            return None
        run = status.start_count + (phase_of(status) is Phase.CLAIMED)
        return record if run == key.run else None
