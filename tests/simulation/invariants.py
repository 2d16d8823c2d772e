"""What a node's core must keep inside: every index and every counter equals a recount."""

from __future__ import annotations

import math
from collections import Counter

from meeseeks.core.lifecycle import Phase, may_expire, phase_of
from meeseeks.core.node_state import NodeState
from meeseeks.core.record import END_STATES, RUNNING, Record, is_lost
from meeseeks.core.table import _index_values

__all__ = ["broken_invariants"]


def broken_invariants(state: NodeState | None) -> list[str]:
    """What is wrong inside of a core between two turns."""
    if state is None:
        return []
    return [*_table(state), *_loads(state), *_tasks(state), *_waiting(state)]


def _table(state: NodeState) -> list[str]:
    table, found = state.table, []
    records = {record.spec.id: record for record in table}
    seqs = {jid: table.seq_of(jid) for jid in records}
    if list(table._log.after(-1)) != sorted((at, jid) for jid, at in seqs.items()):
        found.append("the log differs from the jobs' last changes in their order")
    if max(seqs.values(), default=0) > table.seq:
        found.append("a job's last change has a number that was not given yet")
    if len(set(seqs.values())) != len(seqs):
        found.append("two jobs have one seq")
    index: dict[str, dict[str, set[str]]] = {key: {} for key in table._index}
    for record in records.values():
        for key, values in zip(table._index, _index_values(record), strict=True):
            for value in values:
                index[key].setdefault(value, set()).add(record.spec.id)
    if index != {key: {value: set(jids) for value, jids in one.items()} for key, one in table._index.items()}:
        found.append("an index differs from a recount")
    if {jid for jid, record in records.items() if may_expire(record)} != set(table.ages.ended):
        found.append("the jobs that may expire differ from a recount")
    if {jid for jid, record in records.items() if not may_expire(record)} != set(table.ages.live_since(math.inf)):
        found.append("the jobs that are live differ from a recount")
    return found


def _loads(state: NodeState) -> list[str]:
    jobs: Counter[tuple[str, str]] = Counter()
    on: dict[str, set[str]] = {}
    for record in state.table:
        node = record.status.node
        if node is None or record.status.state in END_STATES or is_lost(record):
            continue
        on.setdefault(node, set()).add(record.spec.id)
        if not record.spec.hold or record.status.state == RUNNING:
            jobs[node, record.spec.pool] += 1
    loads, found = state.ledger.loads, []
    if jobs != loads.jobs:
        found.append(f"loads {loads.jobs} differ from a recount {jobs}")
    if on != {node: set(loads.on(node)) for node in loads.nodes()}:
        found.append("the jobs by node differ from a recount")
    return found


def _tasks(state: NodeState) -> list[str]:
    owner, found = state.owner, []
    for name, pool in owner.pools.items():
        count = sum(task.pool == name for task in owner.tasks)
        if pool.in_flight != count:
            found.append(f"pool {name} counts {pool.in_flight} tasks and has {count}")
        for jid in pool.ready:
            record = state.table.get(jid)
            if record is None or not _is_claimed_here(state, record, name):
                found.append(f"job {jid} is in the line of pool {name} and is not claimed for it")
    if any(not tasks for tasks in owner.tasks._by_job.values()):
        found.append("an empty entry of tasks by job")
    return found


def _is_claimed_here(state: NodeState, record: Record, pool: str) -> bool:
    status = record.status
    return phase_of(status) is Phase.CLAIMED and status.node == state.settings.name and record.spec.pool == pool


def _waiting(state: NodeState) -> list[str]:
    waiting, found = state.submitter.waiting, []
    for jid, group in waiting._group_of.items():
        record = state.table.get(jid)
        if record is None or phase_of(record.status) is not Phase.UNASSIGNED:
            found.append(f"job {jid} waits for a node and is not unassigned")
        elif record.spec.submit_node != state.settings.name:
            found.append(f"job {jid} waits here for a node and belongs to {record.spec.submit_node}")
        elif group != (record.spec.pool, record.spec.node, record.spec.hold):
            found.append(f"job {jid} waits in the wrong group {group}")
    for record in state.table:
        spec, status = record.spec, record.status
        mine = spec.submit_node == state.settings.name and phase_of(status) is Phase.UNASSIGNED
        if mine and spec.id not in waiting and spec.id not in state.submitter._delayed:
            found.append(f"job {spec.id} waits for a node, and nobody looks for one")
    return found
