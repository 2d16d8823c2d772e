"""Records as a cache shows them while its node has not acknowledged what was written to them."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from meeseeks.core.lifecycle import is_over
from meeseeks.core.record import (
    END_STATES,
    FAILED,
    KILLED,
    NEW,
    Record,
    Spec,
    Status,
    is_active,
    is_dead,
    is_lost,
    view_state,
)
from meeseeks.errors import InvalidRequest

from .writes import Write

__all__ = [
    "UNKNOWN",
    "answered",
    "check_change",
    "is_final",
    "may_run",
    "overlaid",
    "provisional",
    "refused",
    "was_refused",
]

UNKNOWN = "unknown"
"""The state of a job that nobody who can be asked knows of, and that a node which can't be asked may have."""


def provisional(jid: str, changes: dict[str, Any], node: str, now: float) -> Record:
    """A new job as it is shown until the node has taken it. Every record of a node wins against it."""
    fields = {key: value for key, value in changes.items() if key not in ("id", "state")}
    killed = changes.get("state") == KILLED
    spec = Spec(**fields, id=jid, submit_node=node, submit_ts=now, ts=now, killed_generation=1 if killed else 0)
    return Record(spec, Status(epoch=(0, ""), ts=now))


def is_final(record: Record) -> bool:
    """Whether a job is over for good: it has ended, its processes are gone, and no rerun follows by itself."""
    return record.spec.generation == record.status.generation and is_over(record)


def answered(info: Mapping[str, Any]) -> Record:
    """A job as a node's answer tells of it. Every record of a node wins against it, as the node's are more exact."""
    ended = info["state"] if info["state"] in END_STATES else NEW
    outputs = {key: base64.b64decode(info[key]) for key in ("stdout_data", "stderr_data") if info[key] is not None}
    same = {key: info[key] for key in Status.__struct_fields__ if key in info and key not in (*outputs, "state")}
    status = Status(**{**same, **outputs, "epoch": (0, ""), "state": ended})
    spec = {key: info[key] for key in Spec.__struct_fields__ if key in info}
    tuples = {"tags": tuple(info["tags"])}
    if not isinstance(info["args"], dict):
        tuples["args"] = tuple(info["args"])
    return Record(Spec(**{**spec, **tuples}), status)


def refused(record: Record, why: str, now: float) -> Record:
    """A new job that the node did not take: failed for good, with the node's reason."""
    status = msgspec.structs.replace(record.status, rev=1, state=FAILED, error=why, end_ts=now, fail_count=1, ts=now)
    return Record(msgspec.structs.replace(record.spec, retries=0, resubmit=False), status)


def was_refused(record: Record) -> bool:
    """Whether a job reads failed because no node has taken it: there is none, and its id is free."""
    return record.status.rev > 0 and not record.status.epoch[1]


def overlaid(truth: Record, writes: Iterable[Write]) -> Record:
    """A record as it will read once these writes have been carried out."""
    spec = truth.spec
    for write in writes:
        if write.fresh:
            continue
        changes = {key: value for key, value in write.changes.items() if key not in ("id", "state")}
        state = KILLED if write.kind == "kill" else write.changes.get("state")
        if state == KILLED and (is_lost(truth) or view_state(truth) not in END_STATES):
            changes["killed_generation"] = spec.generation
        elif state == NEW and write.generation == spec.generation:
            changes["generation"] = spec.generation + 1
        if changes:
            spec = msgspec.structs.replace(spec, **changes)
    return truth if spec is truth.spec else Record(spec, truth.status)


def may_run(record: Record, truth: Record | None) -> bool:
    """Whether it reads active. `truth` is what its node has told, where more was written to it since.

    A kill that is on its way shows at once, but who knows what runs by now.
    """
    return is_active(record) or (view_state(record) == KILLED and truth is not None and not is_final(truth))


def check_change(record: Record, truth: Record | None, changes: dict[str, Any]) -> None:
    """InvalidRequest where the node would refuse the change for what is known of the job here: a move while active."""
    if not may_run(record, truth):
        return
    moved: list[str] = [key for key in ("pool", "node") if key in changes and changes[key] != getattr(record.spec, key)]
    if changes.get("state") == NEW and not ("pool" in changes and "args" in changes):
        moved.append("state")
    if moved:
        what = "it is being killed: wait" if is_dead(record) else "kill it first, and wait"
        where = f" on {record.status.node!r}" if record.status.node is not None else ""
        raise InvalidRequest(
            f"job {record.spec.id!r} is active{where}: {what} for active=False, before you change its {moved[0]}"
        )
