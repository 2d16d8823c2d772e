"""Jobs that ended, and expired here, and that a node which was away for longer than `state.expire` takes for live.

Only the node that may write of a job now can tell that it is not new: its owner, or its submit node where it has none.
That one never runs it again, and tells that it is over. Who may have missed an end asks: it tells of the job once more.
"""

from __future__ import annotations

from .ledger import Ledger
from .lifecycle import Event, is_resubmitted, may_expire
from .pools import Tasks
from .record import END_STATES, Record

__all__ = ["Forgotten"]


def _writer_of(record: Record) -> str:
    """The node that is to write of a job next, and would know it if it were not over.

    Of an assignment that is not answered yet (rev 0) its node may never have heard: there it is the submit node.
    """
    status = record.status
    if status.node is None or status.state in END_STATES:
        return record.spec.submit_node
    return status.node if status.rev else status.epoch[1]


def _has_lent(record: Record, name: str) -> bool:
    """Whether the job lives on a lease of this node, which may have given it to another one since, and knows."""
    return record.status.leased and name == record.spec.submit_node == record.status.epoch[1]


def _written_at(record: Record, name: str) -> float:
    """When this node would have known it at the latest, by its own clock where there is such a time.

    To a submit node only the spec tells: others may write of a run just now that it has forgotten.
    """
    spec, status = record.spec, record.status
    if status.node == name and (own := max(status.claim_ts or 0.0, status.start_ts or 0.0)):
        return own
    return spec.ts if spec.submit_node == name else max(spec.ts, status.ts)


class Forgotten:
    """`since` (wall time) is when the memory of this node begins; 0.0 if that was before its last start."""

    def __init__(self, ledger: Ledger, tasks: Tasks, since: float) -> None:
        self._ledger = ledger
        self._tasks = tasks
        self._since = since

    def is_one(self, record: Record) -> bool:
        """Whether it is this node that would know it if it were not over.

        What is younger than `state.expire`, or older than this node's memory, was not forgotten but lost, by a power
        cut or without a disk: the usual rules are for these.
        """
        name, ours = self._ledger.name, self._ledger.table.get(record.spec.id)
        if may_expire(record) or self._tasks.of_job(record.spec.id):
            return False
        # What is here of it may have come back just now, from others who knew less of it than this one.
        if ours is not None and (not may_expire(ours) or record.status.key <= ours.status.key):
            return False
        if name != _writer_of(record) and not _has_lent(record, name):
            return False
        return _written_at(record, name) >= self._since and self._is_old(record, 1.0)

    def may_be_one(self, record: Record) -> bool:
        """Whether only its submit node can tell: an old assignment to this node, never answered as it seems.

        By half of `state.expire`: its time is by another clock, and all that comes of a doubt is a delay.
        """
        status = record.status
        is_unanswered = status.node == self._ledger.name and not status.rev and status.state not in END_STATES
        return is_unanswered and self._is_old(record, 0.5)

    def may_be_over(self, record: Record) -> bool:
        """Whether it ended, perhaps, and only here that is not known any more: who knows better is to answer.

        The one that we have it from may hear of the end from others in the same moment, and would not pass it on.
        """
        return not may_expire(record) and not is_resubmitted(record) and self._is_old(record, 0.5)

    def _is_old(self, record: Record, part: float) -> bool:
        """Whether it was written before such a part of `state.expire`."""
        ledger = self._ledger
        return _written_at(record, ledger.name) < ledger.wall - part * ledger.settings.expire

    def end(self, jid: str) -> None:
        """Tell those who take it for live that it is over, by a kill, so that nothing follows from it."""
        ledger = self._ledger
        record = ledger.table.get(jid)
        assert record is not None
        record = ledger.change_spec(record, killed_generation=record.spec.generation)
        if record.spec.generation > record.status.generation:
            record = ledger.advance(record, Event.RERUN)
        is_ours = record.status.node in (None, ledger.name)  # or else its node carries the kill out
        if record.status.state not in END_STATES and is_ours:
            error = (
                f"it is older than the `state.expire` of {ledger.name}, where it is not known any more: so it has ended"
            )
            ledger.advance(record, Event.KILL, error=error, end_ts=None)
        ledger.ended.pop(jid, None)  # `state.history` has had its end

    def answer(self, record: Record) -> None:
        """Somebody tells something old of a job of which more is known here: tell that once more.

        Not only if it is ours: what says nothing new is not passed on to those who could tell.
        """
        ours = self._ledger.table.get(record.spec.id)
        if ours is not None and record.status.key < ours.status.key and self._is_old(record, 0.5):
            self._ledger.tell_again(record.spec.id)

    def ask(self, names: set[str]) -> None:
        """These were away, or are new here: let them hear again of old jobs of which they are to write."""
        ledger = self._ledger
        for jid in ledger.table.ages.live_since(ledger.wall - ledger.settings.expire / 2):
            record = ledger.table.get(jid)
            assert record is not None
            is_theirs = record.status.node in names or record.spec.submit_node in names
            if is_theirs and self.may_be_over(record):
                ledger.tell_again(jid)
