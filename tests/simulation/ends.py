"""What must be true once everything is repaired and quiet: equal tables, ended jobs, obeyed kills, true reasons."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meeseeks.core.lifecycle import Phase, may_expire, phase_of
from meeseeks.core.placement import CONFIG_POOL
from meeseeks.core.record import END_STATES, Record, view_state

from .plan import SHORT_EXPIRE

if TYPE_CHECKING:
    from .node import SimNode
    from .truth import Job
    from .world import World

__all__ = ["problems_of"]

Problem = tuple[str | None, str]


def problems_of(world: World, jobs: dict[str, Job]) -> list[Problem]:
    """All that is wrong now."""
    nodes = [node for node in world.nodes if node.state is not None]
    found: list[Problem] = []
    for job in jobs.values():
        records = [node.state.table.get(job.id) for node in nodes if node.state is not None]
        found.extend((job.id, text) for text in _problems(nodes, job, records))
    return found


def _problems(nodes: list[SimNode], job: Job, records: list[Record | None]) -> list[str]:
    first, up = records[0], {node.name for node in nodes}
    if job.expired_at or (nodes[0].settings.expire == SHORT_EXPIRE and any(map(may_expire, filter(None, records)))):
        # Each node forgets by its own clock, does not learn anew what is that old, and may keep it for who is away.
        left = [record for record in records if record is not None]
        first = left[0] if left else None
        records = [first if record is None else record for record in records]
    for node, record in zip(nodes[1:], records[1:], strict=True):
        if record != first:
            return [f"{nodes[0].name} has {_short(first)}, {node.name} has {_short(record)}"]
    alive = [run for run in job.runs if run.alive]
    if first is None and (job.expired_at or job.excused):
        return [f"all have forgotten it, and it runs: {alive}"] if alive else []
    if first is None:
        # What only a node knew that is gone for good, nobody can tell.
        known = job.acked and job.excused is None and job.created_at & up
        return ["it was acknowledged, and nobody knows it"] if known else []
    found = []
    if len(alive) > 1:
        found.append(f"{len(alive)} copies live: {alive}")
    for run in alive:
        if run.key.generation <= first.spec.killed_generation:
            found.append(f"it was killed, and runs on {run.node}: {run.key}")
        elif first.status.state != "running" or first.status.node != run.node:
            found.append(f"it runs on {run.node}, and the tables say {_short(first)}")
    kills = [] if job.excused or job.expired_at else [killed for node, killed in job.kills.items() if node in up]
    if any(killed > first.spec.killed_generation for killed in kills):
        found.append("an acknowledged kill is forgotten")
    if view_state(first) in END_STATES:
        if first.status.active and first.status.node in up and not alive:
            found.append(f"it has ended, and is active for ever: {_short(first)}")
        return found
    wrong = _why_not_waiting(nodes, first, alive=bool(alive))
    if wrong is not None:
        found.append(wrong)
    return found


def _why_not_waiting(nodes: list[SimNode], record: Record, *, alive: bool) -> str | None:
    """Why a job that has not ended should have; None if the reason that its nodes give for it is true."""
    spec, status = record.spec, record.status
    up = {node.name: node for node in nodes}
    phase = phase_of(status)
    if phase is Phase.RUNNING:
        if status.node in up or spec.submit_node in up:
            return f"it never ends: {_short(record)}"
        return None  # its node and its submit node are gone: nobody may judge
    teller = up.get(spec.submit_node) or nodes[0]
    if status.node in up:
        teller = up[status.node]
    assert teller.state is not None
    reason = teller.state.submitter.why_waiting(record)
    text = f"{teller.name} says of {_short(record)}: {reason!r}"
    if reason is None or not _is_true(reason, up, record):
        return f"{text}, which is not true"
    return None


def _is_true(reason: str, up: dict[str, SimNode], record: Record) -> bool:
    spec, status = record.spec, record.status
    settings = {name: node.state.settings for name, node in up.items() if node.state is not None}
    fitting = {name: one.pools[spec.pool] for name, one in settings.items() if spec.pool in one.pools}
    if spec.node is not None:
        fitting = {name: pool for name, pool in fitting.items() if name == spec.node}
    if spec.pool == CONFIG_POOL:
        return False
    if "submit node" in reason and "offline" in reason:
        return spec.submit_node not in up or status.epoch[1] not in up
    if "to which it is assigned, is offline" in reason:
        return status.node not in up and spec.submit_node not in up
    if "is to say first" in reason:
        return spec.submit_node not in up
    if reason == "held":
        return spec.hold
    if "on hold" in reason:
        return fitting[status.node or ""].hold
    if "no online node has pool" in reason:
        return not any(spec.pool in one.pools for one in settings.values())
    if any(words in reason for words in (" has no pool ", "there is no node ", f"node {spec.node!r} is offline")):
        return spec.node not in fitting
    if "draining pool" in reason:
        return all(pool.drain for pool in fitting.values())
    if " taken" in reason:
        # Only jobs that wait themselves can take slots for ever.
        return all(pool.drain or _stuck(up[name], spec.pool) >= (pool.slots or 1e9) for name, pool in fitting.items())
    return False


def _stuck(node: SimNode, pool: str) -> int:
    """Jobs that wait for ever on a node."""
    assert node.state is not None
    return sum(
        one.status.node == node.name and one.status.state not in END_STATES and one.spec.pool == pool
        for one in node.state.table
    )


def _short(record: Record | None) -> str:
    if record is None:
        return "nothing"
    spec, status = record.spec, record.status
    return (
        f"[{view_state(record)}: {phase_of(status).name} {status.key} on {status.node}"
        f"{' active' if status.active else ''}{' leased' if status.leased else ''} fails={status.fail_count}"
        f" | submit={spec.submit_node} gen={spec.generation} killed={spec.killed_generation} lost={spec.lost}"
        f" wish={spec.node} pool={spec.pool} hold={spec.hold} retries={spec.retries}"
        f" lamport={spec.lamport, spec.writer}]"
    )
