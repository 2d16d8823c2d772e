"""Large output of ended jobs, which a cache's node does not broadcast and which was fetched. Guarded by its lock."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from meeseeks.core.record import Record

__all__ = ["Outputs"]

_KEPT, _KEPT_BYTES = 1000, 64 * 1024 * 1024


class Outputs:
    """By job: output of the very run that the record tells of."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[object, dict[str, Any]]] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, record: Record, info: Mapping[str, Any]) -> None:
        """Remember what the job's node told; of too many jobs, or bytes, the oldest is forgotten."""
        told = {key: info[key] for key in ("stdout_data", "stderr_data")}
        self.forget(record.spec.id)
        self._kept[record.spec.id] = (record.status.key, told)
        self._bytes += _size(told)
        while len(self._kept) > 1 and (len(self._kept) > _KEPT or self._bytes > _KEPT_BYTES):
            self.forget(next(iter(self._kept)))

    def of(self, record: Record) -> Mapping[str, Any]:
        """What of the jobinfo is known better than from the record."""
        key, told = self._kept.get(record.spec.id, (None, {}))
        return told if key == record.status.key else {}

    def forget(self, jid: str) -> None:
        """The job has left the cache."""
        _, told = self._kept.pop(jid, (None, {}))
        self._bytes -= _size(told)


def _size(told: Mapping[str, str | None]) -> int:
    return sum(len(data or "") for data in told.values())
