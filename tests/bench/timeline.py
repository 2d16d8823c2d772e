"""Where the time of one job goes, step by step through the processes that have to do with it."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

from .latency import WARM_UP, through_cache
from .limit import Beside
from .place import Place
from .sample import percentile

__all__ = ["timeline"]

_TRACING = Path(__file__).parent / "tracing"
_BEGIN, _END = "called", "the caller goes on"


def timeline(place: Place) -> None:
    """One job at a time by the cache: the median of each step in µs, and of the whole. The notes take some 40 of it."""
    steps = _steps()
    notes = place.folder / "steps"
    before = {name: os.environ.get(name) for name in ("MEESEEKS_STEPS", "PYTHONPATH")}
    os.environ["MEESEEKS_STEPS"] = str(notes)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(_TRACING), *filter(None, [before["PYTHONPATH"]])])
    unwrapped = _wrap_here(steps)
    try:
        with place.nodes() as (node,), place.push_client(node) as client:

            def one() -> None:
                steps.note(_BEGIN)
                through_cache(client)
                steps.note(_END)

            for _ in range(WARM_UP):
                through_cache(client)
            beside = Beside()
            beside.times(one, place.many(300, 20))
    finally:
        for holder, attribute, call in unwrapped:
            setattr(holder, attribute, call)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    names = [_BEGIN, *(step[3] for step in steps.STEPS), _END]
    jobs = _jobs(notes.read_text(), names)
    for number, name in enumerate(names[1:], 1):
        place.figures.add(name, percentile([at[number] - at[number - 1] for at in jobs], 50), "µs")
    place.figures.add("the whole", percentile([at[-1] - at[0] for at in jobs], 50), "µs")
    place.figures.add("bare p50", 1e6 * beside.bare_s, "µs")


def _steps() -> Any:
    sys.path.insert(0, str(_TRACING))
    try:
        return import_module("meeseeks_steps")
    finally:
        sys.path.remove(str(_TRACING))


def _wrap_here(steps: Any) -> list[tuple[Any, str, Any]]:
    """Wrap what the client, which is in this process, has of the steps; and how to undo that."""
    undo: list[tuple[Any, str, Any]] = []
    for module, path, _, _ in steps.STEPS:
        if module.startswith("meeseeks.client."):
            owner, attribute = path.split(".")
            holder = getattr(import_module(module), owner)
            undo.append((holder, attribute, getattr(holder, attribute)))
            steps.wrap(import_module(module))
    return undo


def _jobs(notes: str, names: list[str]) -> list[list[float]]:
    """For each job the times, in µs, at which it came to each step: the first of that name after the one before."""
    lines = sorted((int(at), name) for at, _, name in (line.partition(" ") for line in notes.splitlines()))
    begins = [number for number, (_, name) in enumerate(lines) if name == _BEGIN]
    found = []
    for first, last in pairwise([*begins, len(lines)]):
        left = iter(names)
        wanted, at = next(left), list[float]()
        for when, name in lines[first:last]:
            if name == wanted:
                at.append(when / 1000)
                wanted = next(left, "")
        if len(at) == len(names):
            found.append(at)
    assert found, "no job came to all steps in their order"
    return found
