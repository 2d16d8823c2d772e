"""All messages of the protocol, and its version. Nothing else builds or picks apart a frame.

Sockets of a node and what travels on them (every payload is one MessagePack map or list):

    ROUTER ◀─▶ DEALER   [Request] → [Reply]     of clients and of peers (hello, sync, output)
    PUB     ─▶ SUB      [topic, Update]         topic `own` or `all`; every loop turn that changed something, and
                                                every heartbeat
    DEALER ◀─▶ DEALER   [list of Order] → [list of Event]   node and executor, over ipc

A Request has exactly one entry: its type, and the data of that type:

    submit       jobspec                  → {jid: jobinfo}      new jobs, or the changed one; idempotent by id
    submit_many  [jobspec, …]             → {jid: jobinfo}      all of them or, if one is wrong, none
    query        jid | [jid, …] | filters → jobinfo or false | {jid: jobinfo}
    kill         jid | [jid, …] | filters → as query
    ls           filters                  → [jid, …]
    nodes        {}                       → {node: status}
    pools        {}                       → {pool: {node: free slots}} of online nodes
    config       {…} or {}                → the node's configuration, after the change that was asked for
    output       OutputWanted             → Output              a piece of a job's captured output, from any node
    hello        Hello                    → Hello               peers: who are you, and where do you publish
    sync         SyncRequest              → Snapshot            peers and clients: what changed since a seq

A reply repeats the request's id, and has either `response: {type: result}` or `error: {code, message}`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from meeseeks.core.effects import ALL, OWN, Event, Order, Snapshot, Update

__all__ = [
    "ALL",
    "MAX_MESSAGE_BYTES",
    "OWN",
    "PROTOCOL_VERSION",
    "REQUEST_TYPES",
    "SUBMITS_MAX",
    "SYNC_BATCH",
    "ErrorInfo",
    "Event",
    "Hello",
    "Order",
    "Output",
    "OutputWanted",
    "Reply",
    "Request",
    "Snapshot",
    "SyncRequest",
    "Update",
]

PROTOCOL_VERSION = 1
MAX_MESSAGE_BYTES = 64 * 1024 * 1024
"""A larger frame closes the connection that sent it."""
SYNC_BATCH = 2000
"""How many records one Snapshot has at most."""
SUBMITS_MAX = 2000
"""How many jobspecs one `submit_many` has at most: a turn stores and answers it as a whole, some 50 us a job."""
REQUEST_TYPES = (
    "submit",
    "submit_many",
    "query",
    "kill",
    "ls",
    "nodes",
    "pools",
    "config",
    "output",
    "hello",
    "sync",
)


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """Client or peer to node. `id` is the sender's own number for it."""

    v: int = PROTOCOL_VERSION
    id: int | str
    request: dict[str, Any]


class ErrorInfo(msgspec.Struct, frozen=True):
    """Why a request was not carried out: a code of `errors`, and one sentence."""

    code: str
    message: str


class Reply(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Node to the sender of the Request with that id."""

    v: int = msgspec.field(default_factory=lambda: PROTOCOL_VERSION)  # a plain default would be left out of the frame
    id: int | str | None
    node: str = ""
    response: dict[str, Any] | None = None
    error: ErrorInfo | None = None


class Hello(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Who a node is and where it can be reached. A blank address stands for 'where you see me'."""

    node: str
    incarnation: str
    address: str = ""
    port: int
    pub_port: int
    version: str = ""


class SyncRequest(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What changed after `since`? An incarnation that is not the node's own means: everything.

    With an `origin` (a node that is silent) the question is what the asked node heard of that one after `since`.
    """

    incarnation: str = ""
    since: int = 0
    origin: str | None = None


class OutputWanted(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A piece of the captured output of a job: `stream` is stdout or stderr."""

    id: str
    stream: str = "stdout"
    offset: int = 0
    limit: int = 1024 * 1024
    hops: int = 0
    """How many nodes have passed the request on: it is dropped where they begin to go round in circles."""


class Output(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A piece of output. `size` is what there is by now; `ended` says that no more will come."""

    id: str
    stream: str
    offset: int
    data: bytes
    size: int
    ended: bool
