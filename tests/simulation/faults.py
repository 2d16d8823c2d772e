"""Everything that breaks, and how it is repaired."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .world import World

__all__ = ["Faults"]


class Faults:
    """Actions of a plan that break something; each repairs it by itself after its span."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.count: Counter[str] = Counter()
        self.slow: dict[tuple[int, int], float] = {}
        self.deaf: set[int] = set()
        """Nodes that lose what comes while they are frozen."""
        self._cuts: dict[int, tuple[frozenset[tuple[int, int]], bool]] = {}
        self._blocked: Counter[tuple[int, int]] = Counter()
        self._stored: list[tuple[tuple[int, int], str, Any, bool]] = []
        self._number = 0
        self._trapped: dict[int, tuple[str, float]] = {}

    # --- the network

    def blocks(self, pair: tuple[int, int], kind: str, what: Any, *, channel: bool) -> bool:
        """Whether a message can't pass now. Some cuts hold messages back, as TCP does, others lose them."""
        if not self._blocked[pair]:
            return False
        if all(holds for pairs, holds in self._cuts.values() if pair in pairs):
            self._stored.append((pair, kind, what, channel))
        return True

    def cut(self, pairs: list[tuple[int, int]], span: float, holds: bool) -> None:
        """Nothing passes on these one-way pairs."""
        self.count["cut"] += 1
        self._number += 1
        self._cuts[self._number] = (frozenset(pairs), holds)
        self._blocked.update(pairs)
        self.world.after(span, self._mend, self._number)

    def _mend(self, number: int) -> None:
        pairs, _ = self._cuts.pop(number, (frozenset(), False))
        self._blocked.subtract(pairs)
        stored, self._stored = self._stored, []
        for pair, kind, what, channel in stored:
            self.world.send(*pair, kind, what, channel=channel)  # or back to the store

    def late(self, pair: tuple[int, int], by: float, span: float) -> None:
        """Messages on this one-way pair take longer."""
        self.count["slow link"] += 1
        self.slow[pair] = by
        self.world.after(span, self.slow.pop, pair, None)

    # --- nodes

    def crash(self, node: int, how: str, span: float, mid_turn: bool) -> None:
        """A node, or its whole machine, dies, and comes back."""
        self.count[f"crash ({how})"] += 1
        target = self.world.nodes[node]
        if mid_turn and target.is_up and target.frozen_until is None:
            # in its next turn, after that was stored and before anything of it leaves
            target.trap = "crash"
            self._trapped[node] = (how, span)
            return
        self._crash(node, how, span)

    def crash_trapped(self, node: int) -> None:
        """The turn in which a node was to die has come."""
        self._crash(node, *self._trapped.pop(node))

    def _crash(self, node: int, how: str, span: float) -> None:
        target = self.world.nodes[node]
        target.crash(how, self.world.noise(12, node, int(self.world.now * 1000)))
        self.world.after(span, target.boot)

    def executor(self, node: int) -> None:
        """An executor is killed."""
        self.count["executor killed"] += 1
        self.world.nodes[node].kill_executor()

    def freeze(self, node: int, span: float, mid_turn: bool, keep: bool) -> None:
        """A node's process is stopped for a while; its executor goes on."""
        self.count["freeze"] += 1
        (self.deaf.discard if keep else self.deaf.add)(node)
        target = self.world.nodes[node]
        if mid_turn and target.is_up and target.frozen_until is None and target.trap is None:
            target.trap = f"freeze{span}"
        else:
            target.freeze(span)

    def clock(self, node: int, by: float) -> None:
        """A wall clock is set."""
        self.count["clock set"] += 1
        self.world.nodes[node].set_clock(by)

    def stop(self, node: int, span: float) -> None:
        """A node is told to stop, and started again later."""
        self.count["graceful stop"] += 1
        self.world.nodes[node].stop()
        self.world.after(span + 10.0, self.world.nodes[node].boot)

    def gone(self, node: int, how: str, deaf: list[int], span: float) -> None:
        """A node is not heard by some for a while, and then never comes back."""
        if deaf:
            self.cut([(node, other) for other in deaf if other != node], span + 10.0, holds=False)
        self.world.after(span, self._gone, node, how)

    def _gone(self, node: int, how: str) -> None:
        if self.world.now > self.world.quiet_at:
            return
        others = {one.index for one in self.world.nodes if one.index != node and not one.gone}
        if len(others) < 2 or not self._hang_together(others):
            return
        self.count["gone for good"] += 1
        target = self.world.nodes[node]
        if how == "stop":
            target.stop()
        else:
            target.crash(how, 0.5)
            if target.executor is not None and how == "process":
                target.executor.die()
        target.gone = True
        self.world.checks.on_gone(target)

    def _hang_together(self, nodes: set[int]) -> bool:
        """Whether these nodes can all hear of each other."""
        found, reached = set(), {min(nodes)}
        while reached - found:
            found |= reached
            reached |= {b for pair in self.world.plan.edges for a, b in (pair, pair[::-1]) if a in found and b in nodes}
        return found == nodes

    # --- the end

    def _join_elsewhere(self) -> None:
        """Where the one node is gone that others were told to join, their people name another one to them."""
        up = [node.index for node in self.world.nodes if not node.gone]
        if self.world.plan.discover:
            for index in up[1:]:
                fixed = self.world.fixed[index]
                if fixed and all(self.world.nodes[other].gone for other in fixed):
                    fixed.append(up[0])

    def heal(self) -> None:
        """All is repaired, but what is gone for good."""
        self._join_elsewhere()
        for number in list(self._cuts):
            self._mend(number)
        self.slow.clear()
        for node in self.world.nodes:
            node.trap = None
            if node.frozen_until is not None:
                node.frozen_until = self.world.now
                node._thaw(node.life)
            if node.is_stopping:
                self.world.after(12.0, node.boot)
            node.boot()
