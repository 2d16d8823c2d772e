"""Runs a seed, shrinks one that fails, and tells its story."""

from __future__ import annotations

import traceback
from collections import Counter
from typing import NamedTuple

from .plan import Plan, make_plan
from .world import World

__all__ = ["Outcome", "run_plan", "run_seed", "shrink", "tell"]


class Outcome(NamedTuple):
    """What came of a run."""

    seed: int
    violations: list[str]
    jobs: int
    starts: int
    turns: int
    seconds: float
    faults: Counter[str]


def run_seed(seed: int) -> Outcome:
    """Play a seed."""
    return run_plan(make_plan(seed))[0]


def run_plan(plan: Plan) -> tuple[Outcome, World]:
    """Play a script. A core that raises is a violation like any other."""
    world = World(plan)
    try:
        world.play()
    except Exception:  # noqa: BLE001 - whatever a core raises is what is looked for here
        world.checks.violation(None, f"the core raised\n{traceback.format_exc()}")
    checks = world.checks
    outcome = Outcome(
        plan.seed, checks.violations, len(checks.jobs), checks.starts, checks.turns, world.now, world.faults.count
    )
    return outcome, world


def shrink(plan: Plan, tries: int = 400) -> Plan:
    """Leave out as many actions as possible while it still fails: ever smaller pieces, as in delta debugging."""
    wanted = _kind_of(run_plan(plan)[0])
    numbers = [action.number for action in plan.actions]
    size = max(1, len(numbers) // 2)
    while tries > 0:
        left = False
        for start in range(0, len(numbers), size):
            rest = numbers[:start] + numbers[start + size :]
            tries -= 1
            if _kind_of(run_plan(plan.only(set(rest)))[0]) == wanted:
                numbers, left = rest, True
                break
            if tries <= 0:
                break
        if not left:
            if size == 1:
                break
            size = max(1, size // 2)
    return plan.only(set(numbers))


def _kind_of(outcome: Outcome) -> str | None:
    """What kind of violation it is, without names and numbers."""
    if not outcome.violations:
        return None
    text = outcome.violations[0].split(": ", 1)[1]
    lines = text.strip().splitlines()
    return lines[-1] if text.startswith("the core raised") else " ".join(lines[0].split()[:2])


def tell(plan: Plan, world: World, *, verbose: bool = False) -> str:
    """The story of a failed run: what broke, and what happened to the guilty jobs."""
    guilty = world.checks.guilty
    heartbeat = plan.settings[0].heartbeat
    lines = [
        f"seed {plan.seed}: {plan.shape}, discover={plan.discover}, memory={plan.memory}, heartbeat={heartbeat}",
        f"  named: {sorted(plan.named)}",
    ]
    for settings in plan.settings:
        pools = ", ".join(f"{name}={pool.slots}" for name, pool in settings.pools.items())
        lines.append(f"  {settings.name}: pools {pools}{', wait_in_pool' if settings.wait_in_pool else ''}")
    for note in world.checks.story:
        if verbose or note.job is None or note.job in guilty:
            lines.append(f"{note.at:9.3f} {note.job or '':6} {note.text}")
    lines += ["", *world.checks.violations]
    return "\n".join(lines)
