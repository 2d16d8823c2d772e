"""Text in so many cells of a terminal. Only what draws imports this: rich has tables of how wide each letter is."""

from __future__ import annotations

from rich.cells import cell_len, set_cell_size

from .output import clean

__all__ = ["SHORTEST_ID", "cut", "cut_id"]

_ID_END = 6
SHORTEST_ID = 2 * _ID_END
"""Cells below which an id is cut at its end."""


def cut(text: str, cells: int) -> str:
    """The text in exactly so many cells: filled up, or cut with …."""
    text = clean(text)
    if cell_len(text) <= cells:
        return set_cell_size(text, cells)
    return f"{set_cell_size(text, cells - 1)}…" if cells > 0 else ""


def cut_id(jid: str, cells: int) -> str:
    """The same for an id, whose end says most: jobs of --array and of several nodes differ in nothing else."""
    text = clean(jid)
    if cell_len(text) <= cells or cells < SHORTEST_ID:
        return cut(text, cells)
    return f"{cut(text[:-_ID_END], cells - _ID_END)}{set_cell_size(text[-_ID_END:], _ID_END)}"
