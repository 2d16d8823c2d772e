"""Plays a plan: the clock, the network, the actions, and what every run ends with (all heals, and it grows quiet)."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

from meeseeks.core.effects import Update

from .checks import Checks
from .faults import Faults
from .node import SimNode
from .noise import Noise
from .plan import LOST_AFTER, Plan
from .users import Users

__all__ = ["World"]

_SPANS = ((0.25, 0.05), (0.5, 2.0), (0.75, 15.0), (0.92, 60.0), (1.0, 150.0))
"""How long jobs take: (share of all so far, seconds)."""
_SETTLE_MAX = 900.0
_FENCED_WITHIN = 40.0
"""For all to meet again, and for the longest grace."""


class World:
    """A run. `play` returns the violations that it found (none: all promises were kept)."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.now = 0.0
        self.noise = Noise(plan.seed)
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._number = 0
        self._arrivals: dict[tuple[int, int, bool], float] = {}
        self.index_of = {name: index for index, name in enumerate(plan.names)}
        named = sorted(plan.named)
        self.fixed = [[k for i, k in named if i == index] for index in range(len(plan.names))]
        self.checks = Checks(self)
        self.nodes = [SimNode(self, index, settings) for index, settings in enumerate(plan.settings)]
        self.users = Users(self)
        self.faults = Faults(self)
        self.quiet_at = float("inf")
        """Since when nothing breaks any more."""

    # --- the clock

    def at(self, when: float, call: Callable[..., None], *args: Any) -> None:
        """Have something happen at a time (now, if that has passed)."""
        self._number += 1
        heapq.heappush(self._heap, (max(when, self.now), self._number, call, args))

    def after(self, delay: float, call: Callable[..., None], *args: Any) -> None:
        """The same, so many seconds from now."""
        self.at(self.now + delay, call, *args)

    def play(self) -> list[str]:
        """The whole run."""
        for node in self.nodes:
            self.at(2.0 * self.noise(5, node.index), node.boot)
        for action in self.plan.actions:
            self.at(action.at, self._act, action)
        self._run_until(self.plan.chaos_until)
        self._heal()
        self._run_until(self.now + 1.2 * LOST_AFTER)
        deadline = self.now + _SETTLE_MAX
        while not self.checks.violations and self.checks.unsettled() and self.now < deadline:
            self._run_until(self.now + 10.0)
        if not self.checks.violations:
            self.checks.at_end()
        return self.checks.violations

    def _run_until(self, end: float) -> None:
        heap, violations = self._heap, self.checks.violations
        while heap and heap[0][0] <= end and not violations:
            self.now, _, call, args = heapq.heappop(heap)
            call(*args)
        self.now = max(self.now, end)

    def _act(self, action: Any) -> None:
        actor = self.users if hasattr(self.users, action.kind) else self.faults
        if actor is self.faults and self.now >= self.quiet_at:
            return  # it was planned just after a submit of the last moment
        self.checks.note(None, f"{action.kind} {action.args}")
        getattr(actor, action.kind)(**action.args)

    def _heal(self) -> None:
        self.checks.note(None, "all faults end")
        self.quiet_at = self.now
        self.faults.heal()
        self.after(_FENCED_WITHIN, self.checks.doubles_are_over)
        for delay in (20.0, 100.0, 200.0):
            self.after(delay, self.users.end_endless)

    # --- chance

    def fate(self, job: str, run: int) -> tuple[float, int]:
        """How long a run of a job takes, and its exit code."""
        key = tuple(job.encode())
        chance = self.noise(6, run, *key)
        span = next(span for upto, span in _SPANS if chance < upto)
        failed = self.noise(7, run, *key) < 0.35
        return span * (0.5 + self.noise(8, run, *key)), 1 if failed else 0

    # --- the network

    def publish(self, source: int, target: int, update: Update) -> None:
        """A broadcast to one subscriber: it may be lost, late, but not overtaken on this link."""
        if self.noise(9, source, target, int(self.now * 1e4)) < self.plan.loss and self.now < self.quiet_at:
            self.faults.count["lost broadcast"] += 1
            return
        self.send(source, target, "update", update, channel=True)

    def send(self, source: int, target: int, kind: str, what: Any, *, channel: bool = False) -> None:
        """A message on the link of two nodes, if there is one."""
        pair = (source, target)
        if (max(pair), min(pair)) not in self.plan.edges:
            return
        if self.faults.blocks(pair, kind, what, channel=channel):
            return
        luck = self.noise(10, source, target, int(self.now * 1e4), channel)
        delay = self.plan.latency * (0.2 + luck) if luck < 0.97 else 20 * self.plan.latency * luck
        delay += self.faults.slow.get(pair, 0.0)
        line = (source, target, channel)
        arrives = max(self.now + delay, self._arrivals.get(line, 0.0))
        self._arrivals[line] = arrives
        self.at(arrives, self._arrive, pair, self.nodes[target].life, kind, what)

    def _arrive(self, pair: tuple[int, int], life: int, kind: str, what: Any) -> None:
        node = self.nodes[pair[1]]
        if not node.is_up or node.life != life:
            return  # the connection was to an earlier process
        if node.frozen_until is not None and node.index in self.faults.deaf:
            return  # its buffers were full, or its peers gave up on it
        node.receive(kind, what)
