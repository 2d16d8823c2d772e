"""What issue 6 asks for, beside the figures that show it."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["GOALS", "Goal", "goal_of"]


class Goal(NamedTuple):
    """A bound that a figure is to keep."""

    at_most: bool
    bound: float

    @property
    def text(self) -> str:
        """As it reads in the table."""
        return f"{'≤' if self.at_most else '≥'} {self.bound:,g}"

    def is_reached(self, value: float) -> bool:
        """Whether a value keeps it."""
        return value <= self.bound if self.at_most else value >= self.bound


GOALS = {
    ("latency", "push p50 / bare"): Goal(at_most=True, bound=2.0),
    ("throughput", "whole / bare"): Goal(at_most=False, bound=0.65),
    ("submit", "submit_job"): Goal(at_most=False, bound=5000),
    ("submit", "submit_many"): Goal(at_most=False, bound=20_000),
    ("startup", "mks sub / python -c pass"): Goal(at_most=True, bound=9),
    ("peers", "latency p50 / bare"): Goal(at_most=True, bound=2.0),
    ("peers", "throughput / bare"): Goal(at_most=False, bound=0.65),
    ("peers", "submits"): Goal(at_most=False, bound=5000),
    ("peers", "shell submit / python -c pass"): Goal(at_most=True, bound=9),
    ("idle", "cpu of node and executor"): Goal(at_most=True, bound=1),
    ("idle", "rss of node and executor"): Goal(at_most=True, bound=60),
    ("growth", "push p50, 200,000 / empty"): Goal(at_most=True, bound=1.2),
    ("growth", "rss a finished job"): Goal(at_most=True, bound=2),
}


def goal_of(case: str, figure: str) -> Goal | None:
    """The goal of a figure, if it has one."""
    return GOALS.get((case, figure))
