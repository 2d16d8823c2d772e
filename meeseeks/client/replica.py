"""Keeps a cache equal to its node's table, and delivers what is written to it. Runs in the I/O thread, as its guest.

The Clone pattern: subscribe, ask for what changed since the last seq that is here, apply what is broadcast from
there. A broadcast that does not connect to what is here means that one was missed: ask again. Writes are delivered in
order, one batch at a time, and only once the table is current, so that after a break it can be seen which of them
were carried out.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from meeseeks.core.effects import ALL, Beat, Snapshot, Update
from meeseeks.errors import AuthenticationFailed, InvalidRequest, ProtocolError, RequestFailed, RequestTimeout
from meeseeks.wire import codec
from meeseeks.wire.messages import SyncRequest

from .cache import Cache
from .call import Call, Repeat
from .channel import Channel
from .courier import Courier
from .settings import Place
from .writes import Write

__all__ = ["Replica"]

_log = logging.getLogger(__name__)

_SILENCE = 5.0
"""Seconds without a broadcast (there is one a second at least) after which the node is asked whether it is there."""
_UPKEEP = 1.0
_RETRY = 1.0
_VIEWS_PAUSE = 0.2
"""Seconds between two questions for nodes and pools, however often they change."""
_BATCH = 1000
_BATCH_BYTES = 8 * 1024 * 1024
_BUFFERED = 10_000


class Replica:
    """Stands at a seq of one life (incarnation) of one node."""

    def __init__(
        self, channel: Channel, cache: Cache, refresh: float, poll: float, channel_to: Callable[[Place], Channel]
    ) -> None:
        self._channel = channel
        self._courier = Courier(cache, channel_to)
        self._cache = cache
        self._refresh = refresh
        self._poll = poll
        self._node = ""
        self._incarnation = ""
        self._applied = 0
        self._current = False
        self._asked: Call | None = None  # the sync under way
        self._round = 0  # the full check that it answers
        self._seen: set[str] | None = None  # job ids met so far in a full snapshot
        self._buffer: list[Update] = []  # broadcasts that came while a sync was under way
        self._sent: Call | None = None  # the batch of writes under way
        self._heard_at = 0.0
        self._check_at = 0.0
        self._sync_at = 0.0
        self._upkeep_at = 0.0
        self._views_at = 0.0
        self._views_asked = 0
        self._views_due = False
        self._beats: dict[str, tuple[Beat, float]] = {}
        self._silent: set[str] = set()

    # --- the guest's side of the channel

    def on_tick(self, now: float) -> float:
        """Do what is due; returns when there is something to do again."""
        if now >= self._upkeep_at:
            self._upkeep_at = now + _UPKEEP
            self._cache.upkeep()
            self._look_for_silence(now)
        if self._channel.link.ready and self._asked is None and now >= self._sync_at:
            wanted = self._cache.round_wanted > self._cache.round_done
            if wanted or not self._current or now >= self._check_at or now - self._heard_at >= self._patience():
                if now >= self._check_at:
                    self._check_at, self._views_due = now + self._poll, True
                    self._cache.find_missing(self._heard_at)
                self._sync()
        if self._channel.link.ready and self._current:
            self._deliver()
            self._courier.tick(self._channel.link.place, now)
            self._ask_for_views(now)
            if self._views_due and not self._views_asked:
                return min(self._upkeep_at, self._views_at)
        return self._upkeep_at

    def on_ready(self, now: float) -> None:
        """A connection was made. What was asked on an earlier one has been given up by the channel."""
        self._current = False
        self._asked = None
        self._views_due = True
        self._heard_at = now
        self._check_at = now + self._poll
        self._channel.link.unfollow()
        self._sync()

    def on_update(self, frame: bytes, now: float) -> None:
        """A broadcast: apply it if it connects to what is here; else keep it, and ask for what is missing."""
        try:
            update = codec.decode_update(frame, self._on_dropped)
        except ProtocolError as error:
            _log.warning("%s sent a broadcast that is none: %s", self._channel.link.describe(), error)
            return
        self._heard_at = now
        if self._asked is not None or not self._current:
            if len(self._buffer) < _BUFFERED:
                self._buffer.append(update)
            return
        self._take(update, now)

    def has_unsent(self) -> bool:
        """Whether a write has not been acknowledged yet."""
        return bool(self._cache.unsettled())

    def on_end(self) -> None:
        """The channel is closed."""
        self._courier.end()

    # --- following

    def _take(self, update: Update, now: float) -> None:
        if (update.node, update.incarnation) != (self._node, self._incarnation) or update.prev > self._applied:
            self._sync()
        elif update.seq > self._applied:
            self._applied = update.seq
            self._cache.apply(update.records, update.seq)
            self._cache.stand_at(update.seq)
        for beat in update.beats:
            self._note(beat, now)

    def _sync(self) -> None:
        if self._asked is not None:
            return
        self._round = self._cache.round_wanted
        request = SyncRequest(incarnation=self._incarnation, since=self._applied)
        self._asked = self._channel.post("sync", request, repeat=Repeat.THIS_LIFE, callback=self._on_synced)

    def _on_synced(self, call: Call) -> None:
        if call is not self._asked:
            return
        self._asked = None
        now = time.monotonic()
        if call.error is not None:
            if self._seen is not None:  # a part of a whole table is here, and what else there is not known: begin again
                self._seen, self._incarnation, self._applied = None, "", 0
            _log.warning("can't read the table of %s: %s", self._channel.link.describe(), call.error)
            self._sync_at = now + _RETRY
            if call.life is not None and isinstance(call.error, RequestTimeout):
                self._channel.link.move_on(now)  # it is connected, and silent
            return
        try:
            snapshot = codec.as_snapshot(call.result, self._on_dropped)
        except ProtocolError as error:
            _log.error("%s answered a sync with something else: %s", self._channel.link.describe(), error)
            self._sync_at = now + _RETRY
            return
        self._apply_snapshot(snapshot)
        for beat in snapshot.beats:
            self._note(beat, now)
        if snapshot.more:
            self._sync()
            return
        self._complete(now)

    def _on_dropped(self, why: str) -> None:
        _log.warning("%s sent something that is left out: %s", self._channel.link.describe(), why)

    def _apply_snapshot(self, snapshot: Snapshot) -> None:
        is_new_life = (snapshot.node, snapshot.incarnation) != (self._node, self._incarnation)
        if is_new_life or (snapshot.since == 0 and self._seen is None):
            self._seen = set()
        self._node, self._incarnation, self._applied = snapshot.node, snapshot.incarnation, snapshot.seq
        if self._seen is not None:
            self._seen.update(record.spec.id for record in snapshot.records)
        old_before = time.time() - self._cache.expire if self._seen is not None else None
        self._cache.apply(snapshot.records, snapshot.seq, old_before=old_before)

    def _complete(self, now: float) -> None:
        is_full, seen, self._seen = self._seen is not None, self._seen, None
        buffered, self._buffer = self._buffer, []
        self._current = True
        self._heard_at = now
        if seen is not None:
            self._cache.keep_only(seen)
        self._cache.stand_at(self._applied, renumbered=is_full)
        with self._cache.changed:
            self._cache.round_done = max(self._cache.round_done, self._round)
            self._cache.synced = True
            self._cache.changed.notify_all()
        for update in buffered:
            self._take(update, now)
        own = self._beats.get(self._node)
        if own is not None:
            self._channel.link.follow(ALL, own[0].pub_port)

    def _patience(self) -> float:
        """How long the node may be silent. A PUB that can't be reached at all leaves asking again and again."""
        return _SILENCE if self._channel.link.is_followed else max(self._refresh, 0.5)

    # --- nodes and pools

    def _note(self, beat: Beat, now: float) -> None:
        before = self._beats.get(beat.node)
        self._beats[beat.node] = (beat, now)
        self._silent.discard(beat.node)
        if before is None or _outline(before[0]) != _outline(beat):
            self._views_due = True

    def _look_for_silence(self, now: float) -> None:
        for name, (beat, heard_at) in self._beats.items():
            if now - heard_at > beat.timeout + _UPKEEP and name not in self._silent:
                self._silent.add(name)
                self._views_due = True

    def _ask_for_views(self, now: float) -> None:
        if not self._views_due or self._views_asked or now < self._views_at:
            return
        self._views_due, self._views_at, self._views_asked = False, now + _VIEWS_PAUSE, 2
        for kind in ("nodes", "pools"):
            self._channel.post(kind, {}, repeat=Repeat.THIS_LIFE, callback=self._on_view)

    def _on_view(self, call: Call) -> None:
        self._views_asked -= 1
        if call.error is not None:
            self._views_due = True
            return
        with self._cache.changed:
            if call.kind == "nodes":
                self._cache.nodes = call.result
            else:
                self._cache.pools = call.result
            self._cache.changed.notify_all()

    # --- delivering

    def _deliver(self) -> None:
        if self._sent is not None:
            return
        batch = self._cache.next_batch(self._channel.link.place, _BATCH, _BATCH_BYTES)
        if not batch:
            return

        def on_answer(call: Call) -> None:
            self._sent = None
            self._on_delivered(batch, call)

        kind = batch[0].kind
        payload: object
        if kind == "kill":
            payload = [write.jid for write in batch]
        else:
            kind, payload = "submit_many", [write.request for write in batch]
        self._sent = self._channel.post(kind, payload, repeat=Repeat.THIS_LIFE, callback=on_answer)

    def _on_delivered(self, batch: list[Write], call: Call) -> None:
        if call.error is None:
            self._cache.acknowledge(batch, call.result)
        elif isinstance(call.error, (InvalidRequest, RequestFailed, ProtocolError)) or (
            isinstance(call.error, AuthenticationFailed) and call.life is not None  # our role may not
        ):
            self._cache.refuse(batch, call.error)
        else:
            _log.warning("%s of %d jobs will be repeated: %s", batch[0].kind, len(batch), call.error)
            self._cache.retry(batch, call.sent_to)


def _outline(beat: Beat) -> object:
    """What of a heartbeat shows in nodes and pools, and does not change with every heartbeat."""
    return (beat.incarnation, beat.pools, beat.sees, beat.links, beat.leaving)
