"""What is shown of jobs, nodes and pools: jobinfos and statuses as Listings."""

from __future__ import annotations

import base64
import json
import re
import shlex
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .output import Listing

if TYPE_CHECKING:
    from meeseeks.config.check import Setting

    from .overview import PoolTotal

__all__ = [
    "command_line",
    "detail",
    "duration",
    "elapsed",
    "ended",
    "explanations",
    "failure",
    "has_failed",
    "job_details",
    "jobs",
    "localized",
    "masked",
    "moment",
    "nodes",
    "pool_totals",
    "pools",
    "settings",
]

_OPEN = "MEESEEKS_ARRAY_"
"""Variables that `mks sub` itself has set, and that are no secrets."""
_SHOWN_OUTPUT_CHARS = 4000
"""How much of a captured stream `get` shows; `mks run` and --json give all of it."""


def has_failed(info: Mapping[str, Any]) -> bool:
    """Whether the job is over, and not done."""
    return info["state"] in ("failed", "killed")


def failure(info: Mapping[str, Any]) -> str:
    """How a job that did not end well ended, in words."""
    if info["state"] == "killed":
        return f"job {info['id']} was killed"
    why = info["error"] or f"exit code {info['rc']}"
    args = info["args"]
    if why.startswith("can't start") and isinstance(args, (list, tuple)) and len(args) == 1 and " " in args[0]:
        why += "; a line for a shell goes after sh -c, as in: sh -c 'echo hello | wc'"
    return f"job {info['id']} failed on node {info['node']!r}: {why}"


def masked(info: Mapping[str, Any], named: Sequence[str] = ()) -> Mapping[str, Any]:
    """A jobinfo for the screen: values of its environment are `***` but for those that are asked for by name.

    They are often passwords, and screens are seen by others. Only what is printed is masked, never a job.
    """
    env = info.get("config", {}).get("env")
    if not isinstance(env, Mapping):
        return info
    shown = {
        name: value if name in named or "*" in named or name.startswith(_OPEN) else "***" for name, value in env.items()
    }
    return {**info, "config": {**info["config"], "env": shown}}


def _first_cells(info: Mapping[str, Any], now: float) -> tuple[str, str, str, str, str, str]:
    """Of a job in any list: id, state, pool, node, exit code, and how long it took or has been there."""
    rc = "-" if info["rc"] is None else str(info["rc"])
    return info["id"], info["state"], info["pool"], _node(info["node"]), rc, duration(elapsed(info, now))


def jobs(infos: Iterable[Mapping[str, Any]], now: float | None = None) -> Listing:
    """Jobs, oldest first, a line each. On a terminal, why one waits or has failed stands before its command."""
    now = time.time() if now is None else now
    ordered = sorted(map(masked, infos), key=lambda info: (info["submit_ts"], info["id"]))
    heads = ("ID", "STATE", "POOL", "NODE", "RC", "TIME", "COMMAND")
    is_shown = sys.stdout.isatty()
    rows = []
    for info in ordered:
        command, why = command_line(info["args"]), _why(info)
        row = _first_cells(info, now)
        rows.append((*row, f"[{why}] {command}" if why else command) if is_shown else (*row, command, why))
    return Listing(ordered, heads, rows, empty="no jobs")


def _why(info: Mapping[str, Any]) -> str:
    """Why a job waits, or has failed: nothing where its state and exit code say all."""
    if info["state"] == "new":
        return localized(info.get("reason") or "")
    return (info["error"] or "") if info["state"] == "failed" else ""


def job_details(infos: Iterable[Mapping[str, Any]], env_named: Sequence[str] = ()) -> Listing:
    """Everything that is known and set, `key value`, of each job, for a pipe."""
    infos = [masked(info, env_named) for info in infos]
    rows: list[tuple[str, ...]] = []
    for info in infos:
        if rows:
            rows.append(())
        rows += [(key, detail(key, value)) for key, value in info.items() if _is_worth_a_line(info, key)]
    return Listing(infos, (), rows, empty="no jobs")


def nodes(statuses: Mapping[str, Mapping[str, Any]]) -> Listing:
    """Nodes by name, a line each."""
    rows = [
        (
            name,
            status["state"],
            f"{status['address'] or '*'}:{status['port']}",
            f"{status['loadavg']:.2f}" if status["online"] else "-",
            status["version"],
            _places(status),
        )
        for name, status in sorted(statuses.items())
    ]
    return Listing(statuses, ("NODE", "STATE", "ADDRESS", "LOAD", "VERSION", "POOLS (running/slots)"), rows)


def pools(free: Mapping[str, Mapping[str, int | None]]) -> Listing:
    """Pools by name, a line for each node that has one."""
    rows = [
        (pool, node, "unlimited" if slots is None else str(slots))
        for pool, places in sorted(free.items())
        for node, slots in sorted(places.items())
    ]
    return Listing(free, ("POOL", "NODE", "FREE"), rows, empty="no pools")


def pool_totals(totals: Mapping[str, PoolTotal]) -> Listing:
    """Pools by name, each on all nodes together."""
    rows = []
    for pool, total in totals.items():
        slots = "unlimited" if total.slots is None else str(total.slots)
        notes = ",".join(word for word in ("hold", "drain") if getattr(total, word)) or "-"
        rows.append((pool, f"{total.running}/{slots}", str(total.waiting), notes, " ".join(total.nodes)))
    return Listing(totals, ("POOL", "RUNNING/SLOTS", "WAITING", "NOTE", "NODES"), rows, empty="no pools")


def ended(infos: Iterable[Mapping[str, Any]], now: float) -> Listing:
    """Jobs that have ended, in this order, with how long ago that was."""
    infos = list(infos)
    rows = [
        (
            *_first_cells(info, now),
            "-" if info["end_ts"] is None else duration(now - info["end_ts"]),
            f"[{why}] {command_line(info['args'])}" if (why := _why(info)) else command_line(info["args"]),
        )
        for info in infos
    ]
    return Listing(infos, ("ID", "STATE", "POOL", "NODE", "RC", "TIME", "AGO", "COMMAND"), rows)


def settings(config: Mapping[str, Any]) -> Listing:
    """A configuration as the `key=value` arguments that would make it."""
    return Listing(config, (), [(key, value) for key, value in _flat(config)])


def explanations(found: Sequence[Setting]) -> Listing:
    """Every setting: its key, what is allowed, its default, and what it means."""
    rows = [(one.key, one.allowed, "-" if one.default is None else str(one.default), one.description) for one in found]
    heads = ("KEY", "ALLOWED", "DEFAULT", "MEANS")
    return Listing([one._asdict() for one in found], heads, rows, folds=True)


def localized(text: str) -> str:
    """The times in a sentence of a node, which are UTC, as times of day here."""
    if " since " not in text:
        return text

    from calendar import timegm

    def here(found: re.Match[str]) -> str:
        return moment(timegm(time.strptime(found[0], "%Y-%m-%dT%H:%M:%SZ")))

    return re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", here, text)


def moment(at: float, now: float | None = None) -> str:
    """The time of day; with the date, unless that is today's."""
    today = time.strftime("%Y-%m-%d", time.localtime(now))
    date, clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at)).split()
    return clock if date == today else f"{date} {clock}"


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for key, value in config.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value, default=str)


def command_line(args: Any) -> str:
    """Args as one would type them; those of a pushed configuration as JSON."""
    return shlex.join(args) if isinstance(args, (list, tuple)) else json.dumps(args, default=str)


def duration(elapsed: float | None) -> str:
    """Seconds in few letters: 0.3s, 45s, 3m05s, 2h10m, 4d06h."""
    if elapsed is None:
        return "-"
    if elapsed < 10:
        return f"{max(0.0, elapsed):.1f}s"
    whole = round(elapsed)
    for unit, size, below, fraction in (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size}{unit}{whole % size // fraction:02}{below}"
    return f"{whole}s"


def elapsed(info: Mapping[str, Any], now: float) -> float | None:
    """How long the job ran, or runs; while it waits, how long it has waited."""
    submit: float = info["submit_ts"]
    start: float | None = info["start_ts"]
    end: float | None = info["end_ts"]
    if info["state"] == "new":
        return now - submit
    if start is None:
        return None
    return (now if end is None else end) - start


def _node(node: Any) -> str:
    return ",".join(node) if isinstance(node, list) else node or "-"


def _places(status: Mapping[str, Any]) -> str:
    """Its pools; of a node that is not there nothing is free, and what it said last is of no use."""
    if status["online"]:
        return " ".join(_pool(pool, of) for pool, of in sorted(status["pools"].items())) or "-"
    return f"silent for {duration(status['silent_s'])}" if sys.stdout.isatty() else "-"


def _pool(name: str, of: Mapping[str, Any]) -> str:
    slots = of["slots"] or "unlimited"
    notes = [word for word in ("hold", "drain") if of[word]]
    # What is next in line at the executor counts as running there: short jobs would read 4 of 2.
    running = min(of["running"], of["slots"] or of["running"])
    return f"{name}:{running}/{slots}" + (f"({','.join(notes)})" if notes else "")


def _is_worth_a_line(info: Mapping[str, Any], key: str) -> bool:
    value = info[key]
    if key in ("stdout_size", "stderr_size") and info[key.replace("size", "data")]:
        return False  # the data says it
    if key in ("id", "pool", "args", "state", "active", "rc"):
        return value is not None
    return value not in (None, "", [], {}, False, 0)


def detail(key: str, value: Any) -> str:
    """A value of a jobinfo as text."""
    if key == "args":
        return command_line(value)
    if key.endswith("_ts") or key == "ts":
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(value))
        return f"{stamp}.{int(value % 1 * 1000):03}"
    if key in ("stdout_data", "stderr_data"):
        text = base64.b64decode(value).decode(errors="replace")
        rest = len(text) - _SHOWN_OUTPUT_CHARS
        return text if rest <= 0 else f"{text[:_SHOWN_OUTPUT_CHARS]}… ({rest} more characters)"
    if key == "runtime":
        return duration(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else json.dumps(value, default=str)
