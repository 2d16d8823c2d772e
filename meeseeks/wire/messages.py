"""All messages of the protocol, and its version. Nothing else builds or picks apart a frame.

Sockets of a node and what travels on them (every payload is one MessagePack map or list, cut into as many frames as
MAX_FRAME_BYTES asks for):

    ROUTER ◀─▶ DEALER   [Request] → [Reply]     of clients, and of peers (hello, sync; output,
                                                follow and input, which they pass on)
    PUB     ─▶ SUB      [topic, Update]         topic `own` or `all`; every loop turn that changed something, and
                                                every heartbeat
    a socket file       [list of Order] → [list of Event]   node and executor: see `local`

A Request has exactly one entry: its type, and the data of that type:

    submit       jobspec                  → {jid: jobinfo}      new jobs, or the changed one; idempotent by id
    submit_many  [jobspec, …]             → {jid: jobinfo}      all of them or, if one is wrong, none
    query        jid | [jid, …] | filters → jobinfo or false | {jid: jobinfo}
    kill         jid | [jid, …] | filters → as query
    ls           filters                  → [jid, …]
    adopt        node name                → {jid: jobinfo}      become the submit node of a dead node's jobs
    forget       node name                → {node, known}       another machine may have its name; passed on to all
    nodes        {}                       → {node: status}
    pools        {}                       → {pool: {node: free slots}} of online nodes
    config       {…} or {}                → the node's configuration, after the change that was asked for
    output       OutputWanted             → Output              a piece of a job's captured output, from any node
    follow       FollowWanted             → Followed            what is new of a job; the answer may wait for it
    input        InputPiece               → InputTaken          a piece of a job's stdin, where its jobspec says `-`
    hello        Hello                    → Hello               peers: who are you, and where do you publish
    sync         SyncRequest              → Snapshot            peers and clients: what changed since a seq

A reply repeats the request's id, and has either `response: {type: result}` or `error: {code, message}`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from meeseeks.core import effects
from meeseeks.core.effects import ALL, OWN, Snapshot, TaskKey, Update

__all__ = [
    "ALL",
    "MAX_FRAME_BYTES",
    "MAX_INPUT_BYTES",
    "MAX_MESSAGE_BYTES",
    "OWN",
    "PROTOCOL_VERSION",
    "QUESTIONS",
    "REQUEST_TYPES",
    "SUBMITS_MAX",
    "SYNC_BATCH",
    "ErrorInfo",
    "Event",
    "Fed",
    "Feed",
    "FollowWanted",
    "Followed",
    "Hello",
    "InputPiece",
    "InputTaken",
    "Order",
    "Output",
    "OutputWanted",
    "Reply",
    "Request",
    "Run",
    "Snapshot",
    "SyncRequest",
    "Update",
]

PROTOCOL_VERSION = 1
MAX_MESSAGE_BYTES = 64 * 1024 * 1024
"""A larger message is refused before it is sent."""
MAX_FRAME_BYTES = 16 * 1024
"""A larger frame closes the connection that sent it; a larger message is sent in several frames (see `transfer`)."""
MAX_INPUT_BYTES = 256 * 1024
"""Bytes of stdin in one request."""
SYNC_BATCH = 2000
"""How many records one Snapshot has at most."""
SUBMITS_MAX = 2000
"""How many jobspecs one `submit_many` has at most: a turn stores and answers it as a whole, some 50 us a job."""
REQUEST_TYPES = (
    "submit",
    "submit_many",
    "query",
    "kill",
    "adopt",
    "forget",
    "ls",
    "nodes",
    "pools",
    "config",
    "output",
    "follow",
    "input",
    "hello",
    "sync",
)
QUESTIONS = frozenset({"query", "ls", "nodes", "pools", "output", "follow"})
"""Those that change nothing, however often they are carried out."""


Run = tuple[int, int, float]
"""Which run of a job: generation, start_count, start_ts. For clients a value to compare, and to send back."""


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
    """Who a node is and where it can be reached. A blank address stands for 'where you see me'.

    A node says it twice: by the mesh's key, so that its `identity` (a public key of its own, in Z85) is let in, and by
    the key of that identity, which proves it: only then it is met. `incarnation` begins with the mark of the identity.
    """

    node: str
    identity: str = ""
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
    run: Run | None = None
    """None: it has not started."""


class FollowWanted(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What is new of a job since `stdout` and `stderr`, the bytes of its `run` that are known already?

    If that is nothing, the answer may take up to `wait` seconds. Of another run than `run` everything is new.
    """

    id: str
    run: Run | None = None
    stdout: int = 0
    stderr: int = 0
    limit: int = 1024 * 1024
    """Most bytes of each stream."""
    wait: float = 0.0
    hops: int = 0


class Followed(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What is new of a job. `run` None: it has not started. `ended`: that is all that this run has written.

    Of a stream that goes to a file there is nothing.
    """

    id: str
    run: Run | None = None
    stdout: bytes = b""
    stderr: bytes = b""
    ended: bool = False
    info: dict[str, Any] = {}
    """The jobinfo once it has `ended`, as the node that has the output knows it."""


class InputPiece(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Bytes for the stdin of a job's first run, from `offset` on; nothing comes after them where `eof` is true.

    Sent again, it does nothing twice. `run` None means whichever runs now, and is for asking, without data.
    """

    id: str
    run: Run | None = None
    offset: int = 0
    data: bytes = b""
    eof: bool = False
    hops: int = 0


class InputTaken(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """How many bytes of its stdin the run has been given by now: go on from there, with what is left of a piece too.

    An eof was taken if all bytes of its piece were. `run` None: it has not started. Not `open`: nobody will read any
    more of it.
    """

    id: str
    run: Run | None = None
    taken: int = 0
    open: bool = True


class Feed(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, tag="feed"):
    """Order to the executor, straight from a request: write this to the task's stdin. Answered by Fed."""

    key: TaskKey
    number: int
    offset: int
    data: bytes
    eof: bool


class Fed(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, tag="fed"):
    """Event of the executor: what became of a Feed, as InputTaken has it."""

    key: TaskKey
    number: int
    taken: int
    open: bool


Order = effects.Order | Feed
Event = effects.Event | Fed
"""What node and executor say to each other: what the core decides, and the bytes of stdin, which do not concern it."""
