"""The command line of a job, `[options] POOL[@NODE] -- CMD…`, and the jobspec that it stands for."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from meeseeks.errors import InvalidRequest

from .output import warn
from .words import nodes_wanted, seconds, target

__all__ = ["FROM_STDIN", "JobCommand", "job_options", "jobspec", "with_variables"]

F = TypeVar("F", bound=Callable[..., Any])

FROM_STDIN = "-"
"""In place of POOL: jobspecs come from stdin."""

_KEPT_VARIABLES = ("PATH", "HOME", "USER", "LANG")
"""What of the caller's environment goes along with `--env`, which replaces the node's own."""
_NOT_EXPORTED = ("MEESEEKS_ARRAY_INDEX", "MEESEEKS_ARRAY_ITEM")
"""What a job that submits others would hand on to them, and is not true of them."""

_OPTIONS = (
    click.option("--id", "jid", metavar="ID", help="The job's id; default: a new UUID."),
    click.option("--node", metavar="NODE", help="The same as POOL@NODE: a name, a pattern that ends in *, or several."),
    click.option("--tag", "tags", multiple=True, metavar="TAG", help="A tag, for filters; may be repeated."),
    click.option(
        "--hold", is_flag=True, help="Assign it to a node, and do not start it until 'mks set ID hold=false'."
    ),
    click.option("--restart", is_flag=True, help="Start it again on its node whenever it ends with exit code 0."),
    click.option("--retries", type=int, metavar="N", help="Start it again up to N times when it fails."),
    click.option("--resubmit", is_flag=True, help="When it has ended, give it to its submit node again."),
    click.option("--runtime", metavar="TIME", help="Kill it when it runs longer: seconds, or 90s, 5m, 1h30m."),
    click.option("--stdin", metavar="PATH", help="The file to read, on its node; with run, - is ours."),
    click.option("--stdout", metavar="PATH", help="The file to write, on its node; default: captured."),
    click.option("--stderr", metavar="PATH", help="The file to write, on its node; default: captured."),
    click.option("--cwd", metavar="DIR", help="Its working folder, on its node; default: the present one."),
    click.option("--no-cwd", is_flag=True, help="Run it in the node's working folder."),
    click.option(
        "--env",
        multiple=True,
        metavar="NAME[=VALUE]",
        help="A variable, with its value here if none is given; may be repeated. The job then has these and your PATH, "
        "HOME, USER and LANG; without --env, the environment of its node.",
    ),
    click.option(
        "--export-env",
        is_flag=True,
        help="Your whole environment goes along. Every node of the mesh then has a copy of it, secrets and all.",
    ),
)


class JobCommand(click.Command):
    """A command whose words after `--` are the job's own, whatever they look like."""

    takes_specs = False
    """Whether `-` in place of all that is a command line too: jobspecs from stdin."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Options and POOL from before the first `--`, `command` from behind it."""
        if "--" not in args:
            if self.takes_specs and FROM_STDIN in args:
                rest = self._parse(ctx, args)
                if ctx.params["where"] == FROM_STDIN and not ctx.params.pop("stray"):
                    ctx.params["command"] = []
                    return rest
            ctx.allow_interspersed_args = False
            self._parse(ctx, args)  # which answers --help, and has better words for a missing POOL
            where, command = ctx.params["where"], shlex.join(ctx.params["stray"])
            example = f"{ctx.command_path} {f'{where} -- {command}' if command else f'POOL -- {where}'}"
            raise click.UsageError(f"put -- between POOL and the job's command, as in '{example}'", ctx)
        at = args.index("--")
        rest = self._parse(ctx, args[:at])
        if ctx.params.pop("stray"):
            raise click.UsageError("give one POOL or POOL@NODE before --, and the job's command after it", ctx)
        ctx.params["command"] = args[at + 1 :]
        if not ctx.params["command"]:
            raise click.UsageError("the job's command is missing after --", ctx)
        return rest

    def _parse(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            from .hints import for_option

            hint = for_option(error.option_name)
            raise click.UsageError(f"no such option '{error.option_name}'; {hint}", ctx) if hint else error from None


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
    if options["node"] is not None:
        if node is not None:
            raise InvalidRequest(f"the node is given twice, by {where!r} and by --node {options['node']!r}")
        node = nodes_wanted(options["node"])
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


def with_variables(spec: Mapping[str, Any], variables: Mapping[str, str]) -> dict[str, Any]:
    """The same jobspec with more variables in its environment, as `--env` would have put them there."""
    config = spec.get("config") or {}
    env = config.get("env")
    return {**spec, "config": {**config, "env": {**(_kept() if env is None else env), **variables}}}


def _config(options: Mapping[str, Any]) -> dict[str, Any]:
    """The Popen arguments: where it runs, and with which environment."""
    config: dict[str, Any] = {}
    if options["cwd"] is not None and options["no_cwd"]:
        raise InvalidRequest("--cwd and --no-cwd exclude each other")
    if not options["no_cwd"]:
        config["cwd"] = str(Path(options["cwd"] or ".").absolute())
    if options["env"] or options["export_env"]:
        base = _exported() if options["export_env"] else _kept()
        config["env"] = base | dict(map(_variable, options["env"]))
    return config


def _kept() -> dict[str, str]:
    """What goes along of the caller's environment where variables are named."""
    return {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}


def _exported() -> dict[str, str]:
    """All of it, but for what can't be sent: a value that is no text."""
    exported = {}
    for name, value in os.environ.items():
        if name in _NOT_EXPORTED:
            continue
        try:
            (name + value).encode()
        except UnicodeEncodeError:
            warn(f"the variable {name!a} stays here: its value is no UTF-8 text")
            continue
        exported[name] = value
    return exported


def _variable(text: str) -> tuple[str, str]:
    """`NAME=VALUE`, or `NAME` for a variable that is set here."""
    name, equals, value = text.partition("=")
    if name and not equals and name in os.environ:
        return name, os.environ[name]
    if not name or not equals:
        raise InvalidRequest(f"--env {text!r} is not of the form NAME=VALUE, and no variable of that name is set here")
    return name, value
