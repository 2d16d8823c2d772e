"""`mks sub`: submit, and go on."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from . import batch
from .exits import OK
from .invocation import Invocation, client_options, json_option
from .jobspec import FROM_STDIN, JobCommand, job_options, jobspec
from .output import Listing, Printer
from .pick import warn_over, warn_stuck
from .views import masked

if TYPE_CHECKING:
    from meeseeks import Client

__all__ = ["sub_command"]

_IDS_ON_A_TERMINAL = 20
"""More ids than that say nothing to a person."""


class _SubCommand(JobCommand):
    takes_specs = True


@click.command("sub", cls=_SubCommand)
@job_options
@click.option("--array", metavar="N|FIRST-LAST", help="Submit N of it, numbered from 0 in MEESEEKS_ARRAY_INDEX.")
@click.option("--each", metavar="FILE", help="Submit it for each line of FILE (-: stdin), in MEESEEKS_ARRAY_ITEM.")
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
      mks sub --array 100 p -- sh -c './simulate --seed $MEESEEKS_ARRAY_INDEX'
      mks sub --each files.txt p -- sh -c 'gzip "$MEESEEKS_ARRAY_ITEM"'
      mks sub - < jobs.jsonl                   a jobspec a line: {"pool": "p", "args": ["true"]}

    The id of a job that is there changes that job. The jobs of --array and --each are called ID-0, ID-1, …: the filter
    'ID-*' means all of them. They have --env's environment. In jobs.jsonl a line that is wrong in itself is named, and
    nothing submitted. What only the node can refuse, such as a pattern that fits none, it refuses for up to 2,000 jobs
    that travel together; the jobs before these stay submitted, their ids are printed, and the exit code is 1.

    --json: an array of jobinfos.
    """  # noqa: D301 - click looks for the character itself
    jobs = _jobs(where, command, options)
    with call.client() as client:
        submitted, error = batch.submit_all(client, jobs)
        ended: dict[str, Any] = {}
        try:
            if not (wait and call.json):
                _tell(call.printer(), submitted)
            warn_stuck(submitted)
            warn_over({spec["id"]: submitted[spec["id"]] for spec in jobs.specs if _is_there(spec, submitted)})
            if wait and error is None:
                ended = _wait_for(call, client, submitted)
        finally:  # also where this is cut off: the jobs go on
            if wait and call.json:
                _show(call.printer(), ended or submitted)
        if error is not None:
            raise error
        return _report(client, ended) if wait else OK


def _wait_for(call: Invocation, client: Client, submitted: dict[str, Any]) -> dict[str, Any]:
    from .wait import wait_for
    from .wait_view import no_view, wait_view

    # In a pipe stdout has the ids, and nothing else.
    view = wait_view() if sys.stdout.isatty() and not call.json else no_view()
    return wait_for(client, lambda: call.client(refresh=1), submitted, None, view=view)


def _report(client: Client, ended: dict[str, Any]) -> int:
    from .wait import report

    return report(client, ended)


def _jobs(where: str, command: list[str], options: dict[str, Any]) -> batch.Batch:
    """The jobs that a command line stands for: all that can be wrong with them is found before any is sent."""
    array, each = options.pop("array"), options.pop("each")
    if where == FROM_STDIN:
        _refuse_options()
        return batch.of_lines()
    if array is not None and each is not None:
        raise click.UsageError("--array and --each exclude each other")
    spec = jobspec(where, command, options)
    if spec.get("stdin") == "-":
        raise click.UsageError("--stdin - hands our stdin on, and sub does not stay for that: use 'mks run', or a file")
    if array is not None:
        return batch.Batch(batch.array(spec, array))
    if each is not None:
        return batch.Batch(batch.each(spec, each))
    return batch.Batch([spec])


def _is_there(spec: dict[str, Any], submitted: dict[str, Any]) -> bool:
    """Whether a spec names a job that may have been there, and does not say itself what state it shall be in."""
    return spec.get("id") in submitted and "state" not in spec


def _refuse_options() -> None:
    """With jobspecs from stdin: an option of a job would be about none, or all, or those that don't say it."""
    ctx = click.get_current_context()
    for param in ctx.command.params:
        given = ctx.get_parameter_source(str(param.name)) is ParameterSource.COMMANDLINE
        if given and param.expose_value and param.name not in ("where", "wait"):
            raise click.UsageError(
                f"{param.opts[0]} does not go with '-': each jobspec on stdin says all of its job", ctx
            )


def _tell(printer: Printer, infos: dict[str, Any]) -> None:
    """Show the ids of what was submitted; where they can't be written, the error has them: the jobs are there."""
    try:
        _show(printer, infos)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        ids = list(infos)
        more = f" and {len(ids) - 1} more were" if len(ids) > 1 else " was"
        raise click.ClickException(f"can't write the output: {error.strerror}; {ids[0]}{more} submitted") from error


def _show(printer: Printer, infos: dict[str, Any]) -> None:
    rows = [(jid,) for jid in infos]
    if sys.stdout.isatty() and len(rows) > _IDS_ON_A_TERMINAL:
        rows = [(f"{len(rows)} jobs, from {rows[0][0]} to {rows[-1][0]}",)]
    printer.show(Listing(list(map(masked, infos.values())), (), rows))
