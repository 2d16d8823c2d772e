"""`mks help`: the concepts, a page each. The pages are the Markdown files in `topics`, which anybody may add to."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from .exits import OK
from .invocation import Invocation, debug_option, json_option
from .output import Listing

__all__ = ["help_command", "topics"]

_FOLDER = Path(__file__).parent / "topics"


def topics() -> dict[str, str]:
    """{topic: its title}; a page begins with `# topic: title`."""
    found = {}
    for path in sorted(_FOLDER.glob("*.md")):
        with path.open(encoding="utf-8") as page:
            found[path.stem] = page.readline().lstrip("# ").strip().removeprefix(f"{path.stem}: ")
    return found


@click.command("help")
@click.argument("topic", metavar="[TOPIC]", required=False)
@debug_option
@json_option
@click.pass_context
def help_command(ctx: click.Context, topic: str | None) -> int:
    """Explain TOPIC, or a command; without one, list the topics. Pages are Markdown, in a pipe as they are.

    --json: without TOPIC an object {topic: title}.
    """
    call = ctx.ensure_object(Invocation)
    known = topics()
    if topic is None:
        call.printer().show(Listing(known, ("TOPIC", "EXPLAINS"), list(known.items())))
        return OK
    if topic in known:
        _show((_FOLDER / f"{topic}.md").read_text(encoding="utf-8"))
        return OK
    from .main import cli

    command = cli.get_command(ctx, topic)
    if command is None:
        from difflib import get_close_matches

        near = get_close_matches(topic, known, 1)
        hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(known)}, and the names of commands"
        raise click.UsageError(f"no topic '{topic}'; {hint}", ctx)
    parent = ctx.parent or ctx
    with click.Context(command, info_name=topic, parent=parent) as about:
        click.echo(command.get_help(about))
    return OK


def _show(page: str) -> None:
    if not sys.stdout.isatty():
        sys.stdout.write(page)
        return
    from rich.console import Console
    from rich.markdown import Markdown
    from rich.theme import Theme

    # Not the usual black behind code, which is hard to read where the terminal is light.
    console = Console(highlight=False, theme=Theme({"markdown.code": "bold cyan", "markdown.code_block": "cyan"}))
    console.width = min(console.width, 100)  # longer lines are hard to read
    console.print(Markdown(page, code_theme="ansi_dark"))
