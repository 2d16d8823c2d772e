"""What was found, as a table for people and as JSON for programs."""

from __future__ import annotations

import os
import platform
import subprocess
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .campaign import Campaign, Key, Options, Row
from .goals import goal_of
from .peers.listed import OURS
from .revisions import Revision

__all__ = ["as_json", "as_table", "number"]

FORMAT = 1
"""Of the JSON: it grows by one when a key changes its meaning."""


def as_json(options: Options, revisions: Sequence[Revision], campaign: Campaign) -> dict[str, Any]:
    """Everything, one entry a figure of a subject."""
    results = []
    for key, row in campaign.rows.items():
        goal = goal_of(key.case, key.figure)
        results.append(
            {
                **key._asdict(),
                "unit": row.unit,
                "median": row.median,
                "min": min(row.values),
                "max": max(row.values),
                "values": row.values,
                "goal": goal.text if goal else None,
                "reached": goal.is_reached(row.median) if goal else None,
            }
        )
    return {
        "format": FORMAT,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "quick": options.quick,
        "repetitions": options.repetitions,
        "revisions": [{"label": r.label, "commit": r.commit} for r in revisions],
        "results": results,
        "series": [{**key._asdict(), "points": points} for key, points in campaign.series.items()],
        "notes": campaign.notes,
        "failures": campaign.failures,
    }


def machine() -> dict[str, Any]:
    """Where it was measured."""
    cpus = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    disk = subprocess.run(
        ["df", "--output=fstype", tempfile.gettempdir()], capture_output=True, text=True, check=False
    ).stdout.split()
    return {
        "cores": len(os.sched_getaffinity(0)),
        "cpu": cpus[0].partition(":")[2].strip() if cpus else "",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "state_on": disk[-1] if disk else "",
        "load": round(os.getloadavg()[0], 2),
    }


def as_table(campaign: Campaign, labels: Sequence[str]) -> str:
    """A block a case; a line a figure: the median of each subject with its spread, the goal, and how they compare."""
    cases = dict.fromkeys(key.case for key in campaign.rows)
    parts = [_peers(campaign.rows, case) if case == "peers" else _block(campaign.rows, case, labels) for case in cases]
    parts += ["\n".join(f"note: {note}" for note in campaign.notes)] if campaign.notes else []
    parts += ["\n".join(f"FAILED: {failure}" for failure in campaign.failures)] if campaign.failures else []
    return "\n\n".join(parts)


def _block(rows: dict[Key, Row], case: str, labels: Sequence[str]) -> str:
    here = {key: row for key, row in rows.items() if key.case == case}
    subjects = [label for label in labels if any(key.subject == label for key in here)]
    subjects += [s for s in dict.fromkeys(key.subject for key in here) if s not in subjects]
    lines = [[case, "", *subjects, *(["ratio"] if len(subjects) == 2 else []), "goal"]]
    for figure in dict.fromkeys(key.figure for key in here):
        found = [here.get(Key(case, figure, subject)) for subject in subjects]
        unit = next(row.unit for row in found if row)
        line = [f"  {figure}", unit, *(_spread(row) if row else "–" for row in found)]
        if len(subjects) == 2:
            line.append(_ratio(found[0], found[1]))
        lines.append([*line, _judged(case, figure, found[0])])
    return _columns(lines)


def _peers(rows: dict[Key, Row], case: str) -> str:
    """A line a subject, a column a figure that several have; below it what only one has."""
    here = {key: row for key, row in rows.items() if key.case == case}
    subjects = list(dict.fromkeys([OURS, *(key.subject for key in here)]))
    having: dict[str, list[str]] = {}
    for key in here:
        having.setdefault(key.figure, []).append(key.subject)
    several = [figure for figure, found in having.items() if len(found) > 1 or len(subjects) == 1]
    several = [figure for figure in several if not figure.endswith("p90")]
    lines = [[case, *several]]
    for subject in subjects:
        found = [here.get(Key(case, figure, subject)) for figure in several]
        lines.append([f"  {subject}", *(f"{_spread(row)} {row.unit}" if row else "–" for row in found)])
    goals = [goal_of(case, figure) for figure in several]
    lines.append(["  goal of meeseeks", *(goal.text if goal else "" for goal in goals)])
    alone = [key for key in here if key.figure not in several and len(having[key.figure]) == 1]
    more = [f"  {key.subject}: {key.figure} {_spread(here[key])} {here[key].unit}" for key in alone]
    return "\n".join([_columns(lines), *more])


def _columns(lines: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def _spread(row: Row) -> str:
    if len(row.values) == 1:
        return number(row.median)
    return f"{number(row.median)} ({number(min(row.values))}–{number(max(row.values))})"


def _ratio(first: Row | None, second: Row | None) -> str:
    return f"{first.median / second.median:.2f}" if first and second and second.median else "–"


def _judged(case: str, figure: str, row: Row | None) -> str:
    goal = goal_of(case, figure)
    if goal is None or row is None:
        return ""
    return f"{goal.text} {'yes' if goal.is_reached(row.median) else 'NO'}"


def number(value: float) -> str:
    """Three digits that mean something; whole numbers with commas from a thousand on."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) >= 100 or value == 0:
        return f"{value:.0f}"
    return f"{value:.3g}"
