"""What a mesh sends and does, counted; and what that is a job."""

from __future__ import annotations

from typing import Any

from meeseeks.core.effects import Update
from meeseeks.wire import codec

__all__ = ["Counts"]


class Counts:
    """Of one span: messages and bytes by kind, merges, CPU."""

    def __init__(self, nodes: int) -> None:
        self.changes = 0
        """Records in broadcasts, each broadcast once."""
        self.messages = 0
        """Broadcasts with changes, once a subscriber."""
        self.bytes = 0
        self.beats = 0
        """Broadcasts with a heartbeat and nothing else, once a subscriber."""
        self.beat_bytes = 0
        """Of all heartbeats, those that travel with changes included."""
        self.merges = 0
        """Records that were taken in from another node."""
        self.syncs = 0
        self.sync_bytes = 0
        self.watcher_bytes = 0
        """To one client with a cache, heartbeats included."""
        self.out_bytes = [0] * nodes
        """Sent by each node, heartbeats and syncs' requests not included."""
        self.cpu_s = [0.0] * nodes
        self.seconds = 0.0

    def published(self, index: int, update: Update, size: int, listeners: int) -> None:
        """A broadcast to so many subscribers."""
        beats = sum(len(codec.encode(beat)) for beat in update.beats)
        self.beat_bytes += beats * listeners
        if not update.records:
            self.beats += listeners
            return
        self.changes += len(update.records)
        self.messages += listeners
        self.bytes += (size - beats) * listeners
        self.out_bytes[index] += (size - beats) * listeners
        self.merges += len(update.records) * listeners

    def watched(self, update: Update, size: int, watchers: int) -> None:
        """A broadcast to clients with a cache."""
        self.watcher_bytes += size if update.records and watchers else 0

    def synced(self, frame: bytes, records: int = 0) -> None:
        """A question, or an answer."""
        self.syncs += 1
        self.sync_bytes += len(frame)
        self.merges += records

    def take_cpu(self, cpu_s: list[float], seconds: float) -> None:
        """The CPU seconds of each core in this span, and how many simulated seconds it lasted."""
        self.cpu_s, self.seconds = cpu_s, seconds

    def a_job(self, jobs: int) -> dict[str, Any]:
        """What one of so many jobs cost, by names that say what and in which unit."""
        return {
            "changes": self.changes / jobs,
            "messages": self.messages / jobs,
            "bytes": self.bytes / jobs,
            "bytes sent by the busiest node": max(self.out_bytes) / jobs,
            "merges": self.merges / jobs,
            "syncs": self.syncs,
            "bytes to a watcher": self.watcher_bytes / jobs,
            "cpu of the last node, µs": 1e6 * self.cpu_s[-1] / jobs,
            "cpu of a node, µs": 1e6 * sum(self.cpu_s) / len(self.cpu_s) / jobs,
            "cpu of the busiest node, µs": 1e6 * max(self.cpu_s) / jobs,
        }

    def a_second(self) -> dict[str, Any]:
        """What a node sends and spends a second."""
        nodes = len(self.cpu_s)
        return {
            "messages to a node": self.beats / nodes / self.seconds,
            "bytes to a node": self.beat_bytes / nodes / self.seconds,
            "cpu of a node, % of a core": 100 * sum(self.cpu_s) / nodes / self.seconds,
        }
