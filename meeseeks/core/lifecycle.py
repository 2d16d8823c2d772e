"""The life of a job: one table of legal moves, and `advance`, the only place in the program that makes a new Status.

A phase is a state of API.md split by where the job stands: `new` may be unassigned, assigned or claimed. The table is
DESIGN section 3 row by row. An event that is not in the table for a phase raises, and changes nothing.
"""

from __future__ import annotations

import enum
from typing import Any, NamedTuple

import msgspec

from .record import (
    DONE,
    END_STATES,
    FAILED,
    KILLED,
    NEW,
    RUNNING,
    Record,
    Spec,
    Status,
    is_dead,
    is_lost,
    view_state,
)

__all__ = [
    "TRANSITIONS",
    "Event",
    "IllegalTransition",
    "Move",
    "Phase",
    "advance",
    "first_status",
    "followup",
    "is_over",
    "is_resubmitted",
    "may_expire",
    "phase_of",
]


class _Word(enum.Enum):
    """An Enum that is found in a dict as fast as any object: what `enum` has for it is a function of Python."""

    __hash__ = object.__hash__


class Phase(_Word):
    """Where a job stands. UNASSIGNED, and an end that is followed by a rerun, belong to its submit node."""

    UNASSIGNED = "new, no node yet"
    ASSIGNED = "new, a node was chosen and has not taken it yet"
    CLAIMED = "new, active: its node has it; held, delayed or waiting for a slot"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    KILLED = "killed"


class Event(_Word):
    """What may happen to a job."""

    ASSIGN = "the submit node chose a node"
    CLAIM = "the node's pool accepted it"
    BOUNCE = "the node gives it back: no such pool, drained, stopping, or others have room"
    START = "its process was spawned"
    SUCCEED = "its process ended with exit code 0"
    FAIL = "exit code other than 0, a signal, no spawn, runtime exceeded, executor or node gone"
    RESTART = "`restart` after success: again on the same node"
    RETRY = "`retries` left after a failure: again on the same node"
    RESUBMIT = "`resubmit` after an end: back to the submit node"
    KILL = "its user's kill was carried out: the process tree is gone"
    RERUN = "its user asked for a new generation"
    TAKE_BACK = "its node is lost, and it may run elsewhere"
    REFUTE = "its node was taken for lost and is not"


class Counts(_Word):
    """Which part of a status key a move raises, and so who may make it."""

    REV = "the owner goes on: rev + 1"
    EPOCH = "the submit node begins a new assignment: epoch + 1, rev 0"
    GENERATION = "a new generation: everything starts afresh"


class Move(NamedTuple):
    """One row: where the event leads, and which number it raises."""

    to: Phase
    counts: Counts = Counts.REV


_P, _E = Phase, Event
_LIVE = (_P.ASSIGNED, _P.CLAIMED, _P.RUNNING)

TRANSITIONS: dict[tuple[Phase, Event], Move] = {
    (_P.UNASSIGNED, _E.ASSIGN): Move(_P.ASSIGNED, Counts.EPOCH),
    (_P.ASSIGNED, _E.CLAIM): Move(_P.CLAIMED),
    (_P.ASSIGNED, _E.BOUNCE): Move(_P.UNASSIGNED),
    (_P.CLAIMED, _E.BOUNCE): Move(_P.UNASSIGNED),
    (_P.CLAIMED, _E.START): Move(_P.RUNNING),
    (_P.RUNNING, _E.SUCCEED): Move(_P.DONE),
    (_P.RUNNING, _E.FAIL): Move(_P.FAILED),
    (_P.DONE, _E.RESTART): Move(_P.CLAIMED),
    (_P.FAILED, _E.RETRY): Move(_P.CLAIMED),
    (_P.DONE, _E.RESUBMIT): Move(_P.UNASSIGNED, Counts.EPOCH),
    (_P.FAILED, _E.RESUBMIT): Move(_P.UNASSIGNED, Counts.EPOCH),
    **{(phase, _E.KILL): Move(_P.KILLED) for phase in (_P.UNASSIGNED, *_LIVE)},
    **{(phase, _E.RERUN): Move(_P.UNASSIGNED, Counts.GENERATION) for phase in Phase},
    **{(phase, _E.TAKE_BACK): Move(_P.UNASSIGNED, Counts.EPOCH) for phase in _LIVE},
    **{(phase, _E.REFUTE): Move(phase) for phase in _LIVE},
}

_STATE = {
    _P.UNASSIGNED: NEW,
    _P.ASSIGNED: NEW,
    _P.CLAIMED: NEW,
    _P.RUNNING: RUNNING,
    _P.DONE: DONE,
    _P.FAILED: FAILED,
    _P.KILLED: KILLED,
}
_ENDED = {DONE: _P.DONE, FAILED: _P.FAILED, KILLED: _P.KILLED}
_CLEARED_AT_START: dict[str, Any] = {
    "rc": None,
    "error": None,
    "end_ts": None,
    "stdout_data": None,
    "stderr_data": None,
    "stdout_size": 0,
    "stderr_size": 0,
    "output_node": None,
    "output_epoch": None,
}


class IllegalTransition(RuntimeError):
    """An event that may not happen in this phase: a defect of the caller. Carries both, and the status as it was."""

    def __init__(self, status: Status, phase: Phase, event: Event) -> None:
        super().__init__(f"{event.name} can't happen to a job that is {phase.name}: {status}")
        self.status, self.phase, self.event = status, phase, event


def phase_of(status: Status) -> Phase:
    """The phase that a status stands for."""
    if status.state in END_STATES:
        return _ENDED[status.state]
    if status.state == RUNNING:
        return Phase.RUNNING
    if status.node is None:
        return Phase.UNASSIGNED
    return Phase.CLAIMED if status.active else Phase.ASSIGNED


def first_status(spec: Spec, now: float) -> Status:
    """The status of a job that was submitted this moment (wall time `now`)."""
    return Status(generation=spec.generation, epoch=(0, spec.submit_node), ts=now)


def advance(record: Record, event: Event, now: float, **facts: Any) -> Status:
    """The next status of a job after `event`, or IllegalTransition.

    `now` is the wall time for `ts`, which never runs backwards for a job. `facts` are fields that the event brings
    (rc, error, pid, times, outputs; for ASSIGN the node, and whether it is leased).
    """
    spec, status = record.spec, record.status
    phase = phase_of(status)
    move = TRANSITIONS.get((phase, event))
    if move is None:
        raise IllegalTransition(status, phase, event)
    ts = max(now, status.ts, spec.ts)
    if move.counts is Counts.GENERATION:
        return Status(generation=spec.generation, epoch=(0, spec.submit_node), ts=ts)
    changes: dict[str, Any] = {"state": _STATE[move.to], "ts": ts, "active": move.to in (_P.CLAIMED, _P.RUNNING)}
    if move.counts is Counts.EPOCH:
        changes.update(epoch=(status.epoch[0] + 1, spec.submit_node), rev=0)
    else:
        # A refuted loss must be outlived even if it names a later rev than this node, which may have lost its last
        # moments in a crash, remembers of its own.
        lost_rev = spec.lost[2] if spec.lost[:2] == (status.generation, status.epoch) else 0
        changes["rev"] = max(status.rev, lost_rev) + 1
    if move.to is _P.UNASSIGNED:
        changes.update(node=None, pid=None, leased=False, assign_ts=None, claim_ts=None)
    elif event is _E.START:
        changes.update(_CLEARED_AT_START, start_count=status.start_count + 1)
    elif event is not _E.REFUTE:
        changes["pid"] = None
    if event is _E.ASSIGN:
        changes["assign_ts"] = now
    elif move.to is _P.CLAIMED and event is not _E.REFUTE:
        changes["claim_ts"] = now
    if event is _E.FAIL or (event is _E.TAKE_BACK and phase is _P.RUNNING):
        changes["fail_count"] = status.fail_count + 1
    if event is _E.REFUTE:
        changes["active"] = status.active
    changes.update(facts)
    return msgspec.structs.replace(status, **changes)


def followup(record: Record) -> Event | None:
    """How the owner goes on in the very turn of an end: by `restart` or `retries`, or not at all (None).

    So an end that anybody sees is one after which nothing follows here: `restart` or `retries` that are asked for
    later count from the next run on.
    """
    spec, status = record.spec, record.status
    if is_dead(record):
        return None
    if status.state == DONE and spec.restart:
        return Event.RESTART
    if status.state == FAILED and status.fail_count <= spec.retries:
        return Event.RETRY
    return None


def is_resubmitted(record: Record) -> bool:
    """Whether the submit node is to run an ended job again: `resubmit`, whenever it was asked for. A kill ends it."""
    return record.spec.resubmit and record.status.state in (DONE, FAILED) and not is_dead(record)


def is_over(record: Record) -> bool:
    """Whether no copy of the status's generation runs or can come to run any more, as far as this table knows."""
    status = record.status
    if is_lost(record) or status.state == KILLED or (status.node is None and is_dead(record)):
        return True
    return status.state in END_STATES and not is_resubmitted(record)


def may_expire(record: Record) -> bool:
    """Whether a job that reads as ended is over for everybody, so that it may be forgotten after `state.expire`.

    Not one whose kill is still to be carried out, however long its node is away: forgotten here, it would run there.
    And not one that its submit node is to run again.
    """
    spec, status = record.spec, record.status
    if view_state(record) not in END_STATES or is_resubmitted(record):
        return False
    if spec.killed_generation < spec.generation:
        return True
    return status.generation >= spec.killed_generation and status.state in END_STATES
