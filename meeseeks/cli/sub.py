"""`mks sub`: submit, and go on."""

from __future__ import annotations

from typing import Any

import click

from .exits import OK
from .invocation import Invocation, client_options, json_option
from .jobspec import JobCommand, job_options, jobspec
from .output import Listing, Printer
from .pick import warn_stuck
from .views import masked

__all__ = ["sub_command"]


@click.command("sub", cls=JobCommand)
@job_options
@click.option("--wait", is_flag=True, help="Return when it has ended, with exit code 1 if it failed or was killed.")
@client_options
@json_option
@click.pass_obj
def sub_command(call: Invocation, /, where: str, command: list[str], wait: bool, **options: Any) -> int:
    """Submit a job to POOL, on the node with most room or on NODE, and print its id.

    \b
      mks sub p -- ./simulate --seed 1
      mks sub --tag nightly --retries 2 --runtime 1h p@b -- make -C /srv/data
      mks sub 'p@*' -- uptime                  on every node that has the pool: an id each

    The id of a job that is there changes that job. --json: an array of jobinfos.
    """  # noqa: D301 - click looks for the character itself
    spec = jobspec(where, command, options)
    with call.client() as client:
        submitted = client.submit(**spec)
        warn_stuck(submitted)
        printer = call.printer()
        if not (wait and call.json):
            _show(printer, submitted)
        if not wait:
            return OK
        from .wait import report, wait_for

        ended = wait_for(client, list(submitted), None)
    if call.json:
        _show(printer, ended)
    return report(ended)


def _show(printer: Printer, infos: dict[str, Any]) -> None:
    printer.show(Listing(list(map(masked, infos.values())), (), [(jid,) for jid in infos]))
