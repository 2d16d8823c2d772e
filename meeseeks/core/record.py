"""The record of one job: two registers with one writer rule each, and the merge that makes all tables equal.

`Spec` is what was asked (any node writes it, for a client), `Status` is what happened (its owner alone writes it).
DESIGN section 3 gives the reasons. A register is immutable: a change is a new one, and `merge` picks per register.
"""

from __future__ import annotations

import base64
from typing import Annotated, Any

import msgspec

__all__ = [
    "ACTIVE_STATES",
    "COUNT_MAX",
    "DONE",
    "END_STATES",
    "FAILED",
    "KILLED",
    "MERGE_BY_MAX",
    "NEW",
    "RUNNING",
    "STATES",
    "Count",
    "Epoch",
    "Record",
    "Spec",
    "Status",
    "StatusKey",
    "is_active",
    "is_dead",
    "is_lost",
    "jobinfo",
    "merge",
    "view_state",
]

NEW, RUNNING, DONE, FAILED, KILLED = "new", "running", "done", "failed", "killed"
STATES = (NEW, RUNNING, DONE, FAILED, KILLED)
END_STATES = frozenset((DONE, FAILED, KILLED))
ACTIVE_STATES = frozenset((NEW, RUNNING))

COUNT_MAX = 2**48
Count = Annotated[int, msgspec.Meta(ge=0, le=COUNT_MAX)]
"""A number that only grows. A record with another one, by mistake or in bad faith, is dropped where it arrives."""

When = Annotated[float, msgspec.Meta(ge=-1e12, le=1e12)]
"""A wall time, in seconds since 1970. One that is no number, or infinite, is no moment: dropped as well."""

Epoch = tuple[Count, str]
"""Which assignment inside a generation: its count, and the submit node that made it (breaks ties between two)."""

StatusKey = tuple[Count, Epoch, Count]
"""(generation, epoch, rev): a status with the higher key wins."""

NEVER: StatusKey = (0, (0, ""), 0)

MERGE_BY_MAX = frozenset(("generation", "adoptions", "submit_node", "killed_generation", "lost"))
"""Fields of a spec whose highest value wins, whoever wrote last: a change of these alone is no edit."""


class Spec(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """What was asked for. Last writer wins by (lamport, writer).

    `killed_generation` and `lost` merge by max, and so does the triple (generation, adoptions, submit_node).
    """

    id: str
    pool: str
    args: tuple[str, ...] | dict[str, Any]
    node: str | None = None
    stdin: str | None = None
    stdout: str | None = None
    stderr: str | None = None
    runtime: float | None = None
    hold: bool = False
    restart: bool = False
    retries: int = 0
    resubmit: bool = False
    config: dict[str, Any] = {}
    tags: tuple[str, ...] = ()
    group: str | None = None
    """The id that a submit for several nodes was given; its jobs are `group@node`."""
    submit_node: str
    submit_ts: When = 0.0
    ts: When = 0.0
    lamport: Count = 0
    writer: str = ""
    generation: Count = 1
    adoptions: Count = 0
    """How often the job was given a new submit node because its own never came back (`mks adopt`)."""
    killed_generation: Count = 0
    lost: StatusKey = NEVER
    """The status that the submit node gave up waiting for; a later one refutes it."""

    @property
    def asks_rerun(self) -> bool:
        """Whether the submit node may give the job to another node: such a job runs on a lease."""
        return self.retries > 0 or self.resubmit


class Status(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """What happened. Only the owner writes it (`lifecycle.advance` is the one place that makes a new one)."""

    generation: Count = 1
    epoch: Epoch
    rev: Count = 0
    node: str | None = None
    active: bool = False
    state: Annotated[str, msgspec.Meta(pattern="^(new|running|done|failed|killed)$")] = NEW
    leased: bool = False
    """Fixed by the submit node at the assignment, so that both sides go by the same rule until it ends."""
    rc: int | None = None
    error: str | None = None
    pid: int | None = None
    assign_ts: When | None = None
    claim_ts: When | None = None
    """When it was lined up where it is: claimed, or about to be run again by `restart` or `retries`."""
    start_ts: When | None = None
    end_ts: When | None = None
    start_count: Count = 0
    fail_count: Count = 0
    stdout_data: bytes | None = None
    stderr_data: bytes | None = None
    stdout_size: int = 0
    stderr_size: int = 0
    output_node: str | None = None
    """Where the spool files of the last run are, when its output did not fit into the status."""
    output_epoch: Epoch | None = None
    """By which assignment they are named: the job may have been given away again since."""
    ts: When = 0.0

    @property
    def key(self) -> StatusKey:
        """What decides which of two statuses is the later one."""
        return (self.generation, self.epoch, self.rev)


class Record(msgspec.Struct, frozen=True, gc=False):
    """All that is known of one job."""

    spec: Spec
    status: Status

    @property
    def id(self) -> str:
        """The job's id."""
        return self.spec.id


_encode = msgspec.msgpack.Encoder(order="sorted").encode


def merge(a: Record, b: Record) -> Record:
    """What both know together. Commutative, associative, idempotent; returns `a` itself when b adds nothing."""
    spec, status = _merge_spec(a.spec, b.spec), _later_status(a.status, b.status)
    if spec is a.spec and status is a.status:
        return a
    return Record(spec, status)


def _merge_spec(a: Spec, b: Spec) -> Spec:
    if a is b or a == b:
        return a
    newer = a if _spec_order(a) >= _spec_order(b) else b
    if (a.lamport, a.writer) == (b.lamport, b.writer):
        # One writer used a number twice: it came back without its last moments. Content breaks the tie, without
        # the fields that merge by max, since those differ between copies of one and the same write.
        newer = a if _content(a) >= _content(b) else b
    # Whoever begins a generation, or adopts the job, becomes its submit node: these go together, or a later change of
    # anything else would give the job back to the earlier one, and both would assign it.
    generation, adoptions, home = max(_home(a), _home(b))
    killed = max(a.killed_generation, b.killed_generation)
    lost = max(a.lost, b.lost)
    if (_home(newer), newer.killed_generation, newer.lost) == ((generation, adoptions, home), killed, lost):
        return newer
    merged = msgspec.structs.replace(
        newer, generation=generation, adoptions=adoptions, submit_node=home, killed_generation=killed, lost=lost
    )
    return a if merged == a else merged


def _home(spec: Spec) -> tuple[int, int, str]:
    return (spec.generation, spec.adoptions, spec.submit_node)


def _spec_order(spec: Spec) -> tuple[int, str]:
    return (spec.lamport, spec.writer)


def _content(spec: Spec) -> bytes:
    return _encode(
        msgspec.structs.replace(spec, generation=0, adoptions=0, submit_node="", killed_generation=0, lost=NEVER)
    )


def _later_status(a: Status, b: Status) -> Status:
    if a is b:
        return a
    if a.key != b.key:
        return a if a.key > b.key else b
    if a == b:
        return a
    return a if _encode(a) >= _encode(b) else b


def is_dead(record: Record) -> bool:
    """Whether the run that the status tells of must end: it was killed, or the user asked for a new generation."""
    spec, status = record.spec, record.status
    return spec.killed_generation >= status.generation or spec.generation > status.generation


def is_lost(record: Record) -> bool:
    """Whether the submit node gave this very status up, and nothing later is known."""
    return record.spec.lost >= record.status.key and record.status.state not in END_STATES


def is_active(record: Record) -> bool:
    """Whether a node has it, or may have it: until it says that it has ended what it was told to end.

    A lost copy is taken for ended, although nobody saw it end: its user may move it, at his own risk.
    """
    status = record.status
    if is_lost(record):
        return False
    return status.active or (is_dead(record) and status.node is not None and status.state not in END_STATES)


def view_state(record: Record) -> str:
    """The state as a client sees it: a kill and a loss show at once, a new generation reads `new`."""
    spec, status = record.spec, record.status
    if spec.killed_generation >= spec.generation:
        return KILLED
    if spec.generation > status.generation:
        return NEW
    if status.state not in END_STATES and spec.lost >= status.key:
        return FAILED
    return status.state


def jobinfo(record: Record, seq: int) -> dict[str, Any]:
    """What a client sees of a job (API.md): the spec, with the attributes computed from both registers."""
    spec, status = record.spec, record.status
    fresh = spec.generation > status.generation
    lost = is_lost(record)
    args = dict(spec.args) if isinstance(spec.args, dict) else list(spec.args)
    info: dict[str, Any] = {
        "id": spec.id,
        "pool": spec.pool,
        "args": args,
        "node": (None if fresh else status.node) or spec.node,
        "stdin": spec.stdin,
        "stdout": spec.stdout,
        "stderr": spec.stderr,
        "runtime": _whole(spec.runtime),
        "hold": spec.hold,
        "restart": spec.restart,
        "retries": spec.retries,
        "resubmit": spec.resubmit,
        "config": dict(spec.config),
        "tags": list(spec.tags),
        "submit_node": spec.submit_node,
        "submit_ts": spec.submit_ts,
        "state": view_state(record),
        "active": is_active(record),
        "ts": max(spec.ts, status.ts),
        "seq": seq,
        "generation": spec.generation,
    }
    shown = Status(epoch=status.epoch) if fresh else status
    info.update(
        rc=shown.rc,
        error=f"node {status.node} lost" if lost and not fresh else shown.error,
        pid=shown.pid,
        assign_ts=shown.assign_ts,
        claim_ts=shown.claim_ts,
        start_ts=shown.start_ts,
        end_ts=shown.end_ts,
        start_count=shown.start_count,
        fail_count=shown.fail_count,
        stdout_data=_base64(shown.stdout_data),
        stderr_data=_base64(shown.stderr_data),
        stdout_size=shown.stdout_size,
        stderr_size=shown.stderr_size,
    )
    return info


def _whole(seconds: float | None) -> float | None:
    """A whole number as API.md has it: an int. What no message could carry as one stays as it is."""
    return int(seconds) if seconds is not None and seconds.is_integer() and abs(seconds) <= 2**53 else seconds


def _base64(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode("ascii")
