"""How an answer is shown. Commands hand over a Listing; the printer is chosen once: table, plain lines or JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

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
    folds: bool = False
    """Prose: on a terminal every cell but a row's first may take several lines."""


class Printer(Protocol):
    """Shows Listings on stdout."""

    def show(self, listing: Listing) -> None:
        """Print it."""


class JsonPrinter:
    """One JSON document; indented where a person looks on."""

    def show(self, listing: Listing) -> None:
        """Print its data."""
        print(json.dumps(listing.data, default=str, indent=2 if sys.stdout.isatty() else None))


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


_GAP = "  "
_LAST_CELLS = 12
"""How much of the last column is always shown, even if the terminal has to break lines then."""
_BESIDE_IDS = 5
"""How much of it is enough beside ids that are whole, and can be copied."""


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
        if listing.heads and not listing.folds:
            _print_lines(console, listing)
            return
        table = Table(box=None, pad_edge=False, show_header=bool(listing.heads), header_style="bold")
        _add_columns(table, console, listing)
        for row in listing.rows:
            table.add_row(*(Text(_clean_lines(cell), style=_STYLES.get(cell, "")) for cell in row))
        console.print(table)


def _print_lines(console: Console, listing: Listing) -> None:
    """A row a line. Not by rich's Table, which takes 0.3 ms for each: there may be ten thousands of jobs.

    To a narrow terminal the last column gives way first, and then ids, in their middle: a name is always whole.
    """
    from rich.cells import cell_len, set_cell_size
    from rich.style import Style

    from .cells import SHORTEST_ID, cut_id

    rows = [[clean(cell) for cell in row] for row in listing.rows]
    widths = [max(map(cell_len, cells)) for cells in zip(listing.heads, *rows, strict=True)][:-1]
    room = console.width - sum(widths) - len(_GAP) * len(widths)
    ids = listing.heads.index("ID") if "ID" in listing.heads else None
    if ids is not None and room < _BESIDE_IDS:
        width = max(min(SHORTEST_ID, widths[ids]), widths[ids] - (_LAST_CELLS - room))
        widths[ids], room = width, room + widths[ids] - width
    room = max(_BESIDE_IDS if ids is not None else _LAST_CELLS, room)
    colours = console._color_system  # noqa: SLF001 - None without colours; rich has the name of it only, not the thing

    def styled(text: str, style: str) -> str:
        return Style.parse(style).render(text, color_system=colours) if style and colours is not None else text

    out: list[str] = []
    for cells in (list(listing.heads), *rows):
        style = "" if out else "bold"
        shown = [
            styled((cut_id if at == ids else set_cell_size)(cell, width), style or _STYLES.get(cell, ""))
            for at, (cell, width) in enumerate(zip(cells, widths, strict=False))
        ]
        last = cells[-1] if cell_len(cells[-1]) <= room else f"{set_cell_size(cells[-1], room - 1)}…"
        out.append(_GAP.join([*shown, styled(last, style)]))
    console.file.write("\n".join(out) + "\n")


def _add_columns(table: Table, console: Console, listing: Listing) -> None:
    """Names and values, or prose: whatever is longer than the terminal is wide takes several lines."""
    from rich.cells import cell_len

    titles = listing.heads or [""] * len(listing.rows[0])
    if listing.folds:
        table.add_column(titles[0], no_wrap=True)
        for title in titles[1:]:
            table.add_column(title, overflow="fold")
        return
    widths = [max(cell_len(clean(cell)) for cell in cells) for cells in zip(titles, *listing.rows, strict=True)][:-1]
    taken = sum(widths) + len(_GAP) * len(widths)
    console.width = max(console.width, taken + _LAST_CELLS)
    for title, width in zip(titles, widths, strict=False):
        table.add_column(title, no_wrap=True, width=width)
    table.add_column(titles[-1], overflow="fold", max_width=console.width - taken)


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


def _clean_lines(text: str) -> str:
    """The same, but lines stay lines: for a cell of a table, which has room for them."""
    return "\n".join(map(clean, text.rstrip("\n").split("\n")))


def warn(text: str) -> None:
    """A line on stderr, for what is no reason to stop."""
    print(f"mks: {clean(text)}", file=sys.stderr, flush=True)
