"""The command line of a job, `[options] POOL[@NODE] -- CMD…`, and the jobspec that it stands for."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from meeseeks.errors import InvalidRequest

from .words import name_value, seconds, target

__all__ = ["JobCommand", "job_options", "jobspec"]

F = TypeVar("F", bound=Callable[..., Any])

_KEPT_VARIABLES = ("PATH", "HOME", "USER", "LANG")
"""What of the caller's environment goes along with `--env`, which replaces the node's own."""

_OPTIONS = (
    click.option("--id", "jid", metavar="ID", help="The job's id; default: a new UUID."),
    click.option("--tag", "tags", multiple=True, metavar="TAG", help="A tag, for filters; may be repeated."),
    click.option(
        "--hold", is_flag=True, help="Assign it to a node, and do not start it until 'mks set ID hold=false'."
    ),
    click.option("--restart", is_flag=True, help="Start it again on its node whenever it ends with exit code 0."),
    click.option("--retries", type=int, metavar="N", help="Start it again up to N times when it fails."),
    click.option("--resubmit", is_flag=True, help="When it has ended, give it to its submit node again."),
    click.option("--runtime", metavar="TIME", help="Kill it when it runs longer: seconds, or 90s, 5m, 1h30m."),
    click.option("--stdin", metavar="PATH", help="The file to read, on its node; default: empty."),
    click.option("--stdout", metavar="PATH", help="The file to write, on its node; default: captured."),
    click.option("--stderr", metavar="PATH", help="The file to write, on its node; default: captured."),
    click.option("--cwd", metavar="DIR", help="Its working folder, on its node; default: the present one."),
    click.option("--no-cwd", is_flag=True, help="Run it in the node's working folder."),
    click.option(
        "--env",
        multiple=True,
        metavar="NAME=VALUE",
        help="A variable; may be repeated. The job then has these and your PATH, HOME, USER and LANG; without --env, "
        "the environment of its node.",
    ),
)


class JobCommand(click.Command):
    """A command whose words after `--` are the job's own, whatever they look like."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Options and POOL from before the first `--`, `command` from behind it."""
        if "--" not in args:
            ctx.allow_interspersed_args = False
            super().parse_args(ctx, args)  # which answers --help, and has better words for a missing POOL
            example = f"{ctx.command_path} {ctx.params['where']} -- echo hello"
            raise click.UsageError(f"put -- before the job's command, as in '{example}'", ctx)
        at = args.index("--")
        rest = super().parse_args(ctx, args[:at])
        if ctx.params.pop("stray"):
            raise click.UsageError("give one POOL or POOL@NODE before --, and the job's command after it", ctx)
        ctx.params["command"] = args[at + 1 :]
        if not ctx.params["command"]:
            raise click.UsageError("the job's command is missing after --", ctx)
        return rest


def job_options(command: F) -> F:
    """POOL[@NODE], and an option a key of a jobspec. The command gets them as `where`, `command` and `options`."""
    command = click.argument("stray", nargs=-1, metavar="-- CMD...")(command)
    command = click.argument("where", metavar="POOL[@NODE]")(command)
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def jobspec(where: str, command: list[str], options: Mapping[str, Any]) -> dict[str, Any]:
    """The jobspec of a command line; InvalidRequest where the two don't go together. The node checks the rest."""
    pool, node = target(where)
    spec: dict[str, Any] = {"pool": pool, "args": command}
    given = {
        "id": options["jid"],
        "node": node,
        "tags": list(options["tags"]) or None,
        "retries": options["retries"],
        "runtime": None if options["runtime"] is None else seconds(options["runtime"]),
        "config": _config(options) or None,
        **{key: options[key] for key in ("stdin", "stdout", "stderr")},
        **{key: options[key] or None for key in ("hold", "restart", "resubmit")},
    }
    spec.update({key: value for key, value in given.items() if value is not None})
    return spec


def _config(options: Mapping[str, Any]) -> dict[str, Any]:
    """The Popen arguments: where it runs, and with which environment."""
    config: dict[str, Any] = {}
    if options["cwd"] is not None and options["no_cwd"]:
        raise InvalidRequest("--cwd and --no-cwd exclude each other")
    if not options["no_cwd"]:
        config["cwd"] = str(Path(options["cwd"] or ".").absolute())
    if options["env"]:
        kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
        config["env"] = kept | dict(map(name_value, options["env"]))
    return config
