"""What a node does with the jobs that were submitted to it: assign them, take them back, judge lost nodes, rerun."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from .effects import PoolStatus
from .ledger import Ledger
from .lifecycle import Event, Phase, is_over, is_resubmitted, phase_of
from .mesh import Mesh
from .owner import Owner, again_delay
from .placement import CONFIG_POOL, Candidate, Group, Waiting, place
from .reasons import Reasons
from .record import COUNT_MAX, END_STATES, Record, is_dead, is_lost

__all__ = ["Submitter"]


_LISTEN_BEATS = 3
"""For so many heartbeats adopted jobs are not assigned."""
_PLACE_MAX = 1000
"""Jobs that are assigned in one turn: held ones take no slot, so there may be any number of them."""


def _needs_submit_node(record: Record) -> bool:
    spec, status = record.spec, record.status
    return spec.generation > status.generation or status.state not in END_STATES or is_resubmitted(record)


class Submitter:
    """The scheduler of one node: it assigns its own jobs only, and judges only for them."""

    def __init__(self, ledger: Ledger, mesh: Mesh, owner: Owner) -> None:
        self.ledger = ledger
        self.mesh = mesh
        self.owner = owner
        self.waiting = Waiting()
        self.loadavg = 0.0
        self._delayed: dict[str, int] = {}  # resubmitted or adopted job -> the start count that its delay is for
        self._adopted_at: dict[str, float] = {}  # node whose jobs were adopted -> when that was
        self._listens_until = ledger.now
        self.has_more = False
        """There was more to assign than is done in one turn."""
        self.reasons = Reasons(ledger, mesh, owner, self.waiting, self._delayed, self.candidates)

    # --- one job

    def act(self, record: Record) -> None:
        """Do what the table says of a job whose submit node this is."""
        status = record.status
        if record.spec.generation > status.generation and is_over(record):
            self.ledger.advance(record, Event.RERUN)  # makes the job dirty again
            return
        phase = phase_of(status)
        if phase is not Phase.UNASSIGNED:
            self.waiting.remove(record.spec.id)
        if phase is Phase.UNASSIGNED:
            self._act_unassigned(record)
        elif is_resubmitted(record):
            self._resubmit(record)

    def _act_unassigned(self, record: Record) -> None:
        jid, status = record.spec.id, record.status
        if is_dead(record):
            self.waiting.remove(jid)
            self.ledger.advance(record, Event.KILL, error="killed", end_ts=self.ledger.wall)
        elif self._delayed.get(jid) != status.start_count:
            self.waiting.add(record)

    def _resubmit(self, record: Record) -> None:
        """Back to the start, at once for all to see, and with a growing delay before it may be assigned."""
        self._delay(record, again_delay(record.status.start_count))
        self.ledger.advance(record, Event.RESUBMIT)

    def _delay(self, record: Record, seconds: float) -> None:
        jid, runs = record.spec.id, record.status.start_count
        self._delayed[jid] = runs

        def due() -> None:
            if self._delayed.get(jid) == runs:
                del self._delayed[jid]
                self.ledger.dirty[jid] = None

        self.ledger.after(max(seconds, self._listens_until - self.ledger.now), due)

    # --- the jobs of a node that never comes back

    def adopt(self, node: str) -> list[str]:
        """Become the submit node of all jobs of `node` that still need one, and name them.

        The user says that `node` is dead for good. What it leased may live until those leases are over, on nodes that
        are not heard from here: so nothing of it is judged before `lost_after` has passed from now. And if somebody
        else adopts the same jobs just now, that is heard of before any of them is assigned.
        """
        ledger = self.ledger
        self._adopted_at[node] = ledger.now
        self._listens_until = ledger.now + _LISTEN_BEATS * ledger.settings.heartbeat
        adopted = [record for record in ledger.table if record.spec.submit_node == node and _needs_submit_node(record)]
        for record in adopted:
            # It may have adopted the job itself, while a lease of the one before was running.
            self._adopted_at[record.status.epoch[1]] = ledger.now
            if phase_of(record.status) is Phase.UNASSIGNED:
                self._delay(record, 0.0)
            ledger.change_spec(record, submit_node=ledger.name, adoptions=min(record.spec.adoptions + 1, COUNT_MAX))
        return [record.spec.id for record in adopted]

    # --- lost nodes

    def judge_lost_nodes(self) -> None:
        """Look for live jobs on nodes that have been silent for `lost_after`. Costs nodes, and jobs of lost nodes.

        Once a heartbeat, not with each change: a node whose changes come through, and whose heartbeats do not, refutes
        each loss at once.
        """
        for node in self.ledger.loads.nodes():
            if node != self.ledger.name and self.mesh.is_lost(node, self.ledger.now):
                for jid in self.ledger.loads.on(node):
                    record = self.ledger.table.get(jid)
                    if record is not None and record.spec.submit_node == self.ledger.name:
                        self._judge(record)

    def _judge(self, record: Record) -> None:
        spec, status = record.spec, record.status
        if is_lost(record) or (status.leased and self._may_hold_lease(status.epoch[1])):
            return
        if not status.leased and status.generation < spec.generation > spec.killed_generation:
            return  # who asked for the rerun has not seen this loss: a copy may live, and it is not his risk
        ran = phase_of(status) is Phase.RUNNING
        # Only what was assigned on a lease may go elsewhere: its copy over there has been ended by now. What an adopted
        # node had given to itself has no lease that runs out: its executor may live.
        is_ended = status.leased and status.epoch[1] != status.node
        may_rerun = is_ended and (spec.resubmit or status.fail_count + ran <= spec.retries)
        if may_rerun and not is_dead(record):
            self.ledger.advance(record, Event.TAKE_BACK, error=f"node {status.node} lost")
        else:
            self.ledger.change_spec(record, lost=status.key)

    def _may_hold_lease(self, lessor: str) -> bool:
        """Whether a lease of a node whose jobs were adopted may still run somewhere: it was for its own times."""
        peer, since = self.mesh.peers.get(lessor), self._adopted_at.get(lessor, float("-inf"))
        lent_for = peer.beat.lost_after if peer is not None and peer.beat is not None else 0.0
        return self.ledger.now - since < max(lent_for, self.ledger.settings.lost_after)

    # --- placement

    def place_waiting(self) -> None:
        """Assign what can be assigned, oldest first, and so many in one turn."""
        self.has_more = False
        lines = self._lines()
        left = _PLACE_MAX
        while lines:
            _, group, pairs = lines[0]
            jid, node = next(pairs, (None, ""))
            if jid is None:  # no room for these
                heapq.heappop(lines)
                continue
            left -= 1
            if left < 0 or jid in self.ledger.dirty:  # this one has changed, and is to be looked at first
                self.has_more = True
                heapq.heappop(lines)
                continue
            self.waiting.remove(jid)
            record = self.ledger.table.get(jid)
            if record is not None and phase_of(record.status) is Phase.UNASSIGNED:
                self.ledger.advance(record, Event.ASSIGN, node=node, leased=record.spec.asks_rerun)
            if self.waiting.first(group) is None:
                heapq.heappop(lines)
            else:
                heapq.heapreplace(lines, (self.waiting.since(group), group, pairs))

    def _lines(self) -> list[tuple[int, Group, Iterator[tuple[str, str]]]]:
        """For each group of like jobs that wait: the age of its oldest, and the places that there are. A heap."""
        by_pool: dict[str, dict[str, Candidate]] = {}  # a turn looks at each node once a pool, however many groups wait
        lines = []
        for group in self.waiting.groups():
            pool, wish, _ = group
            fitting = by_pool.get(pool)
            if fitting is None:
                fitting = by_pool[pool] = {one.node: one for one in self.candidates(pool)}
            candidates = fitting.values() if wish is None else [fitting[wish]] if wish in fitting else []
            pairs = place(
                self.waiting, group, candidates, self.ledger.loads, use_loadavg=self.ledger.settings.use_loadavg
            )
            lines.append((self.waiting.since(group), group, pairs))
        heapq.heapify(lines)
        return lines

    def candidates(self, pool: str, *, all_online: bool = False) -> Iterator[Candidate]:
        """The nodes that may get a job of this pool now.

        `all_online`: also those that were silent just now, or would not hear of it from this one.
        """
        now = self.ledger.now
        own = self.owner.pools.get(pool)
        if own is not None and not self.owner.stopping:
            yield Candidate(self.ledger.name, own.status(self.ledger.settings.wait_in_pool), self.loadavg, is_here=True)
        for peer in self.mesh.peers.values():
            if peer.beat is None or not self.mesh.is_online(peer.name, now):
                continue
            if not all_online and not (
                self.mesh.is_alive(peer.name, now) and peer.hears(self.ledger.name, self.mesh.incarnation)
            ):
                continue
            status = PoolStatus() if pool == CONFIG_POOL else peer.beat.pools.get(pool)
            if status is not None:
                yield Candidate(peer.name, status, peer.beat.loadavg)

    def room_elsewhere(self) -> dict[str, int]:
        """Free slots of each of this node's pools on other nodes, by this table."""
        room: dict[str, int] = {}
        for pool in self.owner.pools:
            for candidate in self.candidates(pool):
                if candidate.node == self.ledger.name or candidate.pool.drain or candidate.pool.hold:
                    continue
                slots = candidate.pool.slots or 1_000_000
                free = slots - self.ledger.loads.jobs[candidate.node, pool]
                room[pool] = room.get(pool, 0) + max(0, free)
        return room

    def why_waiting(self, record: Record) -> str | None:
        """In words, why a job has not started yet; None if it has, or has ended."""
        return self.reasons.why(record)
