"""A whole run: rounds of faults under load; after each all is healed, gets quiet, and is judged."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from meeseeks import Client
from meeseeks.errors import MeeseeksError

from .faults import Plan, Saboteur, make_plan
from .load import Asked, User, over
from .marks import SCRIPT, Marks
from .mesh import ChaosMesh
from .story import tell
from .tables import Tables, Watch, differences
from .verdict import COUNTS, Judge, Problem

__all__ = ["Campaign", "Options"]

_EQUAL_WITHIN_S = 5.0
_LEAVE_S = 5.0
_OUTPUT_WITHIN_S = 20.0
_STORIES = 3


@dataclass(frozen=True)
class Options:
    """What to do. `minutes` ends it early; `only` are the kinds of faults, all if it is empty."""

    seed: int
    faults: int = 40
    nodes: int = 3
    users: int = 4
    minutes: float | None = None
    only: tuple[str, ...] = ()
    round_size: int = 50
    gap_s: float = 1.0
    quiet_within_s: float = 60.0
    config: dict[str, object] = field(default_factory=dict)


class Campaign:
    """Runs it in a folder, and says what it does."""

    def __init__(self, options: Options, folder: Path, say: Callable[[str], None]) -> None:
        self.options = options
        self.problems: list[Problem] = []
        self._folder = folder
        self._say = say
        self._dice = random.Random(options.seed)
        self._wait = threading.Event().wait
        self._told = 0
        self._jobs = self._runs = self._unsure = 0
        self._slowest_equal_s = 0.0
        self._faults: Counter[str] = Counter()

    @property
    def counts(self) -> dict[str, int]:
        """How many problems of each kind."""
        found = Counter(problem.kind for problem in self.problems)
        return {kind: found[kind] for kind in COUNTS}

    def run(self) -> bool:
        """Whether all promises were kept."""
        options = self.options
        names = [chr(ord("a") + i) for i in range(options.nodes)]
        script = self._folder / "job.sh"
        script.write_text(SCRIPT)
        began_at = time.monotonic()
        with Marks(self._folder / "marks") as marks, ChaosMesh(self._folder, names, options.config) as mesh:
            kinds = [kind for kind in mesh.kinds if kind in options.only or not options.only]
            left_out = sorted(set(options.only or ("disk-full", "clock")) - set(mesh.kinds))
            self._say(f"seed {options.seed}: {options.faults} faults of {', '.join(kinds)} on {options.nodes} nodes")
            if left_out:
                self._say(f"left out, since this machine does not allow them: {', '.join(left_out)}")
            left, number = options.faults if kinds else 0, 0
            while left and not (options.minutes and time.monotonic() - began_at > 60 * options.minutes):
                size, number = min(left, options.round_size), number + 1
                self._round(number, size, kinds, mesh, marks)
                left = max(0, options.faults - sum(self._faults.values()))  # what could not be injected does not count
        self._summary(time.monotonic() - began_at)
        return not self.problems

    def _round(self, number: int, size: int, kinds: Sequence[str], mesh: ChaosMesh, marks: Marks) -> None:
        plan = make_plan(self._dice, mesh.names, kinds, size, self.options.gap_s)
        saboteur, prefix = Saboteur(mesh), f"r{number}-"
        with ExitStack() as stack:
            users = [self._user(stack, prefix, i, mesh, marks) for i in range(self.options.users)]
            clients = {name: stack.enter_context(mesh.client(name)) for name in mesh.names}
            self._break(plan, saboteur, users)
            healed_at = time.monotonic()
            watch = Watch(clients, prefix)
            differ = watch.lasting_differences(healed_at + _EQUAL_WITHIN_S, self._wait)
            equal_s = time.monotonic() - healed_at
            self._end_endless(users, clients)
            quiet_by = time.monotonic() + self.options.quiet_within_s
            tables = watch.until(lambda tables: _quiet(tables, len(clients)), quiet_by, self._wait)
            quiet_s = time.monotonic() - healed_at
            problems = [Problem("tables", jid, f"differ {_EQUAL_WITHIN_S:g} s after the last fault") for jid in differ]
            problems += [Problem("tables", jid, "differ for ever") for jid in differences(tables, len(clients))]
            problems += self._strange(mesh, marks, users)
            jobs = {job: asked for user in users for job, asked in user.jobs.items()}
            problems += self._judge(jobs, tables, Judge(marks, saboteur, time.monotonic()), clients)
        self._count(jobs, marks, saboteur, equal_s)
        self._say(
            f"round {number}: {sum(saboteur.counts.values())} faults, {len(jobs)} jobs, "
            f"{sum(len(marks.of(job)) for job in jobs)} starts; tables equal after {equal_s:.1f} s, "
            f"quiet after {quiet_s:.1f} s; {len(problems)} problems"
        )
        self._report(problems, jobs, tables, marks, saboteur)

    def _break(self, plan: Plan, saboteur: Saboteur, users: Sequence[User]) -> None:
        """All faults, while users ask for things; then nothing is broken, and nobody asks any more."""
        try:
            for user in users:
                user.start()
            saboteur.carry_out(plan, self._wait)
        finally:
            for user in users:
                user.stop()
            saboteur.heal()
            for user in users:
                user.join()

    def _strange(self, mesh: ChaosMesh, marks: Marks, users: Sequence[User]) -> list[Problem]:
        """What is wrong, and of no job."""
        found = [Problem("unkilled", None, f"left behind: {process}") for process in mesh.wait_nothing_left(_LEAVE_S)]
        found += [Problem("nodes", None, text) for text in mesh.died]
        found += [Problem("misreported", None, text) for user in users for text in user.defects]
        found += [Problem("misreported", None, f"a mark that is none: {line!r}") for line in marks.strange]
        mesh.died.clear()
        marks.strange.clear()
        return found

    def _user(self, stack: ExitStack, prefix: str, i: int, mesh: ChaosMesh, marks: Marks) -> User:
        clients = {name: stack.enter_context(mesh.client(name)) for name in mesh.names}
        name = f"{prefix}u{i}"
        return User(name, f"{self.options.seed} {name}", clients, marks, str(self._folder / "job.sh"))

    def _end_endless(self, users: Sequence[User], clients: dict[str, Client]) -> None:
        """Jobs that start again for ever are ended by their users, at any node that knows them."""
        for user in users:
            for asked in user.jobs.values():
                if asked.is_endless and asked.answer != "refused" and not asked.kills:
                    any(user.kill(asked, name) for name in clients)

    def _judge(self, jobs: dict[str, Asked], tables: Tables, judge: Judge, clients: dict[str, Client]) -> list[Problem]:
        if not tables:
            return [Problem("nodes", None, "no node answers")]
        infos = next(iter(tables.values()))

        def output(job: str) -> dict[str, Any]:
            name, until = self._dice.choice(sorted(clients)), time.monotonic() + _OUTPUT_WITHIN_S
            while True:
                try:
                    found = clients[name].query(job)
                except MeeseeksError as error:  # the machine may have stood still for as long as the client waits
                    if time.monotonic() > until:
                        return {"stdout_data": None, "error": f"{name}: {error}"}
                    self._wait(0.1)
                else:
                    return found if isinstance(found, dict) else {}

        return [problem for job, asked in jobs.items() for problem in judge.judge(asked, infos.get(job), output)]

    def _count(self, jobs: dict[str, Asked], marks: Marks, saboteur: Saboteur, equal_s: float) -> None:
        self._jobs += len(jobs)
        self._unsure += sum(asked.answer == "unsure" for asked in jobs.values())
        self._runs += sum(len(marks.of(job)) for job in jobs)
        self._slowest_equal_s = max(self._slowest_equal_s, equal_s)
        self._faults.update(saboteur.counts)

    def _report(
        self, problems: list[Problem], jobs: dict[str, Asked], tables: Tables, marks: Marks, saboteur: Saboteur
    ) -> None:
        self.problems += problems
        for problem in problems:
            self._say(f"  {problem.kind}: {problem.job or ''} {problem.text}")
        guilty = dict.fromkeys(problem.job for problem in problems if problem.job in jobs)
        for job in list(guilty)[: max(0, _STORIES - self._told)]:
            assert job is not None
            self._told += 1
            self._say(tell(jobs[job], tables, marks, saboteur))

    def _summary(self, took_s: float) -> None:
        faults = ", ".join(f"{count} {kind}" for kind, count in sorted(self._faults.items()))
        self._say(f"{sum(self._faults.values())} faults in {took_s / 60:.1f} minutes: {faults or 'none'}")
        self._say(f"{self._jobs} jobs ({self._unsure} without an answer), {self._runs} starts")
        self._say(f"tables equal {self._slowest_equal_s:.1f} s after the last fault at the latest")
        self._say(", ".join(f"{count} {kind}" for kind, count in self.counts.items()))


def _quiet(tables: Tables, nodes: int) -> bool:
    return not differences(tables, nodes) and all(over(info) for infos in tables.values() for info in infos.values())
