"""A node's disk: what is forced to it survives a power cut, the rest only the death of a process."""

from __future__ import annotations

from typing import NamedTuple

from meeseeks.core.record import Record

__all__ = ["Disk"]


class Write(NamedTuple):
    """What one turn stored."""

    rows: list[tuple[int, Record]]
    gone: list[str]
    seq: int


class Disk:
    """As `state.sync: acks`: a turn that answers a client is forced to the disk at once, others within a second."""

    def __init__(self) -> None:
        self.rows: dict[str, tuple[int, Record]] = {}
        self.seq = 0
        self.boots = 0
        self._unsynced: list[Write] = []
        self._oldest_at = 0.0

    def write(self, write: Write, now: float, *, force: bool) -> None:
        """A turn's transaction."""
        if not self._unsynced:
            self._oldest_at = now
        self._unsynced.append(write)
        if force or now - self._oldest_at >= 1.0:
            self.sync()

    def sync(self) -> None:
        """All of it is safe."""
        for rows, gone, seq in self._unsynced:
            for at, record in rows:
                self.rows[record.spec.id] = (at, record)
            for jid in gone:
                self.rows.pop(jid, None)
            self.seq = seq
        self._unsynced.clear()

    def power_cut(self, now: float, luck: float) -> set[str]:
        """Lose a part of what was not forced; the ids of the jobs about which something was lost."""
        if now - self._oldest_at >= 1.0:
            self.sync()
        kept = int(luck * (len(self._unsynced) + 1))
        lost = {record.spec.id for write in self._unsynced[kept:] for _, record in write.rows}
        del self._unsynced[kept:]
        self.sync()
        return lost

    def read(self) -> list[tuple[int, Record]]:
        """All rows, in the order of their seq."""
        self.sync()
        return sorted(self.rows.values(), key=lambda row: row[0])
