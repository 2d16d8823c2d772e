"""A job for a person: what became of it, as a story; then what was asked for, and what it wrote.

Only what its jobinfo holds is told. A programme reads the jobinfo itself.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from . import views
from .output import Listing

__all__ = ["stories"]

Info = Mapping[str, Any]
Row = tuple[str, str]


def stories(infos: Iterable[Info], env_named: Sequence[str] = (), now: float | None = None) -> Listing:
    """Each job as `name text` rows, with an empty row between two."""
    now = time.time() if now is None else now
    infos = [views.masked(info, env_named) for info in infos]
    rows: list[Row] = []
    for info in infos:
        if rows:
            rows.append(("", ""))
        rows += _head(info)
        rows += _story(info, now)
        rows += _asked(info)
        rows += _written(info)
    return Listing(infos, (), rows, empty="no jobs")


def _head(info: Info) -> Iterator[Row]:
    yield "job", info["id"]
    yield "command", views.command_line(info["args"])
    yield "pool", info["pool"]
    yield "state", _state(info)


def _state(info: Info) -> str:
    state: str = info["state"]
    if state == "killed" and info["active"]:
        return "killed, and not all of its processes are gone yet"
    if state == "new" and info.get("reason"):
        return f"new: {views.localized(info['reason'])}"
    if state == "failed":
        return f"failed: {_why_failed(info)}"
    return state


def _why_failed(info: Info) -> str:
    return info["error"] or f"exit code {info['rc']}"


def _is_live(info: Info) -> bool:
    return info["state"] in ("new", "running") or bool(info["active"])


def _story(info: Info, now: float) -> Iterator[Row]:
    """What happened, in the order in which it did."""
    node, runs = info["node"], info["start_count"]
    yield "submitted", f"{_when(info['submit_ts'], now)}, to node {info['submit_node']!r}"
    if info["generation"] > 1:
        yield "run again", f"{_times(info['generation'] - 1)}, because somebody asked for it"
    if info.get("assign_ts"):
        yield "assigned", f"{_when(info['assign_ts'], now)}, to node {node!r}"
    if info.get("claim_ts"):
        yield "claimed", f"{_when(info['claim_ts'], now)}, by pool {info['pool']!r} of node {node!r}"
    if runs > 1 or (info["fail_count"] and _is_live(info)):
        yield "retried", _retries(info)
    if info["start_ts"] is not None:
        process = f", as process {info['pid']}" if info["pid"] else ""
        waited = "" if runs > 1 else f", {views.duration(info['start_ts'] - info['submit_ts'])} after its submit"
        yield "started", f"{_when(info['start_ts'], now)}, on node {node!r}{process}{waited}"
    if info["state"] == "running":
        yield (
            "runs",
            f"for {views.duration(now - info['start_ts'])}"
            + (f" of at most {views.duration(info['runtime'])}" if info["runtime"] else ""),
        )
    if info["end_ts"] is not None:
        yield "ended", f"{_when(info['end_ts'], now)}{_how(info)}"


def _asked(info: Info) -> Iterator[Row]:
    """The rest of what was asked for."""
    for key in ("stdin", "stdout", "stderr"):
        if info[key] is not None:
            yield f"{key} file", info[key]
    for key in ("runtime", "retries"):
        if info[key]:
            yield key, views.detail(key, info[key])
    flags = [key for key in ("hold", "restart", "resubmit") if info[key]]
    if flags:
        yield "asks for", ", ".join(flags)
    if info["tags"]:
        yield "tags", ", ".join(info["tags"])
    for key, value in info["config"].items():
        if key == "env":
            yield key, " ".join(f"{name}={value}" for name, value in value.items())
        elif isinstance(info["args"], list):
            yield ("folder" if key == "cwd" else key), views.detail(key, value)


def _written(info: Info) -> Iterator[Row]:
    for stream in ("stdout", "stderr"):
        data, size = info[f"{stream}_data"], info[f"{stream}_size"]
        if data:
            yield stream, views.detail(f"{stream}_data", data)
        elif size and info.get("output_error"):
            yield stream, f"{size} bytes: {info['output_error']}"
        elif size and not _is_live(info):
            yield stream, f"{size} bytes: 'mks get {info['id']}' alone shows them"


def _retries(info: Info) -> str:
    text = f"started {_times(info['start_count'])}"
    if info["fail_count"]:
        text += f", failed {_times(info['fail_count'])}"
    if info["retries"]:
        used = info["fail_count"] if info["state"] == "running" else info["fail_count"] - 1
        left = max(0, info["retries"] - max(0, used))
        text += f"; {left} of {info['retries']} retries left" if _is_live(info) else f"; {info['retries']} retries"
    return text


def _how(info: Info) -> str:
    ran = "" if info["start_ts"] is None else f", after {views.duration(info['end_ts'] - info['start_ts'])}"
    if info["state"] == "failed":
        return f"{ran}: {_why_failed(info)}"
    if info["state"] == "killed":
        return f"{ran}: killed"
    return ran if info["rc"] is None else f"{ran}: exit code {info['rc']}"


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def _when(at: float, now: float) -> str:
    """A moment, and how long ago it was."""
    return f"{views.moment(at, now)}, {views.duration(now - at)} ago"
