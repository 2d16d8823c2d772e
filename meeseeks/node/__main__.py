"""`python -m meeseeks.node [FILE…] [key=value…] [--join HOST[:PORT]]…`: what `mks node` does."""

from __future__ import annotations

import sys

from meeseeks import config
from meeseeks.errors import InvalidRequest

from .daemon import run

__all__ = ["main"]


def main(arguments: list[str]) -> int:
    """Run a node from command line arguments; returns the exit code."""
    files: list[str] = []
    pairs: list[str] = []
    joins: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if argument == "--join":
            joins.append(next(rest, ""))
        elif argument.startswith("--join="):
            joins.append(argument.removeprefix("--join="))
        elif "=" in argument:
            pairs.append(argument)
        else:
            files.append(argument)
    try:
        settings = config.load(files, pairs, joins)
    except InvalidRequest as error:
        print(f"mks node: {error}", file=sys.stderr)
        return 2
    return run(settings)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
