"""What is measured of each, whoever it is. Nothing of meeseeks is in here: it runs with a peer's own Python too."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tests.bench import limit
from tests.bench.limit import Beside
from tests.bench.sample import Figures, percentile, timed

__all__ = ["Missing", "Sizes", "Way", "command", "measure", "need"]

_WARM_UP = 3


class Missing(Exception):
    """A peer is not here; the text says how to install it."""


@dataclass(frozen=True)
class Sizes:
    """How many jobs each measurement takes, so that none takes longer than some ten seconds."""

    one: int
    many: int
    submits: int = 0
    shell: int = 10
    bare: int = 1000
    """Bare processes before each throughput, and after it."""

    def quick(self) -> Sizes:
        """For a look."""
        few = (min(self.one, 5), min(self.many, 20), min(self.submits, 20), min(self.shell, 2), 100)
        return Sizes(*few)


@dataclass(frozen=True)
class Way:
    """How jobs of /bin/true are run with two slots. A part that there is no such thing for is None."""

    sizes: Sizes
    one: Callable[[], object]
    """Run one, and know that it has ended."""
    many: Callable[[int], object]
    """Run so many, submitted ahead, and know that all have ended."""
    submit: Callable[[int], object] | None = None
    """Submit so many one by one, of which none runs meanwhile, and know that all were taken."""
    shell: Callable[[], object] | None = None
    """Submit one from a shell."""
    others: Mapping[str, tuple[Callable[[], object], int]] = field(default_factory=dict)
    """Other ways to run one, by name, and how often that is measured."""
    other_many: Mapping[str, Callable[[int], object]] = field(default_factory=dict)
    """Other ways to run many, by name."""


def measure(figures: Figures, way: Way, *, quick: bool) -> None:
    """Find all figures, each against bare processes beside it."""
    sizes = way.sizes.quick() if quick else way.sizes
    for _ in range(_WARM_UP):
        way.one()
    beside = Beside(block=20)
    figures.add_times("latency", beside.times(way.one, sizes.one), beside.bare_s)
    for name, (action, n) in way.others.items():
        times = beside.times(action, min(n, sizes.one))
        figures.add(f"latency p50, {name} / bare", percentile(times, 50) / beside.bare_s, "×")
    _measure_many(figures, "throughput", way.many, sizes)
    for name, many in way.other_many.items():
        _measure_many(figures, f"throughput, {name}", many, sizes)
    submit, shell = way.submit, way.shell
    if submit is not None:
        figures.add("submits", sizes.submits / timed(lambda: submit(sizes.submits)), "1/s")
    if shell is not None:
        nothing: list[float] = []
        times = []
        for _ in range(sizes.shell + 1):  # the first one reads from the disk
            nothing.append(timed(lambda: command([sys.executable, "-c", "pass"])))
            times.append(timed(shell))
        figures.add("shell submit", 1000 * percentile(times[1:], 50), "ms")
        figures.add("shell submit / python -c pass", percentile(times[1:], 50) / percentile(nothing[1:], 50), "×")


def _measure_many(figures: Figures, name: str, many: Callable[[int], object], sizes: Sizes) -> None:
    n = sizes.many
    before = limit.rate(sizes.bare)
    found = n / timed(lambda: many(n))
    bare = (before + limit.rate(sizes.bare)) / 2
    figures.add(name, found, "1/s")
    figures.add(f"{name} / bare", found / bare, "of")


def command(args: list[str], env: Mapping[str, str] | None = None) -> None:
    """Run a command to its end as cheaply as bare processes are; an AssertionError where it failed."""
    quiet = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1)]
    pid = os.posix_spawnp(args[0], args, env or os.environ, file_actions=quiet)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code == 0, f"{args} ended with {code}"


def need(found: object, install: str) -> None:
    """Missing, with these words, where something was not found."""
    if not found:
        raise Missing(install)
