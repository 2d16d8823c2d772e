"""How an answer is shown. Commands hand over a Listing; the printer is chosen once: table, plain lines or JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

__all__ = ["JsonPrinter", "Listing", "PlainPrinter", "Printer", "TablePrinter", "choose_printer", "clean", "warn"]


class Listing(NamedTuple):
    """An answer: `data` for programs, and the same as rows of text for people.

    `heads` may be empty: then the rows are names and values.
    """

    data: Any
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    empty: str = ""
    """What a terminal shows in place of a table without rows."""


class Printer(Protocol):
    """Shows Listings on stdout."""

    def show(self, listing: Listing) -> None:
        """Print it."""


class JsonPrinter:
    """One JSON document; indented where a person looks on."""

    def show(self, listing: Listing) -> None:
        """Print its data."""
        print(json.dumps(listing.data, indent=2 if sys.stdout.isatty() else None))


class PlainPrinter:
    """A line a row, cells separated by tabs, no heads: for pipes."""

    def show(self, listing: Listing) -> None:
        """Print its rows."""
        sys.stdout.writelines("\t".join(map(clean, row)) + "\n" for row in listing.rows)


_STYLES = {
    "running": "cyan",
    "done": "green",
    "online": "green",
    "failed": "red",
    "lost": "red",
    "offline": "red",
    "killed": "yellow",
    "left": "yellow",
}
"""Rich styles of the states of jobs and nodes."""


class TablePrinter:
    """Tables for a terminal."""

    def show(self, listing: Listing) -> None:
        """Print its rows under their heads."""
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        console = Console(highlight=False)
        if not listing.rows:
            console.print(Text(listing.empty))
            return
        table = Table(box=None, pad_edge=False, show_header=bool(listing.heads), header_style="bold")
        last = len(listing.rows[0]) - 1
        for at in range(last + 1):
            # What identifies a row must be there to be copied; the last column may be cut.
            cut: Any = {"overflow": "ellipsis"} if listing.heads and at == last else {"overflow": "fold"}
            head = listing.heads[at] if listing.heads else ""
            table.add_column(head, no_wrap=bool(listing.heads), **cut)
        for row in listing.rows:
            table.add_row(*(Text(clean(cell), style=_STYLES.get(cell, "")) for cell in row))
        console.print(table)


def choose_printer(*, as_json: bool) -> Printer:
    """The printer of a call."""
    if as_json:
        return JsonPrinter()
    return TablePrinter() if sys.stdout.isatty() else PlainPrinter()


def clean(text: str) -> str:
    """Text that stays on its line and does nothing to a terminal: control characters are shown as escapes."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def warn(text: str) -> None:
    """A line on stderr, for what is no reason to stop."""
    print(f"mks: {clean(text)}", file=sys.stderr, flush=True)
