"""All that travels between a job's own streams and whoever asks: output, following, input. One part of the loop."""

from __future__ import annotations

from meeseeks.core.node_state import NodeState
from meeseeks.executor.handle import ExecutorHandle

from .follow import Follows
from .input import InputWriter
from .output import OutputReader
from .peers import Peers
from .relay import Relay

__all__ = ["Streams"]


class Streams:
    """Its parts answer requests; `turn` and `tick` keep those going that can't be answered at once."""

    def __init__(self, state: NodeState, peers: Peers, executor: ExecutorHandle) -> None:
        self._relay = Relay(state, peers)
        self._executor = executor
        self.output = OutputReader(state, self._relay, executor.spool)
        self.follows = Follows(state, self._relay, self.output)
        self.input = InputWriter(state, self._relay, executor)

    def turn(self, now: float) -> None:
        """Once a turn, after what came in was read, and by `follows.look_at` at the latest."""
        self.input.on_fed(self._executor.take_fed())
        self.follows.look(now)

    def tick(self, now: float) -> None:
        """A few times a second: give up what nobody answers."""
        self._relay.expire(now)
        self.input.tick(now)
