"""A whole node, decided: events and the time go in, effects come out. No socket, file, clock or thread is in here.

A turn is `begin(now, wall)`, then any number of events (requests, broadcasts, snapshots, executor events), then
`finish()`, which looks at every job that changed, starts and assigns what it can, and returns the effects. The shell
stores `effects.records` before it lets anything else of them, or any reply of the turn, leave the process.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from meeseeks.errors import InvalidRequest

from .effects import ALL, OWN, Beat, Effects, Event, Snapshot, Update
from .forgotten import Forgotten
from .ledger import Ledger
from .mesh import Mesh
from .owner import Owner
from .record import Record
from .requests import Requests
from .settings import Settings
from .snapshots import fitting, tail
from .submitter import Submitter

__all__ = ["Endpoints", "NodeState"]

_EXPIRE_BATCH = 250
_EXPIRE_PAUSE = 0.025
_SETTLE_MAX = 1000
"""So many jobs are looked at in one turn, some 30 us each; the rest in the next, which follows at once.

After a start, all that is not over is to be looked at.
"""
_LISTEN_BEATS = 3
"""For so many heartbeats a node that came back starts and assigns nothing."""
_SEQ_GAP = 1 << 30
"""More than a node can change while writes are unsynced, or wait for room on the disk: hours of a whole mesh's changes.
Some eight million starts of one store still fit into a Seq."""


class Endpoints:
    """Where this node can be reached, for its heartbeats. A blank address is 'where you see me'."""

    def __init__(self, address: str = "", port: int = 0, pub_port: int = 0, version: str = "") -> None:
        self.address, self.port, self.pub_port, self.version = address, port, pub_port, version


class NodeState:
    """One node. `requests` has what clients may ask; the rest is here."""

    def __init__(
        self,
        settings: Settings,
        incarnation: str,
        now: float,
        wall: float,
        *,
        endpoints: Endpoints | None = None,
        boot: int = 0,
    ) -> None:
        """`incarnation` names the life of its store; `boot` says how often that has been started before."""
        self.settings = settings
        self.incarnation = incarnation
        self.endpoints = endpoints or Endpoints()
        self.ledger = Ledger(settings, now, wall)
        self.table = self.ledger.table
        self.mesh = Mesh(settings, incarnation, now, boot)
        self.owner = Owner(self.ledger, self.mesh)
        self.forgotten = Forgotten(self.ledger, self.owner.tasks, since=0.0 if boot else wall)
        self.submitter = Submitter(self.ledger, self.mesh, self.owner)
        self.requests = Requests(self.ledger, self.mesh, self.owner, self.submitter)
        self.info: dict[str, float] = {}
        """Figures of the daemon for its heartbeats."""
        self.wanted_topics = {OWN, ALL}
        """Topics that somebody listens to: the others are not put together."""
        self.expired: list[str] = []
        """Jobs forgotten since the shell last looked: their output may go too."""
        self._published = {OWN: 0, ALL: 0}
        self._last_beat_at: float | None = None
        self._welcome = False
        self._is_expiring = False
        self._greeted = 0
        self._settled = 0
        self._listens_until = now
        self._is_restored = False

    def restore(self, rows: Iterable[tuple[int, Record]], seq: int) -> None:
        """Take over what the store has: (seq, record) in the order of seq, and the last seq. Before the first turn."""
        for at, record in rows:
            self.ledger.restore(record, at)
        # A power cut may have taken the last changes, whose numbers are known to others: none of them is used again.
        self.table.seq = seq + _SEQ_GAP
        self._published = dict.fromkeys(self._published, self.table.seq)
        self._is_restored = True

    # --- a turn

    def begin(self, now: float, wall: float) -> None:
        """A turn starts. A long pause since the last one means that this process was frozen, or starved."""
        if now - self.ledger.now > max(3 * self.settings.heartbeat, self.settings.timeout / 2):
            self.mesh.on_wakeup(now)
        self.ledger.begin(now, wall)
        self._settled = 0
        if self._is_restored:
            self._is_restored = False
            self._listen(now)

    def _listen(self, now: float) -> None:
        """Our jobs may have been killed or moved meanwhile: hear of it first, then start them.

        The time for it begins with the first turn: to read a large store may take longer.
        """
        for record in filter(self.forgotten.may_be_one, list(self.table)):
            self._doubt(record)
        self._listens_until = now + _LISTEN_BEATS * self.settings.heartbeat

    def finish(self) -> Effects:
        """The turn ends: decide on all that changed, and say what is to be done."""
        self._upkeep()
        self.ledger.run_timers()
        self.owner.starter.on_renewed(self.mesh.renewed)
        self.mesh.renewed.clear()
        for jid in self.mesh.last_words:
            self.ledger.tell_again(jid)
        self.mesh.last_words.clear()
        self._settle()
        if self.ledger.now >= self._listens_until:
            self.submitter.place_waiting()
            self._settle()
            self.owner.start_ready()
        return self._effects()

    @property
    def next_turn_at(self) -> float:
        """When a turn is due even if nothing happens."""
        if self.ledger.dirty or self.submitter.has_more:
            return self.ledger.now
        beat_at = self.ledger.now if self._last_beat_at is None else self._last_beat_at + self.settings.heartbeat
        timer_at = self.ledger.next_timer_at
        return beat_at if timer_at is None else min(beat_at, timer_at)

    @property
    def is_idle(self) -> bool:
        """Whether no task is left at the executor, and no job to look at (what a node that is stopping waits for)."""
        return not self.owner.tasks and not self.ledger.dirty

    # --- events

    def on_update(self, update: Update) -> None:
        """A broadcast came in."""
        self._merge(self.mesh.on_update(update, self.ledger.now))

    def on_snapshot(self, snapshot: Snapshot) -> None:
        """An answer to one of our syncs came in."""
        self._merge(self.mesh.on_snapshot(snapshot, self.ledger.now))

    def on_met(self, name: str, incarnation: str, host: str, port: int, pub_port: int) -> None:
        """A node said hello, or answered ours. InvalidRequest where its name is taken."""
        self.mesh.on_met(name, incarnation, host, port, pub_port, self.ledger.now)

    def on_subscribed(self) -> None:
        """Somebody subscribed: show at once where the streams stand, so that a missed start is noticed."""
        self._welcome = True

    def on_executor(self, events: list[Event]) -> None:
        """The executor tells something."""
        self.owner.on_events(events)

    def on_executor_gone(self) -> None:
        """The executor died."""
        self.owner.on_executor_gone()

    def configure(self, settings: Settings) -> None:
        """Take over changed settings (all but the name) while running."""
        if settings.name != self.settings.name:
            raise InvalidRequest("a running node keeps its name")
        # Leases that others hold were given for the time that was agreed then: nobody is judged before that is over.
        shorter = self.settings.lost_after - settings.lost_after
        if shorter > 0.0:  # counts on from an earlier such change: leases may be as old as that
            self.mesh.awake_at = max(self.mesh.awake_at, self.ledger.now) + shorter
        self.settings = self.ledger.settings = self.mesh.settings = settings
        self.owner.set_pools(settings.pools)

    def stop(self) -> None:
        """Take nothing more, start nothing more, end what runs: `is_idle` tells when that is done."""
        self.owner.stop()
        self.owner.beat_due = True

    def nodes(self) -> dict[str, dict[str, Any]]:
        """Every node that this one knows, itself included, with its status."""
        return self.requests.nodes(self._beat(self.mesh.number))

    def sync(self, incarnation: str, since: int, origin: str | None, limit: int) -> Snapshot:
        """Answer a sync: of our own stream, or of what we heard of a silent node."""
        if origin is not None:
            return tail(self.settings.name, self.table, self.mesh, origin, incarnation, since)
        if incarnation != self.incarnation or since > self.table.seq:
            since = 0
        records, seq = self.table.changes_since(since, limit)
        count = fitting(records)
        if count < len(records):
            records = records[:count]
            seq = self.table.seq_of(records[-1].spec.id)
        more = seq < self.table.seq
        beats = [] if more else [self._beat(self.mesh.number), *self._covered_beats()]
        return Snapshot(
            node=self.settings.name,
            incarnation=self.incarnation,
            since=since,
            seq=seq,
            more=more,
            records=records,
            beats=beats,
        )

    def halves(self, update: Update) -> tuple[Update, Update]:
        """One broadcast as two that follow each other, for one that is too large."""
        records = sorted(update.records, key=lambda record: self.table.seq_of(record.spec.id))
        middle = len(records) // 2
        at = max(update.prev, self.table.seq_of(records[middle - 1].spec.id))
        first = msgspec.structs.replace(update, records=records[:middle], seq=at, beats=[])
        return first, msgspec.structs.replace(update, records=records[middle:], prev=at)

    # --- inside

    def _merge(self, records: list[Record]) -> None:
        for record in records:
            if self.ledger.is_stale(record):
                continue
            is_new = record.spec.id not in self.table
            is_over, is_doubtful = self.forgotten.is_one(record), is_new and self.forgotten.may_be_one(record)
            if not self.ledger.merge(record):
                self.forgotten.answer(record)
            elif is_over:
                self.forgotten.end(record.spec.id)
            elif is_doubtful:
                self._doubt(record)
            elif is_new and self.forgotten.may_be_over(record):
                self.ledger.tell_again(record.spec.id)

    def _doubt(self, record: Record) -> None:
        self.ledger.tell_again(record.spec.id)  # its submit node may not hear of it from anybody else
        self.owner.delay(record, _LISTEN_BEATS * self.settings.heartbeat, until_heard=True)

    def _upkeep(self) -> None:
        """Once a heartbeat: everything that silence and age may lead to."""
        now = self.ledger.now
        if self._last_beat_at is not None and now < self._last_beat_at + self.settings.heartbeat:
            return
        self._last_beat_at = now
        self.owner.beat_due = True
        self.mesh.tick(now)
        self.submitter.judge_lost_nodes()
        self.owner.recall()
        if self.mesh.returned:  # together, and not one by one as they come
            self.forgotten.ask(self.mesh.returned)
            self.mesh.returned.clear()
            self._greeted = 0
        if any(pool.ready for pool in self.owner.pools.values()):
            self.owner.rebalance(self.submitter.room_elsewhere())
        # Not at a start, before others have told what their users have asked for meanwhile: a rerun is no new job.
        if not self._is_expiring and now >= self._listens_until:
            self._expire()

    def _expire(self) -> None:
        """Forget some of what has expired, and go on in a moment if there may be more: no turn takes long for it."""
        gone, kept = self.ledger.expire(_EXPIRE_BATCH, self._unheard_by)
        self.expired.extend(gone)
        self._is_expiring = len(gone) + kept == _EXPIRE_BATCH
        if self._is_expiring:
            self.ledger.after(_EXPIRE_PAUSE, self._expire)

    def _unheard_by(self, name: str) -> float:
        """For how long another node has not confirmed that it hears this one; infinite if it never did."""
        peer = self.mesh.peers.get(name)
        return self.ledger.now - peer.lease_at if peer is not None else float("inf")

    def _settle(self) -> None:
        """Look at every job that changed, until nothing changes any more, or it is enough for one turn."""
        dirty = self.ledger.dirty
        while dirty and self._settled < _SETTLE_MAX:
            self._settled += 1
            jid, _ = dirty.popitem(last=False)
            record = self.table.get(jid)
            self.owner.fence(jid, record)
            if record is None:
                continue
            name, spec, status = self.settings.name, record.spec, record.status
            mine = status.node == name and status.state in ("new", "running")
            if not mine:
                self.owner.forget_line(jid)
            if spec.submit_node == name:
                self.submitter.act(record)
            else:
                self.submitter.waiting.remove(jid)
            if mine and self.table.get(jid) is record:
                self.owner.act(record)

    def _effects(self) -> Effects:
        changed = self.ledger.changed
        effects = Effects(
            records=[record for jid in changed if (record := self.table.get(jid)) is not None],
            ended=list(self.ledger.ended.values()),
            syncs=self.mesh.syncs,
            links=self.mesh.links,
        )
        self._publish(effects, changed)
        effects.orders = self.owner.take_orders()
        self.mesh.syncs, self.mesh.links, self.mesh.passed_on = [], [], []
        self.ledger.changed, self.ledger.ended = {}, {}
        return effects

    def _publish(self, effects: Effects, changed: dict[str, bool]) -> None:
        """One message a topic. The own heartbeat, whenever it is due, is on both."""
        beats = []
        if self.owner.beat_due or len(self.mesh.returned) > self._greeted:
            # At once where a node is heard for the first time: before it knows that we hear it, it gives us no job.
            self._greeted = len(self.mesh.returned)
            beats.append(self._beat(self.mesh.beat_sent(self.ledger.now)))
            self.owner.beat_due = False
        elif self._welcome and self.mesh.number:
            beats.append(self._beat(self.mesh.number))
        self._welcome = False
        own = [record for record in effects.records if changed[record.spec.id]]
        for topic, records, heard in ((OWN, own, []), (ALL, effects.records, self.mesh.passed_on)):
            if not (records or beats or heard):
                continue
            update = self._update(topic, records, beats + heard)
            if topic in self.wanted_topics:
                effects.updates.append(update)

    def _update(self, topic: str, records: list[Record], beats: list[Beat]) -> Update:
        prev, self._published[topic] = self._published[topic], self.table.seq
        return Update(
            node=self.settings.name,
            incarnation=self.incarnation,
            topic=topic,
            prev=prev,
            seq=self.table.seq,
            records=records,
            beats=beats,
        )

    def _beat(self, number: int) -> Beat:
        now, mesh, at = self.ledger.now, self.mesh, self.endpoints
        return Beat(
            node=self.settings.name,
            incarnation=self.incarnation,
            number=number,
            seq=self.table.seq,
            ts=self.ledger.wall,
            acks=mesh.acks(now),
            timeout=self.settings.timeout,
            lost_after=self.settings.lost_after,
            loadavg=self.submitter.loadavg,
            version=at.version,
            address=at.address,
            port=at.port,
            pub_port=at.pub_port,
            pools=self.owner.pool_status(),
            sees=mesh.sees(now),
            links=mesh.linked(now),
            tails=mesh.tails(now),
            leaving=self.owner.stopping,
            info=self.info,
        )

    def _covered_beats(self) -> list[Beat]:
        found = []
        for peer in self.mesh.peers.values():
            if peer.covered is not None and self.mesh.is_online(peer.name, self.ledger.now):
                found.append(peer.covered)
        return found
