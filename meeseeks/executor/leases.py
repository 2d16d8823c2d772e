"""Until when leased tasks may start and live. A renewal concerns all tasks of a lessor, and costs the same for any."""

from __future__ import annotations

from dataclasses import dataclass

from meeseeks.core.effects import Renew, Start

__all__ = ["Leases"]


@dataclass(slots=True)
class _Lease:
    tasks: int = 0
    start_by_at: float = 0.0
    kill_at: float = 0.0


class Leases:
    """The last renewals of those lessors that have tasks here."""

    def __init__(self) -> None:
        self._leases: dict[str, _Lease] = {}

    def join(self, order: Start) -> None:
        """A task of this lessor came."""
        if order.lessor is not None:
            self._leases.setdefault(order.lessor, _Lease()).tasks += 1

    def leave(self, order: Start) -> None:
        """It is gone."""
        if order.lessor is None:
            return
        lease = self._leases[order.lessor]
        lease.tasks -= 1
        if not lease.tasks:
            del self._leases[order.lessor]

    def renew(self, order: Renew) -> None:
        """Later deadlines for all tasks of the lessor; earlier ones change nothing."""
        lease = self._leases.get(order.lessor)
        if lease is not None:
            lease.start_by_at = max(lease.start_by_at, order.start_by_at)
            lease.kill_at = max(lease.kill_at, order.kill_at)

    def start_by_at(self, order: Start) -> float | None:
        """When it is too late to start this task; None: never."""
        if order.start_by_at is None or order.lessor is None:
            return order.start_by_at
        return max(order.start_by_at, self._leases[order.lessor].start_by_at)

    def kill_at(self, order: Start) -> float | None:
        """When this task must be gone; None: it has no such time."""
        if order.kill_at is None or order.lessor is None:
            return order.kill_at
        return max(order.kill_at, self._leases[order.lessor].kill_at)
