"""`mks wait`: return when jobs have ended."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from . import views
from .exits import FAILED, OK
from .invocation import Invocation, address_option, debug_option, json_option
from .output import warn
from .pick import infos_of, warn_missing
from .words import selection

if TYPE_CHECKING:
    from meeseeks import Client

__all__ = ["report", "wait_command", "wait_for"]

_AT_ONCE = 500
_NAMED_FAILURES = 5


@click.command("wait")
@click.argument("words", metavar="JID...|FILTER...", nargs=-1, required=True)
@click.option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="Give up then, with exit code 3.")
@address_option
@debug_option
@json_option
@click.pass_obj
def wait_command(call: Invocation, /, words: tuple[str, ...], timeout: float | None) -> int:
    """Wait until jobs have ended, with all their processes. A filter stands for the jobs that match it now.

    Exit code 1 if one of them failed, was killed or is not there. --json: an array of jobinfos.
    """
    chosen = selection(words)
    with call.client() as client:
        found = infos_of(client, chosen)
        missing = warn_missing(chosen, found)
        ended = wait_for(client, list(found), timeout)
    if call.json:
        call.printer().show(views.jobs(ended.values()))
    return FAILED if missing else report(ended)


def wait_for(client: Client, jids: list[str], timeout: float | None) -> dict[str, Any]:
    """The jobinfos of these jobs, once all have ended; RequestTimeout after `timeout` seconds."""
    deadline = None if timeout is None else time.monotonic() + timeout
    ended: dict[str, Any] = {}
    for at in range(0, len(jids), _AT_ONCE):
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        ended.update(client.wait_for(jids[at : at + _AT_ONCE], left))
    return {jid: info for jid, info in ended.items() if info}


def report(infos: dict[str, Any]) -> int:
    """The exit code for these ended jobs; names the first that failed on stderr."""
    failed = [info for info in infos.values() if views.has_failed(info)]
    for info in failed[:_NAMED_FAILURES]:
        warn(views.failure(info))
    if len(failed) > _NAMED_FAILURES:
        warn(f"and {len(failed) - _NAMED_FAILURES} more; 'mks ls state=failed' and 'mks ls state=killed' show them")
    return FAILED if failed else OK
