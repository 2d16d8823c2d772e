"""What a Client knows of all jobs: the node's table, with the caller's own writes on top until the node has them.

One lock guards everything here; no code of the user, and no I/O, runs under it. The I/O thread writes what the node
tells (`apply`, `acknowledge`, …); any thread reads and queues writes. Who waits for the end of a job is found by the
job's id, so that a change costs nothing to those who wait for another.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Container, Iterable
from typing import Any

import msgspec

from meeseeks.core.record import END_STATES, NEW, Record, is_lost, jobinfo, merge, view_state
from meeseeks.core.table import Table
from meeseeks.errors import MeeseeksError

from .outputs import Outputs
from .settings import Place
from .shown import UNKNOWN, answered, check_change, is_final, may_run, overlaid, provisional, refused, was_refused
from .unknown import UNKNOWN_FOR
from .watchers import Watcher, Watchers
from .whole import put_together, whole
from .writes import Errand, Outbox, Write

__all__ = ["Cache", "Info", "is_final"]

_log = logging.getLogger(__name__)

Info = dict[str, Any]
_EXPIRE_BATCH = 1000


class Cache:
    """Records by id, each with the node's seq at which it was heard."""

    def __init__(self, expire: float) -> None:
        self.lock = threading.RLock()  # a signal handler may come in between, and ask for something
        self.changed = threading.Condition(self.lock)
        """Notified when a write is settled, a sync is complete, or the views of the mesh are new."""
        self.expire = expire
        self.synced = False
        """The node's whole table has been read once."""
        self.round_wanted = 0
        self.round_done = 0
        """Full checks that `wait` asked for, and those that were completed."""
        self.nodes: dict[str, Info] | None = None
        self.pools: dict[str, dict[str, int | None]] | None = None
        self._table = Table()
        self._seqs: dict[str, int] = {}
        self._truth: dict[str, Record] = {}  # the node's record of jobs that are shown otherwise
        self._outbox = Outbox()
        self._watchers = Watchers()
        self._vanished: dict[str, float] = {}  # jobs that are here and unknown to the node -> since when
        self._outputs = Outputs()
        self._applied = 0
        self._staying = 0  # of the jobs that ended long ago: so many more must be looked at to find those that may go

    # --- reading

    def __contains__(self, jid: object) -> bool:
        return jid in self._table

    def info(self, jid: str) -> Info | None:
        """The jobinfo of a job, or None."""
        return self.infos([jid]).get(jid)

    def infos(self, jids: Iterable[str]) -> dict[str, Info]:
        """The jobinfo of each of these jobs that is there."""
        with self.lock:
            found = [
                (record, self._seqs.get(jid, 0), self._outputs.of(record), self._is_unknown(jid), self._truth.get(jid))
                for jid in jids
                if (record := self._table.get(jid)) is not None
            ]
        told = {}
        for record, seq, output, unknown, truth in found:
            info = told[record.spec.id] = {**jobinfo(record, seq), **output}
            if unknown:
                info["state"] = UNKNOWN
            elif may_run(record, truth):
                info["active"] = True
        return told

    def select(self, filters: dict[str, Any]) -> list[str]:
        """The ids of the jobs that match; InvalidRequest for an unknown filter."""
        with self.lock:
            found, wanted = self._table.select(filters), filters.get("state")
            if wanted is None:
                return found
            doubtful = {jid for jid in (*self._vanished, *self._outbox.in_doubt()) if self._is_unknown(jid)}
            if wanted != UNKNOWN:
                return [jid for jid in found if jid not in doubtful]
            rest = {key: value for key, value in filters.items() if key != "state"}
            return [jid for jid in self._table.select(rest) if jid in doubtful]

    def is_group(self, jid: str) -> bool:
        """Whether the id stands for the jobs of one submit to several nodes."""
        return bool(self._table.group(jid))

    def keep_output(self, jid: str, info: Info) -> None:
        """Remember the output of an ended job, which was fetched because it is too large for a status."""
        with self.lock:
            record = self._table.get(jid)
            if record is not None:
                self._outputs.keep(record, info)

    # --- waiting

    def watch(self, jid: str, watcher: Watcher) -> None:
        """Call `watcher` when the job is over: at once if it is."""
        with self.lock:
            record = self._table.get(jid)
            if record is not None and self._is_over(record):
                watcher(jid)
            else:
                self._watchers.add(jid, watcher)

    def unwatch(self, jid: str, watcher: Watcher) -> None:
        """Forget a watcher, if it is still there."""
        with self.lock:
            self._watchers.remove(jid, watcher)

    def wait_until(self, ready: Callable[[], bool], deadline: float, check: Callable[[], None]) -> bool:
        """Wait until `ready()` (called under the lock); False at the deadline. `check` raises if nothing will come."""
        with self.changed:
            while not ready():
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                check()
                self.changed.wait(min(left, 1.0))
            return True

    def last_serial(self) -> int:
        """The serial of the last write that is not settled; 0 if all are."""
        with self.lock:
            return self._outbox.last

    def settled(self, serial: int) -> bool:
        """Whether all writes up to this one are. For `wait_until`: the lock is held."""
        return (self._outbox.first or serial + 1) > serial

    def unsettled(self) -> list[str]:
        """The ids of the jobs with writes that the node has not acknowledged."""
        with self.lock:
            return list(dict.fromkeys(write.jid for write in self._outbox if write.seq is None))

    # --- writing, by the user

    @whole
    def submit(self, jid: str, request: msgspec.Raw, changes: Info, node: str) -> Info:
        """Queue a checked submit, show its effect, and return the jobinfo as it is shown."""
        record = self._table.get(jid)
        if record is not None and {"pool", "args"} <= changes.keys() and (jid in self._vanished or was_refused(record)):
            self._drop(jid)
            record = None
        write = Write("submit", jid, request, changes, fresh=record is None)
        if record is None:
            self._outbox.add(write)  # first: what is shown will be sent
            self._table.apply(provisional(jid, changes, node, time.time()), time.monotonic())
        else:
            check_change(record, self._truth.get(jid), changes)
            if changes.get("state") == NEW and view_state(record) in END_STATES:
                write.generation = record.spec.generation
            self._queue(write)
        shown = self._table.get(jid)
        assert shown is not None
        return jobinfo(shown, self._seqs.get(jid, 0))

    @whole
    def kill(self, jids: Iterable[str]) -> list[str]:
        """Queue the kill of each of these that is there and may run, if only where it was lost; returns those there."""
        found = [jid for jid in dict.fromkeys(jids) if jid in self._table]
        for jid in found:
            if (record := self._table.get(jid)) is not None and (is_lost(record) or not is_final(record)):
                self._queue(Write("kill", jid, None, {}, fresh=False))
        return found

    def mend(self) -> None:
        """Put together what an exception in the midst of a write has left. Costs the table."""
        self._table = put_together(self._table, self._truth, self._outbox)

    def _queue(self, write: Write) -> None:
        self._outbox.add(write)
        if (record := self._table.get(write.jid)) is not None:
            self._truth.setdefault(write.jid, record)
            self._show(write.jid)

    # --- delivering, by the I/O thread

    def next_batch(self, at: Place, limit: int, limit_bytes: int) -> list[Write]:
        """The next writes that go into one request to the node at this place: of one kind, each job once."""
        with self.changed:
            done = [write for write in self._outbox if write.seq is None and self._is_done_already(write)]
            for write in done:
                write.seq = self._applied
            self._settle(done)
            # Of a job that vanished the node would not know which one is meant.
            batch = self._outbox.next_batch(at, limit, limit_bytes, lambda w: not w.fresh and w.jid in self._vanished)
            for write in batch:
                write.asked = True
        return batch

    def _is_done_already(self, write: Write) -> bool:
        """Whether a rerun that was sent, and not answered, can be seen: a second one would be one run too many."""
        record = self._truth.get(write.jid)
        if write.generation is None or write.sent_to is None or record is None:
            return False
        return record.spec.generation > write.generation

    def acknowledge(self, batch: list[Write], infos: dict[str, Any]) -> None:
        """The node has carried these out; what it changed is, or will be, in the stream up to each job's seq.

        Of a job without an info our node has not heard yet: what was written to it later waits, a kill above all.
        """
        with self.changed:
            for write in batch:
                info, known = infos.get(write.jid), self._truth.get(write.jid) or self._table.get(write.jid)
                is_provisional = known is not None and not known.status.epoch[1]
                write.seq = info["seq"] if isinstance(info, dict) else 0
                if info and write.fresh and write.seq <= self._applied and is_provisional:
                    # It was there, had left this cache, and was not changed: no broadcast will tell how it is.
                    self._learn(write.jid, answered(info))
                elif known and not is_final(known) and not info and (is_provisional or not write.fresh):
                    self._wait_for_word(write)
            self._settle(batch)

    def _wait_for_word(self, write: Write) -> None:
        if any(other.fresh and other.seq is None for other in self._outbox.of(write.jid)):
            return  # a new job of this id is still to be sent: this write was meant for an earlier one
        self._vanished.setdefault(write.jid, time.monotonic())
        if not write.fresh:
            write.seq, write.asked = None, False

    def retry(self, batch: list[Write], sent_to: Place | None) -> None:
        """No answer came: they are to be asked again, of the node that may have them by now, if there is one."""
        with self.lock:
            for write in batch:
                write.asked = False
                write.sent_to = write.sent_to if sent_to is None else sent_to

    def refuse(self, batch: list[Write], error: MeeseeksError) -> None:
        """The node will not carry these out. Of several, each is asked again by itself, to know which it meant."""
        with self.changed:
            if len(batch) > 1:
                for write in batch:
                    write.asked, write.alone, write.sent_to = False, True, None
                return
            write = batch[0]
            _log.error("%s of job %s was refused: %s", write.kind, write.jid, error)
            record = self._table.get(write.jid)
            if write.fresh and record is not None:
                self._learn(write.jid, refused(self._truth.get(write.jid, record), str(error), time.time()))
            self._forget_write(write)
            self.changed.notify_all()

    def _settle(self, writes: Iterable[Write]) -> None:
        done = [write for write in writes if write.seq is not None and write.seq <= self._applied]
        for write in done:
            self._forget_write(write)
        if done:
            self.changed.notify_all()

    def _forget_write(self, write: Write) -> None:
        self._outbox.remove(write)
        if write.jid in self._truth:
            self._show(write.jid)

    def strays(self, here: Place, apart_from: Container[Errand]) -> dict[Errand, list[Write]]:
        """What nodes other than `here` may have and have not answered, to be asked for there."""
        with self.lock:
            return self._outbox.strays(here, apart_from)

    def _is_unknown(self, jid: str) -> bool:
        """Whether nobody can say how a job is: a node that is not reached may have made it, or has it for itself."""
        if jid in self._vanished:
            return self._is_elsewhere(jid)
        return any(write.happens_once and write.sent_to and write.seq is None for write in self._outbox.of(jid))

    def _is_elsewhere(self, jid: str) -> bool:
        """Of a job that our node does not know: whether the node that took it is away, and may have it."""
        record = self._truth.get(jid) or self._table.get(jid)
        if record is None or is_final(record):
            return False
        status = (self.nodes or {}).get(record.spec.submit_node)
        return status is None or not status["online"]

    # --- what the node tells, by the I/O thread

    def apply(self, records: Iterable[Record], seq: int, *, old_before: float | None = None) -> None:
        """Merge records in. With `old_before` (wall time), jobs that ended before it and are new here are left out."""
        now = time.monotonic()
        with self.changed:
            for record in records:
                jid = record.spec.id
                self._vanished.pop(jid, None)
                truth = self._truth.get(jid)
                if truth is not None:
                    self._truth[jid] = merge(truth, record)
                    self._show(jid)
                elif jid in self._table or not self._is_old(record, old_before):
                    self._table.apply(record, now)
                else:
                    continue
                self._seqs[jid] = seq
                for write in self._outbox.of(jid):
                    # Whichever node it was sent to, the job is there: that is as good as the answer.
                    if write.fresh and write.seq is None and (write.asked or write.sent_to is not None):
                        write.seq = seq
                self._tell(jid)

    def stand_at(self, seq: int, *, renumbered: bool = False) -> None:
        """Everything up to this seq is here. `renumbered`: in a new life, which older acknowledgements don't fit."""
        with self.changed:
            self._applied = seq
            waiting = [write for write in self._outbox if write.seq is not None]
            for write in waiting:
                write.seq = 0 if renumbered else write.seq
            self._settle(waiting)

    def keep_only(self, jids: set[str]) -> None:
        """The node has these and no others: the rest will be forgotten, but for jobs that it was not told of yet.

        Not at once: a node that keeps its table in memory comes back without it, and gets it from its peers.
        """
        with self.lock:
            gone = [record.spec.id for record in self._table if record.spec.id not in jids]
            now, untold = time.monotonic(), {write.jid for write in self._outbox if write.fresh and write.seq is None}
            self._vanished = {jid: self._vanished.get(jid, now) for jid in gone if jid not in untold}

    def upkeep(self) -> None:
        """Forget jobs that ended more than `expire` ago; not one that is killed and still active, or is run again."""
        with self.lock:
            old = self._table.ages.expired(time.monotonic() - self.expire, self._staying + _EXPIRE_BATCH)
            gone = [jid for jid in old if jid not in self._outbox and (job := self._table.get(jid)) and is_final(job)]
            self._staying = len(old) - len(gone)
            for jid in gone:
                self._drop(jid)

    def find_missing(self, heard_at: float) -> None:
        """Forget what was unknown for a while to the node, last heard at this time, and tell those who wait for it.

        Not what a node that is away may have: that reads 'unknown', and is waited for.
        """
        with self.lock:
            for jid, since in list(self._vanished.items()):
                if heard_at - since >= UNKNOWN_FOR and not self._is_elsewhere(jid):
                    self._drop(jid)
            for jid in self._watchers.tell_missing(self._table.__contains__, heard_at):
                _log.warning("job %s is not known any more", jid)

    def _is_old(self, record: Record, before: float | None) -> bool:
        if before is None or record.spec.id in self._watchers or record.spec.id in self._outbox:
            return False
        return is_final(record) and record.status.ts < before

    def _tell(self, jid: str) -> None:
        if jid in self._watchers and (record := self._table.get(jid)) is not None and self._is_over(record):
            self._watchers.tell(jid)

    def _is_over(self, shown: Record) -> bool:
        """Whether a job is over, as it is shown, and as the node has it: a kill that is on its way ends nothing yet."""
        truth = self._truth.get(shown.spec.id)
        return is_final(shown) and (truth is None or is_final(truth))

    def _show(self, jid: str) -> None:
        """Show the node's record of a job with the writes on top; once there are none, the record itself."""
        writes = self._outbox.of(jid)
        self._put(overlaid(self._truth[jid], writes) if writes else self._truth.pop(jid))
        self._tell(jid)

    def _learn(self, jid: str, record: Record) -> None:
        """Have this as what the node says of a job, whatever was taken for that."""
        if jid in self._truth:
            self._truth[jid] = record
            self._show(jid)
        else:
            self._put(record)
            self._tell(jid)

    def _put(self, record: Record) -> None:
        """Show just this record, even if what is shown now would win a merge."""
        if self._table.get(record.spec.id) == record:
            return
        if record.spec.id in self._table:
            self._table.forget(record.spec.id)
        self._table.apply(record, time.monotonic())

    def _drop(self, jid: str) -> None:
        if jid in self._table:
            self._table.forget(jid)
        self._vanished.pop(jid, None)
        self._seqs.pop(jid, None)
        self._truth.pop(jid, None)
        self._outputs.forget(jid)
