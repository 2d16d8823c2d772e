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
from meeseeks.errors import InvalidRequest, RequestFailed
from meeseeks.executor.spool import Spool
from meeseeks.wire.messages import Output, OutputWanted, Run

from .relay import Relay

__all__ = ["OutputReader", "has_ended", "run_of"]

_PIECE = 1024 * 1024
_WHOLE_MAX = 16 * 1024 * 1024
"""The most that `query` puts into a jobinfo, in bytes a stream; more is read piece by piece with `output`."""

Done = Callable[[Output | Exception], None]


class OutputReader:
    """Reads output for requests. `done` is called once: at once, or when another node has answered."""

    def __init__(self, state: NodeState, relay: Relay, spool: Spool) -> None:
        self._state = state
        self._relay = relay
        self._spool = spool

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
        at = self.where(record, wanted.stream)
        if at is None or at == self._state.settings.name:
            data, size = self.piece(record, wanted.stream, wanted.offset, wanted.limit)
            ended = has_ended(record) and wanted.offset + len(data) >= size
            done(
                Output(
                    id=wanted.id,
                    stream=wanted.stream,
                    offset=wanted.offset,
                    data=data,
                    size=size,
                    ended=ended,
                    run=run_of(record),
                )
            )
        else:
            further = msgspec.structs.replace(wanted, hops=wanted.hops + 1)
            self._relay.pass_on(at, ("output", further), further.hops, Output, done)

    def complete(self, jid: str, info: dict[str, Any], done: Callable[[dict[str, Any]], None]) -> bool:
        """Fill the output that did not fit into a jobinfo. False if nothing is to come; else `done` is called later."""
        if info["state"] not in END_STATES:
            return False
        sizes = {stream: info[f"{stream}_size"] for stream in ("stdout", "stderr") if info[f"{stream}_data"] is None}
        long = [f"{size} bytes of {stream}" for stream, size in sizes.items() if size > _WHOLE_MAX]
        if long:
            info["output_error"] = f"{' and '.join(long)} are more than a query brings: follow it with mks logs"
        missing = [stream for stream, size in sizes.items() if 0 < size <= _WHOLE_MAX]
        record = self._state.table.get(jid)
        if not missing or record is None:
            return False
        self._fill(jid, info, run_of(record), missing, bytearray(), done)
        return True

    def _fill(
        self,
        jid: str,
        info: dict[str, Any],
        run: Run | None,
        missing: list[str],
        got: bytearray,
        done: Callable[[dict[str, Any]], None],
    ) -> None:
        """Read the first missing stream piece by piece, then the next, then be done: all of that run, or nothing."""
        stream = missing[0]
        size = info[f"{stream}_size"]

        def on_piece(piece: Output | Exception) -> None:
            if isinstance(piece, Output) and piece.run != run:
                piece = RequestFailed(f"the {stream} of job {jid!r} is gone: it was run again meanwhile")
            if isinstance(piece, Exception):
                info["output_error"] = str(piece)
                done(info)
                return
            got.extend(piece.data)
            if piece.data and len(got) < size:
                self._fill(jid, info, run, missing, got, done)
                return
            if len(got) != size:
                info["output_error"] = f"only {len(got)} of {size} bytes of the {stream} of job {jid!r} are there"
            else:
                info[f"{stream}_data"] = base64.b64encode(got).decode("ascii")
            if missing[1:]:
                self._fill(jid, info, run, missing[1:], bytearray(), done)
            else:
                done(info)

        try:
            self.read(OutputWanted(id=jid, stream=stream, offset=len(got)), on_piece)
        except (InvalidRequest, RequestFailed) as error:
            on_piece(error)

    def where(self, record: Record, stream: str) -> str | None:
        """The node that has the output in files; None if the status has all that there is."""
        status = record.status
        if run_of(record) is None:
            return None
        if status.state == RUNNING:
            redirected = record.spec.stdout if stream == "stdout" else record.spec.stderr
            return None if redirected is not None else status.node
        data = status.stdout_data if stream == "stdout" else status.stderr_data
        return status.output_node if data is None else None

    def piece(self, record: Record, stream: str, offset: int, limit: int) -> tuple[bytes, int]:
        """A piece of output that is here, and how much there is by now."""
        status = record.status
        if run_of(record) is None:
            return b"", 0
        if self.where(record, stream) is not None:
            epoch = status.epoch if status.state == RUNNING else status.output_epoch or status.epoch
            key = TaskKey(record.spec.id, status.generation, epoch, status.start_count)
            try:
                data, size = self._spool.read(key, stream, offset, limit)
            except OSError as error:  # of the disk, or for want of a file descriptor: nothing to end the node for
                why = f"the {stream} of job {record.spec.id!r} can't be read: {error.strerror}"
                raise RequestFailed(why) from error
            told = status.stdout_size if stream == "stdout" else status.stderr_size
            if status.state in END_STATES and size < told:
                what = f"{stream} of job {record.spec.id!r}"
                raise RequestFailed(f"only {size} of {told} bytes of the {what} are there: its file was deleted or cut")
            return data, size
        data = (status.stdout_data if stream == "stdout" else status.stderr_data) or b""
        return data[offset : offset + limit], len(data)


def run_of(record: Record) -> Run | None:
    """Which run the status tells of; None if the job, as it is wanted now, has not started."""
    status = record.status
    if record.spec.generation > status.generation or not status.start_count:
        return None
    # Not the epoch: it rises when the job is given away again, and the status still tells of the run before.
    return (status.generation, status.start_count, status.start_ts or 0.0)


def has_ended(record: Record) -> bool:
    """Whether nothing more will be written by the run that the status tells of."""
    status = record.status
    if record.spec.generation > status.generation or status.state == RUNNING:
        return is_lost(record)
    return status.state in END_STATES or status.start_count > 0
