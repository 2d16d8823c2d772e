"""`mks kill` and `mks set`: what is done to jobs that are there."""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any

import click

from meeseeks.errors import InvalidRequest

from . import views
from .exits import FAILED, OK
from .invocation import Invocation, client_options, json_option
from .output import warn
from .pick import infos_of, warn_missing
from .words import job_change, selection

__all__ = ["kill_command", "set_command"]

_ON_A_TERMINAL = 50
"""More rows than that say nothing to a person who knows what was asked for."""


@click.command("kill")
@click.argument("words", metavar="JID...|FILTER...", nargs=-1, required=True)
@client_options
@json_option
@click.pass_obj
def kill_command(call: Invocation, /, words: tuple[str, ...]) -> int:
    """Kill jobs, with every process that they have started. A job that has ended stays as it is.

    Returns at once; 'mks wait' returns when their processes are gone. --json: an array of jobinfos.
    """
    chosen = selection(words)
    with call.client() as client:
        # By ids, which are sent in parts: what a filter matches could be more than the answer may tell.
        found: dict[str, Any] = client.kill([*chosen.ids] or client.ls(**chosen.filters))
        missing = warn_missing(client, chosen, found)
    _show(call, found)
    return FAILED if missing else OK


@click.command("set")
@click.argument("words", metavar="[JID]... KEY=VALUE...", nargs=-1, required=True)
@click.option("--where", multiple=True, metavar="KEY=VALUE", help="A filter, in place of ids; may be repeated.")
@client_options
@json_option
@click.pass_obj
def set_command(call: Invocation, /, words: tuple[str, ...], where: tuple[str, ...]) -> int:
    """Change jobs: any key of a jobspec. An empty value is the key's default.

    Up to 2,000 jobs are changed all or, if the node refuses one, not at all; of more, 2,000 at a time, and where some
    were changed and others not, the error says which, with exit code 1.

    \b
      mks set fetch hold=false                 release a held job
      mks set fetch state=new                  run it again
      mks set fetch node=b state=new           run it again, on node b
      mks set --where tag=nightly retries=3 runtime=2h tags=nightly,slow

    --json: an array of jobinfos.
    """  # noqa: D301 - click looks for the character itself
    ids = [word for word in words if "=" not in word]
    changes = dict(job_change(word) for word in words if "=" in word)
    if not changes:
        raise click.UsageError("say what to change, as in 'mks set JID hold=false'")
    if not ids and not where:
        raise click.UsageError("say which jobs to change: their ids, or --where and a filter")
    if ids and where:
        raise click.UsageError("say which jobs to change by ids or by --where, not both")
    if "id" in changes:
        raise InvalidRequest("the id of a job can't be changed")
    chosen = selection(where or ids)
    with call.client() as client:
        found = infos_of(client, chosen)
        if warn_missing(client, chosen, found, ": nothing was changed"):
            return FAILED
        risky = [jid for jid, info in found.items() if changes.get("state") == "new" and _was_lost(info)]
        changed = client.submit_many({"id": jid, **changes} for jid in found)
    for jid in risky:
        warn(f"{jid} runs again, although node {found[jid]['node']!r} may still run it: it was lost, not seen to end")
    _show(call, changed)
    return OK


def _show(call: Invocation, infos: dict[str, Any]) -> None:
    """These jobs as they are now; on a terminal, of very many how many there are."""
    if not call.json and sys.stdout.isatty() and len(infos) > _ON_A_TERMINAL:
        states = Counter(info["state"] for info in infos.values())
        click.echo(f"{len(infos)} jobs: {', '.join(f'{count} {state}' for state, count in states.most_common())}")
    elif infos or call.json:
        call.printer().show(views.jobs(infos.values()))


def _was_lost(info: dict[str, Any]) -> bool:
    return info["state"] == "failed" and info["rc"] is None and str(info["error"]).endswith(" lost")
