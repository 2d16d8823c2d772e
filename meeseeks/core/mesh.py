"""The other nodes, as one node sees them: who is heard, what was missed, whom to follow on which topic, and leases.

Three rules meet here, each with its reason in DESIGN sections 3 and 4:

- A stream (the subscription to one peer) is followed by seq; whoever misses something asks for a sync.
- A heartbeat counts for liveness as soon as it is heard, by whatever way. It counts for a lease only once everything
  that its sender had changed by then is applied here (it is *covered*); only covered heartbeats are passed on.
- A lease counts from the moment when this node *sent* the heartbeat that the lessor acknowledges.
"""

from __future__ import annotations

import msgspec

from meeseeks.errors import InvalidRequest

from .effects import ALL, OWN, Beat, Dial, Link, Snapshot, SyncWanted, Unlink, Update
from .names import Names, NameTaken
from .peer import NEVER_AT, TAIL_LENGTH, Peer, Unwanted
from .record import Record
from .settings import Settings

__all__ = ["Mesh"]

_SYNC_RETRY = 2.0
_DIAL_RETRY = 5.0


class Mesh:
    """All peers of one node. Times are monotonic, and `now` comes with each call."""

    def __init__(self, settings: Settings, incarnation: str, now: float, boot: int = 0) -> None:
        self.settings = settings
        self.incarnation = incarnation
        self.number = boot << 32
        """Of the last heartbeat. Each start of an incarnation counts from another base: no number is used twice."""
        self.peers: dict[str, Peer] = {}
        self.names = Names()
        self.awake_at = now
        """Since when this node hears without a break: nobody is judged by a silence that began before."""
        self.syncs: list[SyncWanted] = []
        self.links: list[Link | Unlink | Dial] = []
        self.last_words: dict[str, None] = {}
        """Jobs of which a life has told that is over, and its successor may know nothing of them."""
        self.passed_on: list[Beat] = []
        """Covered heartbeats of others, for the topic `all` of this turn."""
        self.unwanted: set[str] = set()
        """Peers that were taken out of the configuration, and not put in again since."""
        self.renewed: set[str] = set()
        """Lessors whose lease was renewed this turn."""
        self.returned: set[str] = set()
        """Nodes heard lately for the first time, or after half of `expire` (and some heartbeats)."""
        self._sent: dict[int, float] = {}
        self._asked_tails: set[tuple[str, str, int]] = set()

    # --- what the shell tells

    def on_met(self, name: str, incarnation: str, host: str, port: int, pub_port: int, now: float) -> None:
        """A node said hello, or answered ours. InvalidRequest where its name is taken."""
        self.check_name(name, incarnation)
        if name in self.unwanted:
            raise Unwanted(f"node {self.settings.name!r} was told to unlink from node {name!r}")
        peer = self.peers.get(name)
        if peer is not None and self._is_former(peer, incarnation, now):
            raise InvalidRequest(f"node {name!r} has begun a new life since: this hello is of an earlier one")
        if peer is not None and incarnation != peer.incarnation and self.is_alive(name, now):
            raise InvalidRequest(
                f"this mesh has a node named {name!r} already, at {peer.host}:{peer.port}: "
                "give each node its own `name`"
            )
        self.names.learn(name, incarnation)
        peer = self._peer(name, incarnation)
        moved = (peer.port, peer.pub_port) != (port, pub_port)
        # Another name of the same host is no move, as long as the node is heard at the one that we have.
        moved |= peer.host != host and now - peer.direct_at >= self.settings.timeout
        if moved or not peer.linked:
            peer.host, peer.port, peer.pub_port, peer.linked = host, port, pub_port, True
            self.links.append(Link(name, peer.topic, host, port, pub_port))
        # What it published while nobody listened is gone, and if it was away it has forgotten what it heard of others
        # that are silent now: ask for all that it has, its own or not.
        peer.applied, peer.synced = peer.complete, False
        self._want_sync(peer, now)

    def check_name(self, name: str, incarnation: str) -> None:
        """InvalidRequest if this is no life of a node that may have this name."""
        if name == self.settings.name:
            if incarnation == self.incarnation:
                raise InvalidRequest(f"node {name!r} is this node itself")
            raise NameTaken(f"this mesh has a node named {name!r} already: give each node its own `name`")
        self.names.check(name, incarnation)

    def on_update(self, update: Update, now: float) -> list[Record]:
        """A broadcast of a linked peer. Returns the records to apply: merging early does no harm, even behind a gap."""
        peer = self.peers.get(update.node)
        if peer is None or not peer.linked or self._is_former(peer, update.incarnation, now):
            return []
        if not self.names.fits(update.node, update.incarnation):
            return []
        if update.incarnation != peer.incarnation:
            peer = self._peer(update.node, update.incarnation)
        peer.direct_at = now
        peer.remember(update.seq, update.records)
        if update.topic == peer.topic and peer.synced and update.prev <= peer.applied:
            peer.applied = max(peer.applied, update.seq)
            if peer.topic == ALL:
                peer.complete = peer.applied
        elif update.topic == peer.topic and update.seq > peer.applied:
            self._want_sync(peer, now)
        for beat in update.beats:
            self._hear(peer, beat, update.seq, now)
        return update.records

    def on_snapshot(self, snapshot: Snapshot, now: float) -> list[Record]:
        """The answer to a sync, or a part of it. Returns the records to apply."""
        if snapshot.origin is not None:
            self._on_tail(snapshot)
            return snapshot.records
        if not self.names.fits(snapshot.node, snapshot.incarnation):
            return []
        peer = self.peers.get(snapshot.node)
        if peer is None or self._is_former(peer, snapshot.incarnation, now):
            return snapshot.records
        if snapshot.incarnation != peer.incarnation:
            peer = self._peer(snapshot.node, snapshot.incarnation)
        peer.asked_at = NEVER_AT
        peer.remember(snapshot.seq, snapshot.records)
        if snapshot.since <= peer.complete:
            peer.complete = max(peer.complete, snapshot.seq)
        is_gap = snapshot.since > peer.applied  # the question is out of date: we met again since, and start over
        if not is_gap:
            peer.applied = max(peer.applied, snapshot.seq)
        if snapshot.more:
            # A change of the peer's own that others have changed since stands further on in its table, and is no part
            # of its later broadcasts of topic `own`: none of these may count before the last part is here.
            peer.synced = False
        if snapshot.more or is_gap:
            self._want_sync(peer, now)
            return snapshot.records
        peer.synced = True
        for beat in snapshot.beats:
            self._hear(peer, beat, snapshot.seq, now)
        self._cover(peer)
        return snapshot.records

    def on_unlinked(self, name: str) -> None:
        """The configuration no longer names this peer: let it go, and don't take it back when it says hello."""
        self.unwanted.add(name)
        peer = self.peers.get(name)
        if peer is not None and peer.linked:
            peer.linked = False
            self.links.append(Unlink(name))

    def on_unreachable(self, name: str) -> None:
        """The shell has no connection to this peer, which gave a wrong address, or refuses us: until it says better."""
        peer = self.peers.get(name)
        if peer is not None:
            peer.linked = False

    def on_wakeup(self, now: float) -> None:
        """This process did not run for a while: what it did not hear meanwhile is no silence of others."""
        self.awake_at = max(self.awake_at, now)  # later than now while leases of an earlier `lost_after` may run

    # --- what this node sends

    def beat_sent(self, now: float) -> int:
        """The number of the heartbeat that is sent now."""
        self.number += 1
        self._sent[self.number] = now
        oldest = now - 2 * self.settings.lost_after
        while self._sent and next(iter(self._sent.values())) < oldest:
            del self._sent[next(iter(self._sent))]
        return self.number

    def acks(self, now: float) -> dict[str, tuple[str, int]]:
        """The last heartbeat heard of each node that is online."""
        return {
            peer.name: (peer.incarnation, peer.beat.number)
            for peer in self.peers.values()
            if peer.beat is not None and self.is_online(peer.name, now)
        }

    def tails(self, now: float) -> dict[str, tuple[str, int]]:
        """How far each silent peer was followed."""
        return {
            peer.name: (peer.incarnation, peer.reach)
            for peer in self.peers.values()
            if peer.reach and not self.is_alive(peer.name, now)
        }

    def sees(self, now: float) -> tuple[str, ...]:
        """The nodes that are online, as far as this one knows."""
        return tuple(sorted(name for name in self.peers if self.is_online(name, now)))

    def linked(self, now: float) -> tuple[str, ...]:
        """Those of them that this one follows itself, and hears without another node in between."""
        return tuple(sorted(name for name in self._direct(now) if self.is_online(name, now)))

    def tail_of(self, origin: str, incarnation: str, since: int) -> tuple[dict[str, int], str, int] | None:
        """The jobs that `origin` changed after its `since`, id -> its seq of that, with the life and seq they reach.

        None: what is remembered does not reach back so far.
        """
        peer = self.peers.get(origin)
        return peer.tail_since(incarnation, since) if peer is not None else ({}, incarnation, since)

    # --- what this node may conclude

    def quiet(self, name: str, now: float) -> float:
        """For how long a node has not been heard; infinite if it never was."""
        peer = self.peers.get(name)
        return now - peer.heard_at if peer is not None else float("inf")

    def is_alive(self, name: str, now: float) -> bool:
        """Whether it may get new jobs: heard within three heartbeats, and not leaving."""
        return self._is_heard(name, 3 * self.settings.heartbeat, now)

    def is_online(self, name: str, now: float) -> bool:
        """Whether it counts as there: heard within `timeout`, and not leaving."""
        return self._is_heard(name, self.settings.timeout, now)

    def _is_heard(self, name: str, within: float, now: float) -> bool:
        peer = self.peers.get(name)
        return peer is not None and peer.beat is not None and not peer.beat.leaving and now - peer.heard_at < within

    def is_lost(self, name: str, now: float) -> bool:
        """Whether its jobs may be judged: silent for `lost_after`, all of it while this node listened."""
        return self.silence(name, now) >= self.settings.lost_after

    def silence(self, name: str, now: float) -> float:
        """For how long a node was silent while this one listened."""
        peer = self.peers.get(name)
        return now - max(self.awake_at, peer.heard_at if peer is not None else NEVER_AT)

    def lease(self, lessor: str) -> tuple[float, float] | None:
        """Until when a job leased from this node may start, and may live; None without any lease.

        The lessor's own times count: it is the one who would give the job to another node.
        """
        peer = self.peers.get(lessor)
        if peer is None or peer.beat is None or peer.lease_at == NEVER_AT:
            return None
        timeout = min(self.settings.timeout, peer.beat.timeout)
        lost_after = min(self.settings.lost_after, peer.beat.lost_after)
        return peer.lease_at + timeout, peer.lease_at + 0.8 * lost_after

    def next_hop(self, name: str, now: float) -> str | None:
        """The linked peer to which a request for this node goes: itself, or the one through which it is heard."""
        peer = self.peers.get(name)
        if peer is None:
            return None
        if peer.linked and now - peer.direct_at < self.settings.timeout:
            return name
        via = self.peers.get(peer.via)
        return via.name if via is not None and via.linked else None

    # --- upkeep, once a heartbeat

    def tick(self, now: float) -> None:
        """Repeat syncs that were not answered, follow those who pass on what is not heard directly, meet new nodes."""
        for peer in list(self.peers.values()):
            if peer.linked and not peer.synced and self.is_online(peer.name, now):
                self._want_sync(peer, now)
            self._ask_for_tails(peer, now)
            if len(self._asked_tails) > TAIL_LENGTH:
                self._asked_tails.clear()
            if self._is_forgotten(peer.name, now):
                if peer.linked:
                    self.links.append(Unlink(peer.name))
                del self.peers[peer.name]
        for name in [name for name in self.names.known if self._is_forgotten(name, now)]:
            self.names.forget(name)
        self._choose_topics(now)
        if self.settings.discover:
            self._discover(now)

    def _is_forgotten(self, name: str, now: float) -> bool:
        return self.silence(name, now) > max(self.settings.expire, self.settings.lost_after)

    def _direct(self, now: float) -> set[str]:
        return {p.name for p in self.peers.values() if p.linked and now - p.direct_at < self.settings.timeout}

    def _choose_topics(self, now: float) -> None:
        direct = self._direct(now)
        relays = {name for name in direct if self.peers[name].sees_beyond({*direct, self.settings.name})}
        for name in direct:
            peer, topic = self.peers[name], ALL if name in relays else OWN
            if topic != peer.topic:
                peer.topic = topic
                self.links.append(Link(name, topic, peer.host, peer.port, peer.pub_port))
                if topic == ALL:
                    peer.applied, peer.synced = peer.complete, False
                    self._want_sync(peer, now)

    def _discover(self, now: float) -> None:
        for peer in self.peers.values():
            beat = peer.beat
            if beat is None or not beat.address or peer.name in self.unwanted or not self.is_online(peer.name, now):
                continue
            if now - peer.direct_at >= self.settings.timeout and now - peer.dialled_at >= _DIAL_RETRY:
                peer.dialled_at = now
                self.links.append(Dial(peer.name, beat.address, beat.port))

    # --- inside

    def _peer(self, name: str, incarnation: str) -> Peer:
        peer = self.peers.get(name)
        if peer is None:
            peer = self.peers[name] = Peer(name)
        if incarnation != peer.incarnation:
            # Nobody can ask for the last words of a life that is over: whoever heard them tells them as its own.
            self.last_words.update((jid, None) for _, jid in peer.tail)
            peer.reborn(incarnation)
        return peer

    def _is_former(self, peer: Peer, incarnation: str, now: float) -> bool:
        """Whether a message is a late one of a life that is over.

        Which of two lives came later can't be told if messages of the first were overtaken by those of the second:
        the one that falls silent was not the last.
        """
        return incarnation in peer.former and now - peer.heard_at < self.settings.timeout

    def _want_sync(self, peer: Peer, now: float) -> None:
        if now - peer.asked_at >= _SYNC_RETRY:
            peer.asked_at = now
            self.syncs.append(SyncWanted(peer.name, peer.incarnation, peer.applied))

    def _ask_for_tails(self, peer: Peer, now: float) -> None:
        """Ask this peer for what it heard of nodes that are silent now, if that is more than we did."""
        if peer.beat is None or not peer.linked or not self.is_alive(peer.name, now):
            return
        for name, (incarnation, seq) in peer.beat.tails.items():
            if name == self.settings.name or self.is_alive(name, now):
                continue
            silent = self.peers.get(name)
            if silent is not None and incarnation in silent.former:
                continue
            since = silent.applied if silent is not None and silent.incarnation == incarnation else 0
            if since < seq and (peer.name, incarnation, seq) not in self._asked_tails:
                self.syncs.append(SyncWanted(peer.name, incarnation, since, name))

    def _on_tail(self, snapshot: Snapshot) -> None:
        assert snapshot.origin is not None
        if snapshot.more:
            self.syncs.append(SyncWanted(snapshot.node, snapshot.incarnation, snapshot.seq, snapshot.origin))
        self._asked_tails.add((snapshot.node, snapshot.incarnation, snapshot.seq))
        if snapshot.origin == self.settings.name:
            return
        # Which of two lives of a silent node came later can't be told: another one than ours is asked for only once.
        peer = self.peers.get(snapshot.origin) or self._peer(snapshot.origin, snapshot.incarnation)
        # It may have gaps itself, so it does not count as applied; but it can be told to others in turn.
        if snapshot.incarnation == peer.incarnation and peer.reach < snapshot.seq:
            peer.remember(snapshot.seq, snapshot.records)

    def _hear(self, via: Peer, beat: Beat, seq: int, now: float) -> None:
        if beat.node == self.settings.name:
            return
        peer = self.peers.get(beat.node)
        if peer is not None and self._is_former(peer, beat.incarnation, now):
            return
        if not self.names.fits(beat.node, beat.incarnation):
            return
        self.names.learn(beat.node, beat.incarnation)
        peer = self._peer(beat.node, beat.incarnation)
        if not beat.address and peer.host:
            # 'Where you see me' says nothing to those to whom it is passed on.
            beat = msgspec.structs.replace(beat, address=peer.host)
        if peer.beat is None or now - peer.heard_at > max(self.settings.expire / 2, 3 * self.settings.heartbeat):
            self.returned.add(peer.name)
        if peer.beat is None or beat.number > peer.beat.number:
            peer.beat, peer.heard_at, peer.via = beat, now, via.name
        if peer.covered is None or beat.number > peer.covered.number:
            via.uncovered.append((seq, beat))
            self._cover(via)

    def _cover(self, via: Peer) -> None:
        """Let heartbeats count for leases, and pass them on, whose sender's changes have all come through `via`."""
        if not via.synced:
            del via.uncovered[:-64]  # an older one says nothing that a newer one does not
            return
        waiting, via.uncovered = via.uncovered, []
        for seq, beat in waiting:
            # What `via` has of others is all here only up to `complete`; on the topic `own` that may be less.
            if seq > (via.applied if beat.node == via.name else via.complete):
                via.uncovered.append((seq, beat))
                continue
            peer = self.peers.get(beat.node)
            if peer is None or peer.incarnation != beat.incarnation:
                continue
            if peer.covered is not None and peer.covered.number >= beat.number:
                continue
            peer.covered = beat
            self.passed_on.append(beat)
            incarnation, number = beat.acks.get(self.settings.name, ("", 0))
            if incarnation == self.incarnation and number in self._sent and self._sent[number] > peer.lease_at:
                if self._sent[number] - peer.lease_at >= 0.8 * self.settings.lost_after:
                    peer.lent_at = self._sent[number]
                peer.lease_at = self._sent[number]
                self.renewed.add(peer.name)
        del via.uncovered[:-64]
