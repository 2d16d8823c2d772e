"""What is broken, when, and for how long: a plan that a seed decides, and a saboteur who carries it out."""

from __future__ import annotations

import heapq
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, count
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from .mesh import ChaosMesh

__all__ = ["KINDS", "Fault", "Plan", "Saboteur", "Trouble", "make_plan"]

KINDS = {
    "kill-node": 3,
    "stop-node": 2,
    "replace-node": 2,
    "kill-executor": 2,
    "stop-executor": 1,
    "crash": 1,
    "cut": 2,
    "mute": 2,
    "one-way": 2,
    "delay": 1,
    "isolate": 1,
    "disk-full": 1,
    "clock": 1,
}
"""How often each kind comes. `crash` kills a node and its executor at once; `mute` swallows all that a link carries;
`replace-node` is SIGHUP, after which a node's program is another one, and its jobs go on."""

_LINKS = ("cut", "mute", "one-way", "delay")
_INSTANT = ("replace-node", "kill-executor", "clock")
_FIRST_AT = 1.0
_REST_S = 1.5
"""How long a node that comes back is left alone, so that it is not down all the time."""


class Fault(NamedTuple):
    """One thing that goes wrong, `at` seconds after the round's begin."""

    at: float
    kind: str
    nodes: tuple[str, ...]
    seconds: float
    amount: float = 0.0

    def __str__(self) -> str:
        where = " → ".join(self.nodes) if self.kind == "one-way" else "–".join(self.nodes)
        amount = {"delay": f" by {self.amount:.2f} s", "clock": f" {self.amount:+.0f} s"}.get(self.kind, "")
        lasts = "" if self.kind in _INSTANT else f" for {self.seconds:.1f} s"
        return f"{self.kind} {where}{amount}{lasts}"


Plan = Sequence[Fault]


@dataclass
class Trouble:
    """A fault that was really there, on the monotonic clock; `end` is when it was repaired."""

    fault: Fault
    begin: float
    end: float = float("inf")

    def concerns(self, nodes: Iterable[str]) -> bool:
        """Whether it may keep one of these nodes from its work, or from hearing another one of them."""
        if self.fault.kind == "clock":
            return False
        nodes = set(nodes)
        if self.fault.kind in _LINKS:
            return bool(nodes & set(self.fault.nodes))
        return self.fault.nodes[0] in nodes


def make_plan(dice: random.Random, names: Sequence[str], kinds: Sequence[str], faults: int, gap_s: float) -> Plan:
    """So many faults, `gap_s` apart on average. What can't be at once is never planned at once."""
    at, found = _FIRST_AT, []
    taken: dict[str, float] = {}
    while len(found) < faults:
        fault = _draw(dice, names, kinds, at)
        things = _things(fault, names)
        if any(taken.get(thing, 0.0) > at for thing in things):
            at += 0.05
            continue
        taken.update(dict.fromkeys(things, at + fault.seconds + _REST_S))
        found.append(fault)
        at += dice.expovariate(1.0 / gap_s)
    return found


def _draw(dice: random.Random, names: Sequence[str], kinds: Sequence[str], at: float) -> Fault:
    kind = dice.choices(kinds, [KINDS[kind] for kind in kinds])[0]
    shuffled = dice.sample(names, len(names))
    nodes = tuple(shuffled[:2]) if kind in _LINKS else (names[-1],) if kind == "disk-full" else (shuffled[0],)
    low, high = dice.choices([(0.2, 1.5), (1.5, 4.0), (4.0, 8.0)], [6, 3, 1])[0]
    seconds = 0.0 if kind in _INSTANT else dice.uniform(low, high)
    amount = dice.uniform(0.05, 1.0) if kind == "delay" else 0.0
    if kind == "clock":
        amount = round(dice.choice((-1, 1)) * 10 ** dice.uniform(0, 3.5))
    return Fault(at, kind, nodes, seconds, amount)


def _things(fault: Fault, names: Sequence[str]) -> list[str]:
    """What a fault needs for itself alone."""
    node = fault.nodes[0]
    if fault.kind in _LINKS:
        return [_link(*fault.nodes[:2])]
    if fault.kind == "isolate":
        return [_link(a, b) for a, b in combinations(names, 2) if node in (a, b)]
    own = {
        "kill-node": ["node"],
        "stop-node": ["node"],
        "replace-node": ["node"],
        "kill-executor": ["executor"],
        "stop-executor": ["executor"],
        "crash": ["node", "executor"],
    }
    return [f"{thing} of {node}" for thing in own.get(fault.kind, [fault.kind])]


def _link(a: str, b: str) -> str:
    return f"link {min(a, b)}–{max(a, b)}"


class Saboteur:
    """Breaks and repairs a mesh as a plan says, and knows what was broken when."""

    def __init__(self, mesh: ChaosMesh) -> None:
        self._mesh = mesh
        self._order = count()
        self._rest: list[Callable[[], None]] = []
        self.troubles: list[Trouble] = []
        self.counts: Counter[str] = Counter()
        self.passed_over: list[str] = []
        """Faults that could not be injected, since what they are about was not there."""

    def carry_out(self, plan: Plan, wait: Callable[[float], object]) -> None:
        """The whole plan, each fault repaired in its time; those that last beyond the last one are left as they are."""
        begun_at = time.monotonic()
        todo: list[tuple[float, int, Callable[[], None]]] = []
        for fault in plan:
            heapq.heappush(todo, (begun_at + fault.at, next(self._order), lambda fault=fault: begin(fault)))
        left = len(plan)

        def begin(fault: Fault) -> None:
            nonlocal left
            left -= 1
            undo = self._begin(fault)
            if undo is not None:
                heapq.heappush(todo, (time.monotonic() + fault.seconds, next(self._order), undo))

        while left:
            at, _, do = heapq.heappop(todo)
            wait(max(0.0, at - time.monotonic()))
            do()
        self._rest = [do for *_, do in sorted(todo)]

    def heal(self) -> None:
        """Repair all that is still broken, and wait for the nodes to be back."""
        rest, self._rest = self._rest, []
        for undo in rest:
            undo()
        self._mesh.wait_repaired()

    def _begin(self, fault: Fault) -> Callable[[], None] | None:
        trouble = Trouble(fault, time.monotonic())
        repair = self._mesh.break_by(fault)
        if repair is None:
            self.passed_over.append(str(fault))
            return None
        self.counts[fault.kind] += 1
        self.troubles.append(trouble)

        def repaired() -> None:
            trouble.end = time.monotonic()

        def undo() -> None:
            repair(repaired)

        if fault.kind in _INSTANT:
            undo()
            return None
        return undo

    # --- what it explains

    def troubled_s(self, nodes: Iterable[str], begin: float, end: float, recovery_s: float) -> float:
        """For how long between two moments any of these nodes was in trouble, or on its way out of it."""
        total, reached = 0.0, begin
        for start, stop in self._spans(nodes, recovery_s):
            start, stop = max(start, reached), min(stop, end)  # noqa: PLW2901 - cut to what counts
            if stop > start:
                total, reached = total + stop - start, stop
        return total

    def longest_calm_s(self, nodes: Iterable[str], begin: float, end: float) -> float:
        """The longest time between two moments in which none of these nodes was in trouble."""
        longest, reached = 0.0, begin
        for start, stop in self._spans(nodes, 0.0):
            longest = max(longest, min(start, end) - reached)
            reached = max(reached, stop)
        return max(longest, end - reached)

    def was(self, kinds: Sequence[str], node: str, begin: float, end: float) -> bool:
        """Whether a fault of one of these kinds was on a node between two moments."""
        meant = [trouble for trouble in self.troubles if trouble.fault.kind in kinds and node in trouble.fault.nodes]
        return any(trouble.begin <= end and trouble.end >= begin for trouble in meant)

    def _spans(self, nodes: Iterable[str], recovery_s: float) -> list[tuple[float, float]]:
        nodes = set(nodes)
        return sorted((t.begin, t.end + recovery_s) for t in self.troubles if t.concerns(nodes))
