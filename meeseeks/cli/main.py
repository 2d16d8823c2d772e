"""`mks`: finds the command, runs it, and turns whatever happens into an exit code and at most one line on stderr.

Each command is in a module of its own that is imported when it is called, so that `mks ls` does not wait for what
only `mks demo` needs.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import os
import sys
import threading
from importlib import import_module
from typing import NoReturn

import click

from meeseeks.errors import MeeseeksError

from .exits import BROKEN_PIPE, FAILED, INTERRUPTED, OK, WRONG_USAGE, exit_code_of
from .invocation import Invocation, client_options, json_option

__all__ = ["cli", "main", "one_line_helps"]

_OUTPUT_IS_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Of an OSError without a file's name: the file that stdout was sent to takes no more."""

_COMMANDS = {
    "demo": ("demo", "Show a mesh of three nodes that runs real jobs on this machine."),
    "node": ("node", "Run a node in the foreground."),
    "run": ("run", "Run a job, show its output, end with its exit code."),
    "sub": ("sub", "Submit a job and print its id."),
    "ls": ("jobs", "List jobs."),
    "get": ("jobs", "Show all that is known of jobs."),
    "logs": ("logs", "Show what jobs have written, and what they write from now on."),
    "wait": ("wait", "Wait until jobs have ended."),
    "kill": ("control", "Kill jobs."),
    "set": ("control", "Change jobs: hold, release, move, run again."),
    "nodes": ("mesh", "List the nodes of the mesh."),
    "pools": ("mesh", "List the pools with their free slots."),
    "stat": ("stat", "Show the mesh once: nodes, pools, jobs."),
    "top": ("top", "Show the mesh live, and do things to its jobs."),
    "conf": ("mesh", "Show or change the configuration of a running node."),
    "keygen": ("keygen", "Make the key of a mesh, or of a user of it."),
    "adopt": ("adopt", "Take over the waiting jobs of a node that never comes back."),
    "forget": ("forget", "Let another machine have the name of a node that is gone."),
    "completion": ("completion", "Print the completion script of bash, zsh or fish."),
    "help": ("help", "Explain a concept: mesh, pools, security, output, exit codes, …"),
}
"""Command → (module of this package that has a click command of that name, one line of help)."""

_HELP = """A mesh that runs jobs: submit anywhere, see it everywhere.

\b
  mks demo                           see it work
  mks node name=a pools.p.slots=2    start a node
  mks run p -- echo hello            run a job in pool p, and see its output

Jobs are named by their ids or picked by filters: key=value, where a value may end in * and tag=x matches one of the
tags. Each command says more with --help.

Exit codes: 0 fine, 1 a job or the request failed, 2 wrong usage, 3 node unreachable or a timeout, 4 not let in.
"""


class _LazyGroup(click.Group):
    """Knows its commands by name, and imports one when it is wanted."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, _ctx: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        module = import_module(f".{_COMMANDS[name][0]}", __package__)
        command = getattr(module, f"{name}_command")
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in _COMMANDS and not name.startswith("-"):
            from .hints import for_command

            raise click.UsageError(f"no command '{name}'; {for_command(name, _COMMANDS)}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


def _version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if wanted:
        from meeseeks import __version__

        click.echo(f"mks {__version__}")
        ctx.exit()


@click.group(cls=_LazyGroup, help=_HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version.")
@client_options
@json_option
def cli() -> None:
    """`mks` itself only finds the command."""


def one_line_helps() -> dict[str, str]:
    """Each command with its line of help, in their order."""
    return {name: text for name, (_, text) in _COMMANDS.items()}


def main() -> NoReturn:
    """The console script: never a traceback unless `--debug` asks for it."""
    _open_closed_streams()
    _let_all_be_written()
    invocation = Invocation()
    shell = os.environ.pop("_MKS_COMPLETE", "")  # a completion script asks what may come next
    try:
        code = _complete(shell) if shell else _call(invocation)
        sys.stdout.flush()
    except BrokenPipeError:
        code = BROKEN_PIPE
    except (KeyboardInterrupt, click.Abort):
        code = INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the border to the user: each error becomes a line and a code
        code = _report(error, debug=invocation.debug)
    _leave(code)


def _open_closed_streams() -> None:
    """A stream that was closed (`mks ls >&-`) becomes /dev/null, before a socket gets its number and is written to."""
    for fd, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            if null != fd:
                os.dup2(null, fd)
                os.close(null)
            os.set_inheritable(fd, True)
            stream = open(fd, mode, encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)


def _let_all_be_written() -> None:
    """What stdout's encoding has no letters for is shown as escapes: a job of somebody else may have any name.

    UTF-8 has all but those that stand for the bytes of a file's name, which become these bytes again. Of stderr Python
    takes care itself.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        is_utf8 = codecs.lookup(sys.stdout.encoding).name == "utf-8"
        sys.stdout.reconfigure(errors="surrogateescape" if is_utf8 else "backslashreplace")


def _complete(shell: str) -> int:
    from .completion import answer

    return answer(shell, sys.argv[1:])


def _call(invocation: Invocation) -> int:
    args = sys.argv[1:] or ["--help"]
    try:
        with cli.make_context("mks", args, obj=invocation) as ctx:
            result = cli.invoke(ctx)
    except click.exceptions.Exit as left:
        return left.exit_code
    return result if isinstance(result, int) else OK


def _report(error: Exception, *, debug: bool) -> int:
    if debug:
        import traceback

        traceback.print_exception(error)
    if isinstance(error, click.UsageError):
        command = error.ctx.command_path if error.ctx else "mks"
        text, code = f"{_sentence(error.format_message())}; see '{command} --help'", WRONG_USAGE
    elif isinstance(error, click.ClickException):
        text, code = error.format_message(), error.exit_code
    elif isinstance(error, MeeseeksError):
        text, code = str(error), exit_code_of(error)
    elif isinstance(error, OSError) and error.filename is None and error.errno in _OUTPUT_IS_FULL:
        text, code = f"can't write the output: {error.strerror}", FAILED
    elif isinstance(error, OSError):
        text, code = str(error), FAILED
    else:
        text, code = f"a defect of mks: {type(error).__name__}: {error}", FAILED
        text += "" if debug else "; --debug shows where"
    with contextlib.suppress(OSError):  # the code tells it still
        click.echo(f"mks: {' '.join(text.split())}", err=True)
    return code


def _sentence(text: str) -> str:
    """Click's messages begin and end like sentences; ours are the middle of a line."""
    text = text.rstrip(".")
    return text[:1].lower() + text[1:] if text[1:2].islower() else text


def _leave(code: int) -> NoReturn:
    if code == BROKEN_PIPE:
        # The interpreter would flush stdout once more, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if threading.active_count() > 1:
        sys.exit(code)  # which lets a Client that is still open deliver what it has
    with contextlib.suppress(OSError):  # told by now, if it can be
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)  # taking all modules down again takes as long as what most commands do
