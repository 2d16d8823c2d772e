"""`mks ls` and `mks get`: what is known of jobs."""

from __future__ import annotations

import sys

import click

from . import views
from .exits import FAILED, OK
from .invocation import Invocation, client_options, json_option
from .pick import infos_of, warn_missing
from .words import selection

__all__ = ["get_command", "ls_command"]


@click.command("ls")
@click.argument("words", metavar="[FILTER]...", nargs=-1)
@client_options
@json_option
@click.pass_obj
def ls_command(call: Invocation, /, words: tuple[str, ...]) -> int:
    """List jobs: all, or those that match every FILTER.

    \b
      mks ls state=running
      mks ls tag=nightly node=b*

    On a terminal, why a job waits or has failed stands before its command, and ids for which it is too narrow are cut
    in their middle (…). In a pipe: a line a job with id, state, pool, node, exit code, time, command, and why it waits
    or has failed, separated by tabs.

    --json: an array of jobinfos.
    """  # noqa: D301 - click looks for the character itself
    chosen = selection(words)
    with call.client() as client:
        found = infos_of(client, chosen)
        missing = bool(words) and warn_missing(client, chosen, found)
    if found or not words or call.json:
        call.printer().show(views.jobs(found.values()))
    return FAILED if missing else OK


@click.command("get")
@click.argument("words", metavar="JID...|FILTER...", nargs=-1, required=True)
@click.option("--env", "named", multiple=True, metavar="NAME", help="Show this variable's value; '*' shows all.")
@client_options
@json_option
@click.pass_obj
def get_command(call: Invocation, /, words: tuple[str, ...], named: tuple[str, ...]) -> int:
    """Show all that is known of jobs, with the beginning of their output: what became of them, where, when
    and why; and of those that wait, what for.

    Values of a job's own environment are often secrets: they read ***, here and in the JSON of every command.

    In a pipe: a line a key, separated from its value by a tab, and an empty line between two jobs.

    --json: an array of jobinfos, with stdout_data and stderr_data in base64.
    """
    chosen = selection(words)
    with call.client() as client:
        found = infos_of(client, chosen)
        for jid in chosen.ids:
            if jid in found:
                found[jid] = client.query(jid) or found[jid]  # by its id alone, large output comes along
        missing = warn_missing(client, chosen, found)
    if sys.stdout.isatty() and not call.json:
        from .story import stories

        listing = stories(found.values(), named)
    else:
        listing = views.job_details(found.values(), named)
    if found or call.json:
        call.printer().show(listing)
    return FAILED if missing else OK
