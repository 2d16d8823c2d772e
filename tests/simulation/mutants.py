"""The core with one rule broken on purpose: the simulator must find each. The first three are DESIGN section 3's.

Each is a context manager; while it is open, every node of this process has the fault.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import msgspec

from meeseeks.core import ages, forgotten, ledger, record, submitter
from meeseeks.core.effects import Beat
from meeseeks.core.forgotten import Forgotten
from meeseeks.core.lifecycle import Event, Phase, phase_of
from meeseeks.core.mesh import Mesh
from meeseeks.core.node_state import NodeState
from meeseeks.core.owner import Owner
from meeseeks.core.peer import Peer
from meeseeks.core.record import Record, Spec
from meeseeks.core.starter import Starter
from meeseeks.core.submitter import Submitter

from . import invariants

__all__ = ["MUTANTS"]

MUTANTS: dict[str, Callable[[], AbstractContextManager[None]]] = {}


def _mutant(target: type | Any, name: str, title: str) -> Callable[[Callable[[Any], Any]], None]:
    """`make(original)` returns what takes the place of `target.name`."""

    def register(make: Callable[[Any], Any]) -> None:
        @contextmanager
        def broken() -> Iterator[None]:
            original = vars(target)[name]
            with patch.object(target, name, make(original)):
                yield

        MUTANTS[title] = broken

    return register


@_mutant(Mesh, "_hear", "heard-lately")
def _heard_lately(original: Any) -> Any:
    """A lease as soon as anything was heard of the submit node: no acknowledgement, no coverage."""

    def hear(self: Mesh, via: Peer, beat: Beat, seq: int, now: float) -> None:
        original(self, via, beat, seq, now)
        peer = self.peers.get(beat.node)
        if peer is not None and peer.heard_at == now:
            peer.lease_at = now
            self.renewed.add(peer.name)

    return hear


@_mutant(Submitter, "judge_lost_nodes", "not-known-to-run")
def _not_known_to_run(original: Any) -> Any:
    """What is not known to run is given to another node as soon as its node is silent."""

    def judge(self: Submitter) -> None:
        now = self.ledger.now
        for node in self.ledger.loads.nodes():
            if node == self.ledger.name or self.mesh.is_online(node, now):
                continue
            for jid in self.ledger.loads.on(node):
                one = self.ledger.table.get(jid)
                if one is None or one.spec.submit_node != self.ledger.name or record.is_dead(one):
                    continue
                if one.status.leased and phase_of(one.status) is not Phase.RUNNING:
                    self.ledger.advance(one, Event.TAKE_BACK, error=f"node {node} lost")
        original(self)

    return judge


@contextmanager
def _leased_while_retries_are_left() -> Iterator[None]:
    """The owner goes by the retries that it knows to be left, the submit node by those that it knows of."""
    real_may_start, real_start = Starter._may_start, Starter._start

    def as_it_counts(one: Record) -> Record:
        if one.status.leased and not one.spec.resubmit and one.status.fail_count >= one.spec.retries:
            return Record(one.spec, msgspec.structs.replace(one.status, leased=False))
        return one

    def may_start(self: Starter, one: Record, pool: str) -> bool:
        return real_may_start(self, as_it_counts(one), pool)

    def start(self: Starter, one: Record, pool: Any) -> None:
        real_start(self, as_it_counts(one), pool)

    with patch.object(Starter, "_may_start", may_start), patch.object(Starter, "_start", start):
        yield


MUTANTS["leased-while-retries-are-left"] = _leased_while_retries_are_left


@_mutant(Mesh, "_cover", "no-coverage")
def _no_coverage(original: Any) -> Any:
    """A heartbeat counts for a lease although changes that came before it are missing."""

    def cover(self: Mesh, via: Peer) -> None:
        via.uncovered = [(0, beat) for _, beat in via.uncovered]
        synced, via.synced = via.synced, True
        original(self, via)
        via.synced = synced

    return cover


@_mutant(Owner, "fence", "no-fence")
def _no_fence(original: Any) -> Any:
    """A copy whose epoch is over lives on."""
    return lambda self, jid, one: None


@_mutant(Mesh, "tails", "no-tails")
def _no_tails(original: Any) -> Any:
    """Nobody asks what others heard of a node that is silent."""
    return lambda self, now: {}


@_mutant(Mesh, "is_lost", "judge-at-once-after-waking")
def _judge_at_once(original: Any) -> Any:
    """A node that was frozen or has just started takes its own deafness for the silence of others."""

    def is_lost(self: Mesh, name: str, now: float) -> bool:
        peer = self.peers.get(name)
        return peer is None or now - peer.heard_at >= self.settings.lost_after

    return is_lost


@_mutant(record, "_merge_spec", "kill-merges-like-the-rest")
def _kill_merges_like_the_rest(original: Any) -> Any:
    """The later writer of a spec wins with its `killed_generation`, too."""

    def merge_spec(a: Spec, b: Spec) -> Spec:
        merged = original(a, b)
        newer = a if (a.lamport, a.writer) >= (b.lamport, b.writer) else b
        if merged.killed_generation == newer.killed_generation:
            return merged
        return msgspec.structs.replace(merged, killed_generation=newer.killed_generation)

    return merge_spec


@_mutant(NodeState, "restore", "numbers-used-twice")
def _numbers_used_twice(original: Any) -> Any:
    """A node that comes back goes on with the seq of what it still has."""

    def restore(self: NodeState, rows: Any, seq: int) -> None:
        original(self, rows, seq)
        self.table.seq = seq
        self._published = dict.fromkeys(self._published, seq)

    return restore


@_mutant(Forgotten, "is_one", "what-expired-is-new")
def _what_expired_is_new(original: Any) -> Any:
    """A job that ended, and that its node has forgotten since, is like any other where somebody tells of it."""
    return lambda self, one: False


@contextmanager
def _a_kill_expires() -> Iterator[None]:
    """What reads as ended is forgotten, whoever has not heard of it yet."""

    def may_expire(one: Record) -> bool:
        return record.view_state(one) in record.END_STATES

    with ExitStack() as patches:
        for module in (ages, ledger, forgotten, invariants):
            patches.enter_context(patch.object(module, "may_expire", may_expire))
        yield


MUTANTS["a-kill-expires"] = _a_kill_expires


@_mutant(submitter, "is_over", "rerun-before-the-end")
def _rerun_before_the_end(original: Any) -> Any:
    """A new generation begins although the old one may live."""
    return lambda one: True
