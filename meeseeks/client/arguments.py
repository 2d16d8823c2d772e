"""What callers hand to a Client, in the form in which it is sent, and how jobinfos are read."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Any

from meeseeks.core.record import END_STATES, KILLED, NEW
from meeseeks.errors import InvalidRequest

from .call import Repeat

__all__ = [
    "checked",
    "in_parts",
    "is_exited",
    "is_several",
    "jobs_meant",
    "lacks_output",
    "ready_spec",
    "requests_meant",
]

_AT_ONCE = 500
"""Jobinfos in one answer: with small outputs in them, thousands could be more than one message may hold."""


def checked(jobspec: Mapping[str, Any], *, new: bool) -> dict[str, Any]:
    """`core.spec.check`, imported at its first use: what only sends a jobspec leaves that to the node."""
    found: dict[str, Any] = import_module("meeseeks.core.spec").check(jobspec, new=new)
    return found


def is_several(node: object) -> bool:
    """Whether a jobspec's `node` stands for several nodes: a job is made on each."""
    return isinstance(node, (list, tuple)) or (isinstance(node, str) and node.endswith("*"))


def is_exited(info: Mapping[str, Any]) -> bool:
    """Whether a jobinfo is of a job that is over for good: ended, not active, and no rerun follows by itself."""
    state = info["state"]
    if state not in END_STATES or info["active"]:
        return False
    # What `restart` or `retries` lead to begins in the moment of the end: nobody sees that end.
    return state == KILLED or not info["resubmit"]


def ready_spec(jobspec: Mapping[str, Any]) -> tuple[dict[str, Any], Repeat]:
    """A jobspec as it is sent, with an id of our own if it has none, and what may be done if no answer comes."""
    if not isinstance(jobspec, Mapping):
        raise InvalidRequest(f"a jobspec is a map, not {type(jobspec).__name__}")
    spec = dict(jobspec)
    for key, value in spec.items():
        if isinstance(value, (set, frozenset)):  # it would travel as a list, in any order
            checked({key: value}, new=False)
    if spec.get("id") is None:
        spec["id"] = uuid.uuid4().hex
        if spec.get("state") == NEW:
            del spec["state"]  # a new job is new: said twice, it would rerun a job that had ended in between
    if spec.get("state") == NEW:
        # Rerunning is no state but an act: whether it was carried out can't be told from a job that has ended again.
        return spec, Repeat.NEVER
    is_change = spec.get("pool") is None or spec.get("args") is None  # it can make no job
    return spec, Repeat.ANYWHERE if is_change else Repeat.SAME_NODE


def jobs_meant(method: str, jids: object, filters: dict[str, Any]) -> str | list[str] | dict[str, Any]:
    """What a method's arguments name: one id, several ids, or filters. InvalidRequest unless it is one of these.

    No filter at all means every job, but not for a kill: that would be too easy to say by mistake.
    """
    if (jids is not None and filters) or (jids is None and not filters and method.startswith("kill")):
        raise InvalidRequest(f"{method} takes either an id, a list of ids, or key=value filters")
    if jids is None:
        return filters
    if isinstance(jids, str):
        return jids
    given: list[object] = list(jids) if isinstance(jids, Iterable) else [jids]
    ids = [jid for jid in given if isinstance(jid, str)]
    if len(ids) != len(given):
        raise InvalidRequest(f"{method}: job ids are strings, not {jids!r}")
    return ids


def requests_meant(request: object) -> dict[str, Any]:
    """{type: data} of a raw request, or InvalidRequest."""
    if not isinstance(request, dict) or not request:
        raise InvalidRequest(f"a request is a dict {{type: data}}, not {request!r}")
    return request


def lacks_output(info: Mapping[str, Any]) -> bool:
    """Whether a job has ended with output that was too large to travel in its status."""
    if info["state"] not in END_STATES or info["active"]:
        return False
    return any(info[f"{stream}_data"] is None and info[f"{stream}_size"] for stream in ("stdout", "stderr"))


def in_parts(ask: Callable[[Any], Any], what: str | list[str] | dict[str, Any]) -> Any:
    """What `ask` answers; of a long list of jobs so many at a time that an answer fits into a message."""
    if not isinstance(what, list) or len(what) <= _AT_ONCE:
        return ask(what)
    found: dict[str, Any] = {}
    for at in range(0, len(what), _AT_ONCE):
        found |= ask(what[at : at + _AT_ONCE])
    return found
