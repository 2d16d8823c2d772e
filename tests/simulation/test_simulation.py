"""The promises of DESIGN section 3, in runs that break everything; and that the simulator would notice if they failed.

`tools/simulate --seed N` replays a seed that failed here, shrinks it and tells its story.
"""

from __future__ import annotations

import os

import pytest

from meeseeks.core.node_state import NodeState
from tests.simulation.mutants import MUTANTS
from tests.simulation.plan import make_plan
from tests.simulation.runner import run_plan, run_seed, shrink, tell

FOUND = [948, 3406, 5514, 5846, 5900, 7144, 32092, 405282, 701044, 2004528, 3906331179]
"""Seeds that failed once, with the plans as they are now. What they found is in unit tests as well."""
BLOCKS = 8
SEEDS_A_BLOCK = 4
FIRST_SEED = {
    "heard-lately": 0,
    "not-known-to-run": 10,
    "leased-while-retries-are-left": 7,
    "no-coverage": 163,
    "no-fence": 16,
    "judge-at-once-after-waking": 1,
    "kill-merges-like-the-rest": 0,
    "rerun-before-the-end": 196,
    "what-expired-is-new": 66,
    "a-kill-expires": 1055,
}
"""A seed that finds each fault; `tools/simulate --mutant NAME` looks for the first one. Another plan, another seed."""


def check(seed: int) -> None:
    """Play a seed; a failure says how to see its story."""
    violations = run_seed(seed).violations
    assert not violations, f"`tools/simulate --seed {seed}` tells the story of: {violations[0]}"


@pytest.mark.parametrize("block", range(BLOCKS))
def test_fixed_seeds(block: int) -> None:
    for seed in range(block * SEEDS_A_BLOCK, (block + 1) * SEEDS_A_BLOCK):
        check(seed)


@pytest.mark.parametrize("block", range(BLOCKS))
def test_fresh_seeds(block: int) -> None:
    for _ in range(SEEDS_A_BLOCK):
        check(int.from_bytes(os.urandom(4)))


@pytest.mark.parametrize("seed", FOUND)
def test_seeds_that_failed_once(seed: int) -> None:
    check(seed)


@pytest.mark.parametrize("name", sorted(FIRST_SEED))
def test_a_broken_core_is_caught(name: str) -> None:
    with MUTANTS[name]():
        assert run_seed(FIRST_SEED[name]).violations


def test_a_seed_replays_exactly() -> None:
    first, second = (run_plan(make_plan(12))[1].checks.story for _ in range(2))
    assert first == second
    assert len(first) > 100


def test_a_failure_is_shrunk_to_a_short_story() -> None:
    with MUTANTS["judge-at-once-after-waking"]():
        plan = make_plan(FIRST_SEED["judge-at-once-after-waking"])
        small = shrink(plan, tries=30)
        outcome, world = run_plan(small)
        assert outcome.violations
        assert len(small.actions) < len(plan.actions) / 4
        assert "VIOLATION" in tell(small, world)


def test_a_core_that_raises_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: NodeState, update: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(NodeState, "on_update", broken)
    assert "a defect" in run_seed(0).violations[0]
