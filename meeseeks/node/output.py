"""Captured output, from whichever node has it: in the status, in the spool files here, or at another node.

A request for output that is elsewhere is passed on to the next node on the way there, and answered when its answer
comes; it never blocks the loop.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import msgspec

from meeseeks.core.effects import TaskKey
from meeseeks.core.node_state import NodeState
from meeseeks.core.record import END_STATES, RUNNING, Record, is_lost
from meeseeks.errors import InvalidRequest, ProtocolError, RequestFailed
from meeseeks.executor.spool import Spool
from meeseeks.wire import codec
from meeseeks.wire.messages import Output, OutputWanted, Reply

from .peers import Peers

__all__ = ["OutputReader"]

_PIECE = 1024 * 1024
_WHOLE_MAX = 16 * 1024 * 1024
"""The most that `query` puts into a jobinfo, in bytes a stream; more is read piece by piece with `output`."""
_HOPS_MAX = 16
_ANSWER_WITHIN = 5.0

Done = Callable[[Output | Exception], None]


class OutputReader:
    """Reads output for requests. `done` is called once: at once, or when another node has answered."""

    def __init__(self, state: NodeState, peers: Peers, spool: Spool) -> None:
        self._state = state
        self._peers = peers
        self._spool = spool
        self._waiting: dict[int, tuple[float, str, Done]] = {}
        self._number = 0

    def read(self, wanted: OutputWanted, done: Done) -> None:
        """A piece of a job's output."""
        record = self._state.table.get(wanted.id)
        if record is None:
            raise InvalidRequest(f"no job has id {wanted.id!r}")
        if wanted.stream not in ("stdout", "stderr"):
            raise InvalidRequest(f"stream must be 'stdout' or 'stderr', not {wanted.stream!r}")
        if wanted.offset < 0 or wanted.limit < 1:
            raise InvalidRequest("offset must be 0 or more, and limit 1 or more")
        wanted = msgspec.structs.replace(wanted, limit=min(wanted.limit, _PIECE))
        at = self._where(record, wanted.stream)
        if at is None:
            done(self._from_status(record, wanted))
        elif at == self._state.settings.name:
            done(self._from_spool(record, wanted))
        else:
            self._from_peer(at, wanted, done)

    def complete(self, jid: str, info: dict[str, Any], done: Callable[[dict[str, Any]], None]) -> bool:
        """Fill the output that did not fit into a jobinfo. False if nothing is missing; else `done` is called later."""
        missing = [
            stream
            for stream in ("stdout", "stderr")
            if info[f"{stream}_data"] is None and 0 < info[f"{stream}_size"] <= _WHOLE_MAX
        ]
        if not missing or info["state"] not in END_STATES:
            return False
        self._fill(jid, info, missing, bytearray(), done)
        return True

    def expire(self, now: float) -> None:
        """Answer those whose node has not answered in time."""
        for number, (deadline, node, done) in list(self._waiting.items()):
            if deadline <= now:
                del self._waiting[number]
                done(RequestFailed(f"node {node!r}, which has the output, does not answer"))

    def _fill(
        self,
        jid: str,
        info: dict[str, Any],
        missing: list[str],
        got: bytearray,
        done: Callable[[dict[str, Any]], None],
    ) -> None:
        """Read the first missing stream piece by piece, then the next, then be done."""
        stream = missing[0]

        def on_piece(piece: Output | Exception) -> None:
            if isinstance(piece, Exception):
                info["output_error"] = str(piece)
                done(info)
                return
            got.extend(piece.data)
            if piece.data and len(got) < piece.size:
                self._fill(jid, info, missing, got, done)
                return
            info[f"{stream}_data"] = base64.b64encode(got).decode("ascii")
            if missing[1:]:
                self._fill(jid, info, missing[1:], bytearray(), done)
            else:
                done(info)

        try:
            self.read(OutputWanted(id=jid, stream=stream, offset=len(got)), on_piece)
        except (InvalidRequest, RequestFailed) as error:
            on_piece(error)

    def _where(self, record: Record, stream: str) -> str | None:
        """The node that has the output in files; None if the status has all that there is."""
        status = record.status
        if record.spec.generation > status.generation:
            return None
        if status.state == RUNNING:
            redirected = record.spec.stdout if stream == "stdout" else record.spec.stderr
            return None if redirected is not None else status.node
        data = status.stdout_data if stream == "stdout" else status.stderr_data
        return status.output_node if data is None else None

    def _from_status(self, record: Record, wanted: OutputWanted) -> Output:
        status = record.status
        data = (status.stdout_data if wanted.stream == "stdout" else status.stderr_data) or b""
        piece = data[wanted.offset : wanted.offset + wanted.limit]
        return self._output(record, wanted, piece, len(data))

    def _from_spool(self, record: Record, wanted: OutputWanted) -> Output:
        status = record.status
        key = TaskKey(record.spec.id, status.generation, status.epoch, status.start_count)
        data, size = self._spool.read(key, wanted.stream, wanted.offset, wanted.limit)
        return self._output(record, wanted, data, size)

    def _output(self, record: Record, wanted: OutputWanted, data: bytes, size: int) -> Output:
        ended = (record.status.state in END_STATES or is_lost(record)) and wanted.offset + len(data) >= size
        return Output(id=wanted.id, stream=wanted.stream, offset=wanted.offset, data=data, size=size, ended=ended)

    def _from_peer(self, node: str, wanted: OutputWanted, done: Done) -> None:
        now = self._state.ledger.now
        hop = self._state.mesh.next_hop(node, now)
        if hop is None or wanted.hops >= _HOPS_MAX:
            raise RequestFailed(f"node {node!r}, which has the output, can't be reached from here")
        self._number += 1
        number = self._number

        def answered(reply: Reply) -> None:
            if self._waiting.pop(number, None) is None:
                return
            if reply.response is None:
                done(RequestFailed(reply.error.message if reply.error is not None else "no reason given"))
                return
            try:
                done(codec.convert(reply.response.get("output"), Output))
            except ProtocolError as error:
                done(error)

        further = msgspec.structs.replace(wanted, hops=wanted.hops + 1)
        self._waiting[number] = (now + _ANSWER_WITHIN, node, done)
        if not self._peers.request(hop, "output", further, answered, now + _ANSWER_WITHIN):
            del self._waiting[number]
            raise RequestFailed(f"node {node!r}, which has the output, can't be reached from here")
