"""Runs of this node that ended, and expired here, and that another node still takes for live.

A node that was away for longer than `state.expire` comes back with the table of that day, and nobody else knows the job
any more. Only the node that ran it can tell that this is no new job: so it says that it is over, and never runs it
again for that.
"""

from __future__ import annotations

from .ledger import Ledger
from .lifecycle import Event, Phase, phase_of
from .pools import Tasks
from .record import END_STATES, Record, is_dead

__all__ = ["Forgotten"]


class Forgotten:
    """`since` (wall time) is when the memory of this node begins; 0.0 if that was before its last start."""

    def __init__(self, ledger: Ledger, tasks: Tasks, since: float) -> None:
        self._ledger = ledger
        self._tasks = tasks
        self._since = since

    def is_one(self, record: Record) -> bool:
        """Whether it tells of such a run: only this node wrote of it (rev 1 and up), and would know it if it lived.

        What is younger than `state.expire` was not forgotten but lost, by a power cut or without a disk, and so was
        what is older than this node's memory: the usual rules are for these.
        """
        status = record.status
        if record.spec.id in self._ledger.table or status.node != self._ledger.name or not status.rev:
            return False
        if status.state in END_STATES or self._tasks.of_job(record.spec.id):
            return False
        return status.ts >= self._since and self._ledger.is_old(record)

    def end(self, jid: str) -> None:
        """Tell those who take it for live that it is over. Nobody can tell any more how it ended."""
        ledger = self._ledger
        record = ledger.table.get(jid)
        assert record is not None
        if is_dead(record):
            ledger.advance(record, Event.KILL, error="killed", end_ts=ledger.wall)
        else:
            if phase_of(record.status) is not Phase.RUNNING:
                record = ledger.advance(record, Event.START, pid=None, start_ts=None)
            error = f"it ended on {ledger.name} longer ago than `state.expire`: how is not known any more"
            ledger.advance(record, Event.FAIL, rc=None, error=error, end_ts=None)
        ledger.ended.pop(jid, None)  # `state.history` has had its end
