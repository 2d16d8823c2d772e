"""What goes into the core and what comes out of it: broadcasts, orders to the executor and its events, wishes.

These are plain data, so that the simulator can carry them without sockets, and `wire` can put them on a socket as
they are. Times that end in `_at` are seconds on the monotonic clock of the machine (`meeseeks.clock`), which its
processes share; `_ts` is wall time, for people.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import msgspec

from .record import Record

__all__ = [
    "ALL",
    "OWN",
    "Ack",
    "Adopted",
    "Beat",
    "Dial",
    "Dropped",
    "Effects",
    "Event",
    "Exited",
    "Kill",
    "Link",
    "Order",
    "PoolStatus",
    "Renew",
    "SetSlots",
    "Snapshot",
    "Start",
    "Started",
    "SyncWanted",
    "TaskKey",
    "Unlink",
    "Update",
]

Seq = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
"""A number of a node's stream. Each start of a node counts on from far beyond where it was."""

OWN, ALL = "own", "all"
"""The two topics of a PUB: the changes that this node made, and all that it applied."""


class PoolStatus(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A pool as its node sees it. `slots` 0 is no limit."""

    slots: int = 0
    running: int = 0
    waiting: int = 0
    hold: bool = False
    drain: bool = False
    prefetch: int = 0
    """How many jobs more than free slots the node wants: above 0 where jobs are so short that a slot would wait for
    the network."""
    wait: bool = False
    """The node's `wait_in_pool`: its full pools want jobs as well."""


class Beat(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """A heartbeat: a node's status, numbered. A peer that relays it passes it on as it is."""

    node: str
    incarnation: str
    number: Seq
    seq: Seq = 0
    ts: float = 0.0
    acks: dict[str, tuple[str, int]] = {}
    """The last heartbeat heard of each node, as (incarnation, number): what a lease is made of."""
    timeout: float = 15.0
    lost_after: float = 300.0
    loadavg: float = 0.0
    version: str = ""
    address: str = ""
    """Where its ROUTER and PUB can be reached, as far as it knows itself: the ports hold, the host may be blank."""
    port: int = 0
    pub_port: int = 0
    pools: dict[str, PoolStatus] = {}
    sees: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    """Those of them that it is linked with and hears directly, for people: nothing is decided by it."""
    tails: dict[str, tuple[str, int]] = {}
    """How far this node has followed each node that is silent now, as (incarnation, seq): who has less asks for it."""
    leaving: bool = False
    info: dict[str, int | float] = {}
    """Figures of the daemon itself, for people: loop time, memory, number of jobs."""


class Update(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One broadcast of a node on one topic: all changes of a loop turn.

    Whoever has applied the topic up to `prev` (or later) may apply it, and then stands at `seq`; whoever has not,
    missed something and syncs.
    """

    node: str
    incarnation: str
    topic: str
    prev: Seq
    seq: Seq
    records: list[Record] = []
    beats: list[Beat] = []


class Snapshot(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The records changed after `since`, oldest change first; the receiver stands at `seq` then.

    With `more` the batch was full: ask again from `seq`. `beats` are the last heartbeats known of each node.
    With an `origin`, seq and incarnation are those of that node, as far as the asked one has heard it.
    """

    node: str
    incarnation: str
    since: int
    origin: str | None = None
    seq: int
    more: bool = False
    records: list[Record] = []
    beats: list[Beat] = []


class TaskKey(NamedTuple):
    """One start of one job: no two processes ever share it."""

    job: str
    generation: int
    epoch: tuple[int, str]
    """Any number: node and executor trust each other, and one bad key must not spoil what is said of other tasks."""
    run: int


class Start(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, tag="start"):
    """Order: run this as soon as the pool has a slot, and no later than `start_by_at`.

    A leased task is killed at `kill_at` unless a Renew of its lessor comes first.
    """

    key: TaskKey
    pool: str
    args: tuple[str, ...]
    env: dict[str, str] = {}
    stdin: str | None = None
    stdout: str | None = None
    stderr: str | None = None
    runtime: float | None = None
    grace: float = 5.0
    config: dict[str, Any] = {}
    lessor: str | None = None
    start_by_at: float | None = None
    kill_at: float | None = None


class Kill(msgspec.Struct, frozen=True, omit_defaults=True, tag="kill"):
    """Order: end this task's whole process tree, or drop it if it has not started. Answered by Exited or Dropped."""

    key: TaskKey
    grace: float
    why: str
    only_waiting: bool = False
    """Drop it if it has not started; if it has, let it run (and answer nothing)."""


class Renew(msgspec.Struct, frozen=True, tag="renew"):
    """Order: every task that is leased from `lessor` may start until `start_by_at` and live until `kill_at`."""

    lessor: str
    start_by_at: float
    kill_at: float


class SetSlots(msgspec.Struct, frozen=True, tag="slots"):
    """Order: this pool runs so many tasks at once (0: no limit)."""

    pool: str
    slots: int


class Ack(msgspec.Struct, frozen=True, tag="ack"):
    """Order: the end of this task is on disk at the node; forget it."""

    key: TaskKey


Order = Start | Kill | Renew | SetSlots | Ack


class Started(msgspec.Struct, frozen=True, omit_defaults=True, tag="started"):
    """Event: the process runs."""

    key: TaskKey
    pid: int
    start_ts: float


class Exited(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, tag="exited"):
    """Event: no process of the task is left. Told until it is acked. `rc` is None where there was no process.

    `error` says in words why it did not end with an exit code of its own (signal, spawn error, runtime, lease).
    """

    key: TaskKey
    rc: int | None = None
    error: str | None = None
    start_ts: float | None = None
    end_ts: float
    stdout_data: bytes | None = None
    stderr_data: bytes | None = None
    stdout_size: int = 0
    stderr_size: int = 0
    spooled: bool = False
    """The output did not fit into this event: its spool files are kept."""


class Dropped(msgspec.Struct, frozen=True, tag="dropped"):
    """Event: the task was not started and will not be: killed before, or its `start_by_at` has passed."""

    key: TaskKey


class Adopted(msgspec.Struct, frozen=True, tag="adopted"):
    """Event: the tasks that an executor still has when a node connects to it (a new one: none)."""

    waiting: list[TaskKey] = []
    running: list[Started] = []


Event = Started | Exited | Dropped | Adopted


class SyncWanted(NamedTuple):
    """Effect: ask `peer` what changed after `since` in its life `incarnation` (another life: everything).

    With an `origin` it is about another node, which is silent: what has `peer` heard of it that we have not?
    """

    peer: str
    incarnation: str
    since: int
    origin: str | None = None


class Dial(NamedTuple):
    """Effect: say hello to the node that is said to be there; `peer` is the name that it should have."""

    peer: str
    host: str
    port: int


class Link(NamedTuple):
    """Effect: subscribe to `topic` of this peer (and to no other topic of it), connecting first if need be."""

    peer: str
    topic: str
    host: str
    port: int
    pub_port: int


class Unlink(NamedTuple):
    """Effect: close the connection to this peer."""

    peer: str


class Effects(msgspec.Struct, kw_only=True):
    """What a turn leads to, in the order in which the shell carries it out."""

    records: list[Record] = []
    """Changed records, for the store: on disk before anything below leaves the node."""
    updates: list[Update] = []
    orders: list[Order] = []
    syncs: list[SyncWanted] = []
    links: list[Link | Unlink | Dial] = []
    ended: list[Record] = []
    """Jobs that came to their end here this turn, for `state.history`."""
