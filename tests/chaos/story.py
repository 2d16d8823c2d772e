"""The story of one job: what its user did, what its processes did, what was broken meanwhile, what each node says."""

from __future__ import annotations

from .faults import Saboteur
from .load import Asked
from .marks import Marks
from .tables import Tables

__all__ = ["tell"]

_SHOWN = (
    *("state", "active", "node", "submit_node", "generation", "rc", "error", "pid", "start_count", "fail_count"),
    *("tags", "stdout_size", "start_ts", "end_ts"),
)
_BEFORE_S = 8.0


def tell(asked: Asked, tables: Tables, marks: Marks, saboteur: Saboteur) -> str:
    """All of it in the order of time, in seconds since its submit."""
    zero = asked.notes[0][0] if asked.notes else 0.0
    lines = [(at, f"user: {text}") for at, text in asked.notes]
    last = zero
    for run in marks.of(asked.job):
        lines.append((run.started_at, f"process {run.pid} starts on {run.node}"))
        if run.ended_at is not None:
            lines.append((run.ended_at, f"process {run.pid} says it ends: {run.ended}"))
        if run.dead_at is not None:
            lines.append((run.dead_at, f"process {run.pid} is gone"))
        last = max(last, run.dead_at or run.started_at)
    for trouble in saboteur.troubles:
        if trouble.end > zero - _BEFORE_S and trouble.begin < last + _BEFORE_S:
            lines.append((trouble.begin, f"fault: {trouble.fault}"))
            if trouble.end - trouble.begin > 0.1:
                lines.append((trouble.end, f"mended: {trouble.fault}"))
    retries = {key: value for key, value in asked.spec.items() if key in ("retries", "restart", "resubmit", "node")}
    said = [f"story of {asked.job} {retries} args {asked.spec['args'][4:]}"]
    said += [f"  {at - zero:8.3f}  {text}" for at, text in sorted(lines)]
    for name, infos in tables.items():
        info = infos.get(asked.job)
        shown = {key: info[key] for key in _SHOWN if info.get(key) is not None} if info is not None else None
        said.append(f"  node {name}: {shown}")
    return "\n".join(said)
