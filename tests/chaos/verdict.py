"""What was acknowledged, compared with what really happened, in the manner of Jepsen's test of Chronos.

Every rule errs on the side of the mesh: what a fault may explain, by the promises of DESIGN section 3, is no problem.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from .faults import Saboteur
from .load import Asked, over
from .marks import Marks, Run, output_of

__all__ = ["COUNTS", "Judge", "Problem"]

COUNTS = ("lost", "overlapping", "unexplained starts", "unkilled", "misreported", "outputs lost", "tables", "nodes")
"""lost: acknowledged and never ended (or a change that is gone). overlapping: two live copies at once. unexplained
starts: more than its spec, its users and the faults explain. unkilled: a kill was acknowledged, and the job lives on.
misreported: its state or exit code is not what happened. outputs lost: of a run that ended by itself. tables: they
differ. nodes: ended by themselves, or did not come back."""

_LOST_AFTER_S = 3.0  # 80 % of state.lost_after, at which a lease ends, less a heartbeat
_RECOVERY_S = 3.0
_KILLED_WITHIN_S = 8.0  # of calm: links and sync again, the grace, and a machine that has other things to do
_EXECUTOR_FAULTS = ("kill-executor", "crash")
_LOOK_BACK_S = 3.0

Output = Callable[[str], dict[str, Any]]
"""The jobinfo of one job, with its whole output."""


class Problem(NamedTuple):
    """A broken promise; `job` is None where it is about the mesh."""

    kind: str
    job: str | None
    text: str


class Judge:
    """Judges the jobs of a round, once all is repaired and quiet."""

    def __init__(self, marks: Marks, saboteur: Saboteur, now: float) -> None:
        self._marks = marks
        self._saboteur = saboteur
        self._now = now

    def judge(self, asked: Asked, info: Mapping[str, Any] | None, output: Output) -> Iterator[Problem]:
        """All that is wrong with one job; `info` is what the tables, equal by now, say."""
        runs = self._marks.of(asked.job)
        for overlap in self._marks.overlaps:
            if overlap.later.job == asked.job and not self._may_be_without_executor(overlap.earlier, overlap.later):
                yield Problem("overlapping", asked.job, f"{overlap.earlier} lived when {overlap.later} had begun")
        if info is None:
            if asked.answer == "acked":
                yield Problem("lost", asked.job, "it was acknowledged, and nobody knows it")
            if runs:
                yield Problem("lost", asked.job, "it has run, and nobody knows it")
            return
        if asked.answer == "refused":
            yield Problem("misreported", asked.job, "its submit was refused, and it is there")
        if not over(info):
            why = f"{info['state']}{' active' if info['active'] else ''} on {info['node']}: {info['error']}"
            yield Problem("lost", asked.job, f"it never ends: {why}")
            return
        yield from self._starts(asked, info, runs)
        yield from self._kills(asked, info, runs)
        yield from self._report(asked, info, runs)
        yield from self._change(asked, info)
        yield from self._output(asked, info, runs, output)

    def _may_be_without_executor(self, run: Run, later: Run) -> bool:
        """Whether nobody was there to end a run when its lease was over: no executor, and no node to start the next."""
        saboteur, begin, end = self._saboteur, run.started_at, later.started_at
        is_hit = saboteur.was(_EXECUTOR_FAULTS, run.node, begin, end)
        return is_hit and saboteur.troubled_s((run.node,), begin, end, 0.0) >= _LOST_AFTER_S

    # --- starts

    def _starts(self, asked: Asked, info: Mapping[str, Any], runs: list[Run]) -> Iterator[Problem]:
        if info["generation"] > 1 + asked.reruns:
            text = f"generation {info['generation']} after {asked.reruns} reruns"
            yield Problem("unexplained starts", asked.job, text)
        if asked.is_plain:
            if len(runs) > info["generation"]:
                yield Problem("unexplained starts", asked.job, f"{len(runs)} starts, 1 + {asked.reruns} were asked for")
            return
        for i in range(1, len(runs)):
            why_not = self._why_not(asked, info, runs[: i + 1])
            if why_not is not None:
                yield Problem("unexplained starts", asked.job, f"start {i + 1}: {why_not}")

    def _why_not(self, asked: Asked, info: Mapping[str, Any], runs: list[Run]) -> str | None:
        """Why the last of these runs has no reason to be; None if it has one."""
        before, last = runs[-2], runs[-1]
        if asked.starts_again or self._may_be_unheard(asked, info, before, last):
            return None
        if before.ended == "0":
            return f"the one before had succeeded on {before.node}"
        failures = sum(run.ended != "0" for run in runs[:-1])
        unheard = any(self._may_be_unheard(asked, info, one, last) for one in runs[:-1])
        if failures > asked.spec["retries"] and not unheard:
            return f"it had failed {failures} times, retries={asked.spec['retries']}"
        return None

    def _may_be_unheard(self, asked: Asked, info: Mapping[str, Any], run: Run, later: Run) -> bool:
        """Whether how a run ended may have been unknown to those who started a later one."""
        saboteur, begin, end = self._saboteur, run.started_at, later.started_at
        if saboteur.was(_EXECUTOR_FAULTS, run.node, begin - _LOOK_BACK_S, end):
            return True
        both = (run.node, info["submit_node"], asked.node)
        lookback = begin - 2 * _LOST_AFTER_S  # it may have been silent for a while when the run began
        return asked.may_move and saboteur.troubled_s(both, lookback, end, _RECOVERY_S) >= _LOST_AFTER_S

    # --- kills

    def _kills(self, asked: Asked, info: Mapping[str, Any], runs: list[Run]) -> Iterator[Problem]:
        for kill in asked.kills:
            if info["generation"] == kill.generation and info["state"] != "killed":
                text = f"a kill acknowledged by {kill.node} is forgotten: it reads {info['state']}"
                yield Problem("unkilled", asked.job, text)
            for run in runs if not asked.reruns else ():
                begin, end = max(kill.at, run.started_at), min(run.over_at, self._now)
                calm = self._saboteur.longest_calm_s((run.node, kill.node), begin, end) if end > begin else 0.0
                if calm > _KILLED_WITHIN_S:
                    yield Problem("unkilled", asked.job, f"{run} lived on for {calm:.1f} s of calm after its kill")
        for run in runs:
            if run.dead_at is None:
                yield Problem("unkilled", asked.job, f"it reads {info['state']}, and {run} lives")

    # --- what the tables say

    def _report(self, asked: Asked, info: Mapping[str, Any], runs: list[Run]) -> Iterator[Problem]:
        text = self._why_untrue(asked, info, runs)
        if text is not None:
            yield Problem("misreported", asked.job, text)

    def _why_untrue(self, asked: Asked, info: Mapping[str, Any], runs: list[Run]) -> str | None:
        state, rc, error = info["state"], info["rc"], info["error"] or ""
        last = runs[-1] if runs else None
        if state == "killed":
            return None if asked.tried_kill else "it reads killed, and nobody killed it"
        if state == "done":
            if last is None or last.ended != "0" or rc != 0 or info["pid"] not in (None, last.pid):
                return f"it reads done with rc={rc}, pid={info['pid']}, and the last run is {last}"
            if asked.is_plain and info["start_count"] != 1:
                return f"it reads done with start_count={info['start_count']}"
            return None
        if rc is not None and rc > 0:
            return None if last is not None and last.ended == str(rc) else f"it reads failed with rc={rc}: {last}"
        begin = runs[0].started_at if runs else asked.notes[0][0]
        if error == "executor lost":
            node = info["node"] or ""
            known = self._saboteur.was(_EXECUTOR_FAULTS, node, begin - _LOOK_BACK_S, self._now)
            return None if known else f"it reads failed, {error!r}, and nobody harmed the executor of {node}"
        if error.startswith("lease expired"):
            return None if asked.may_move else f"it has no lease, and reads failed, {error!r}"
        if self._saboteur.was(["disk-full"], info["node"] or "", begin - _LOOK_BACK_S, self._now):
            return None
        return f"it reads failed with rc={rc}, error={error!r}, and nothing explains it"

    def _change(self, asked: Asked, info: Mapping[str, Any]) -> Iterator[Problem]:
        # Of what users write on two sides of a cut the last one wins, and the spec is one register.
        if asked.tags is not None and info["tags"] != asked.tags and not (asked.tried_kill or asked.reruns):
            yield Problem("lost", asked.job, f"a change was acknowledged, and is gone: tags are {info['tags']}")

    def _output(self, asked: Asked, info: Mapping[str, Any], runs: list[Run], output: Output) -> Iterator[Problem]:
        # A killed executor takes what it has not told with it; it is no run that ended by itself then.
        if info["state"] not in ("done", "failed") or info["rc"] not in (0, 3) or not runs:
            return
        whole = output(asked.job) if info["stdout_data"] is None else info
        wanted = output_of(asked.job, runs[-1].pid, asked.lines)
        try:
            found = base64.b64decode(whole["stdout_data"] or "").decode(errors="replace")
        except (TypeError, KeyError):
            found = ""
        if found != wanted:
            text = f"{len(found)} of {len(wanted)} bytes of stdout are there (the table says {info['stdout_size']})"
            yield Problem("outputs lost", asked.job, text)
