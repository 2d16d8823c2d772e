"""From the words of a command line to the jobs at the node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .output import warn
from .overview import STATES
from .words import Selection

if TYPE_CHECKING:
    from meeseeks import Client

__all__ = ["infos_of", "warn_missing", "warn_over", "warn_stuck"]

_NAMED = 5
"""Ids that are not there, and are named."""
_NOWHERE = {"no online node has pool": "mks pools", "there is no node": "mks nodes", " is offline": "mks nodes"}
"""What stands in the reasons that a wrong name has, or a node that is gone, and what shows the right ones."""
_SETS = ("@", "-", "")
"""What follows the id that was given: for a job on each of several nodes, for --array, and in an id cut short."""


def infos_of(client: Client, chosen: Selection) -> dict[str, dict[str, Any]]:
    """The jobinfos of the chosen jobs, by id. An id that the node does not know is left out."""
    found: dict[str, dict[str, Any]] = client.query([*chosen.ids] or client.ls(**chosen.filters))
    return found


def warn_missing(client: Client, chosen: Selection, found: dict[str, Any], then: str = "") -> bool:
    """Say in a line on stderr which ids are not there, or that a filter matches nothing. Whether an id is missing.

    `then` is what became of the command.
    """
    missing = [jid for jid in chosen.ids if jid not in found]
    if missing:
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        ids = ", ".join(map(repr, missing[:_NAMED])) + more
        hint = _meant(client, missing[0]) or "'mks ls' shows those that are there"
        warn(f"no job has id {ids}{then}; {hint}")
    if not found and not chosen.ids:
        warn(f"no job matches {chosen}")
    return bool(missing)


def _meant(client: Client, jid: str) -> str:
    """What to give in place of an id that is a state, or only the beginning of others; '' if it is neither."""
    if not jid:
        return ""
    if jid in STATES:
        return f"'state={jid}' means the jobs that are"
    for pattern in (f"{jid}{mark}*" for mark in _SETS):
        ids = client.ls(id=pattern)
        if ids:
            others = f" and {len(ids) - 1} more" if len(ids) > 1 else ""
            return f"'{pattern}' is {ids[0]}{others}"
    return ""


def warn_stuck(submitted: dict[str, dict[str, Any]]) -> bool:
    """Say in a line on stderr that a new job waits for a pool or node that is not there; whether there is one."""
    for jid, info in submitted.items():
        reason = info.get("reason") or ""
        for words, command in _NOWHERE.items():
            if words in reason:
                shows = f"'{command}' shows those that are there"
                if reason.endswith("(pools are: none)"):
                    shows = f"'mks conf pools.{info['pool']}.slots=2' makes one"
                warn(f"job {jid} waits: {reason}; {shows}, 'mks kill {jid}' takes it back")
                return True
    return False


def warn_over(submitted: dict[str, dict[str, Any]]) -> None:
    """Say in a line on stderr that an id was of a job that has ended: it has changed, and nothing runs."""
    over = [(jid, info["state"]) for jid, info in submitted.items() if info["state"] in ("done", "failed", "killed")]
    if over:
        (jid, state), more = over[0], f" (so are {len(over) - 1} more)" if len(over) > 1 else ""
        warn(f"job {jid} was there and is {state}{more}: it does not run again; 'mks set {jid} state=new' makes it")
