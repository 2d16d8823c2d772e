"""`mks node`: a node in the foreground."""

from __future__ import annotations

import click

from .invocation import debug_option

__all__ = ["node_command"]


@click.command("node")
@click.argument("words", metavar="[FILE]... [KEY=VALUE]...", nargs=-1)
@click.option("--join", "joins", multiple=True, metavar="HOST[:PORT]", help="A node of the mesh; may be repeated.")
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    help="The log on stderr: text (the default), or json: an object a line with ts, level, node and message.",
)
@debug_option
def node_command(words: tuple[str, ...], joins: tuple[str, ...], log_format: str) -> int:
    """Run a node until Ctrl-C or SIGTERM. Prints one line on stdout when it is ready: name, address and ports.

    Configuration comes from TOML or JSON files and then from KEY=VALUE, where keys are dotted.

    \b
      mks node name=a pools.p.slots=2
      mks node name=b listen.port=13701 pools.p.slots=2 --join localhost
      mks node /etc/meeseeks.toml logging.level=DEBUG
    """  # noqa: D301 - click looks for the character itself
    import gc

    from meeseeks import config
    from meeseeks.node import daemon

    from . import COLLECT_AFTER

    files = [word for word in words if "=" not in word]
    pairs = [word for word in words if "=" in word]
    gc.set_threshold(*COLLECT_AFTER)
    return daemon.run(config.load(files, pairs, list(joins)), log_format)
