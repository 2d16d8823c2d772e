"""The picture of `mks top`: a Model in so many lines and cells. It costs what is on the screen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from rich.cells import cell_len, set_cell_size

from . import views
from .cells import SHORTEST_ID, cut, cut_id
from .overview import PoolTotal
from .top_model import Model
from .top_screen import Line

__all__ = ["Panes", "picture"]

Info = Mapping[str, Any]

_HEAD = "bold underline"
_BAR = 10
_TITLE = 8
"""Cells of the title, below which it is left out."""
_NAME = 14
"""Cells that the name of a node or a pool may take."""
_NODE_STYLES = {"online": "green", "left": "yellow"}
_STATE_STYLES = {"running": "cyan", "done": "green", "failed": "red", "killed": "yellow", "unknown": "yellow"}
_QUIT = "q quit"
_KEYS = ("x kill", "h hold", "r release", "l log", "/ filter", "s sort:{sort}", "jk move", _QUIT)
_FIRST_KEYS = (7, 0, 3, 1, 2, 4, 5, 6)
"""The order in which they are given room, where there is not enough for all."""
_DROPPED = ("POOL", "TOOK", "NODE", "AGO", "TIME")
"""Columns that go, one by one, where a narrow terminal would have no room for ids and commands."""
_ID_AND_COMMAND = 17
_SHORT = {"running": "run", "waiting": "wait", "failed": "fail", "killed": "kill"}


class Panes:
    """Where the two lists of jobs are scrolled to."""

    def __init__(self) -> None:
        self.active_from = 0
        self.recent_from = 0
        self.page = 1
        """Jobs that the first list shows."""


class _Column(NamedTuple):
    head: str
    width: int
    right: bool = False


def picture(
    model: Model, panes: Panes, width: int, height: int, footer: Line | None, where: str, now: float
) -> list[Line]:
    """All lines of the screen. `footer` takes the place of the keys, `where` says whose view of the mesh it is."""
    lines: list[Line] = [_header(model, where, width)]
    lines += _nodes(model, max(1, height // 5))
    lines += _pools(model, max(1, height // 8))
    left = height - len(lines) - 3  # the heads of both lists, and the footer
    recent_rows = max(0, min(len(model.recent), max(left * 3 // 10, left - len(model.active))))
    active_rows = max(0, left - recent_rows)
    lines += _active(model, panes, width, active_rows, now)
    lines += _recent(model, panes, width, recent_rows, now)
    lines = [_filled(line, width) if line and line[0][1] == _HEAD else line for line in lines]
    return [*lines[: height - 1], footer or _footer(model, width)]


def _filled(line: Line, width: int) -> Line:
    """A head that goes to the end of the line: it parts what is above from what is below."""
    used = sum(cell_len(text) for text, _ in line)
    return [*line, (" " * max(0, width - used), _HEAD)]


def _header(model: Model, where: str, width: int) -> Line:
    counts = model.counts
    parts = [(counts["running"], "running", "cyan"), (counts["new"], "waiting", ""), (counts["done"], "done", "green")]
    parts += [(counts[state], state, f"bold {_STATE_STYLES[state]}") for state in ("failed", "killed") if counts[state]]
    texts = [f"{count:,} {word}" for count, word, _ in parts]
    if len("  ".join(texts)) > width - _TITLE:
        texts = [f"{count:,} {_SHORT.get(word, word)}" for count, word, _ in parts]
    said = sum(len(text) + 2 for text in texts)
    title = cut(f"mks top  {where}", width - said) if width - said >= _TITLE else ""
    line: list[tuple[str, str]] = [(title, "bold")]
    for text, (_, _, style) in zip(texts, parts, strict=True):
        line += [("  " if len(line) > 1 or title else "", ""), (text, style)]
    return line


# --- nodes and pools


def _nodes(model: Model, rows: int) -> list[Line]:
    names = sorted(model.nodes, key=lambda name: (model.nodes[name]["online"], name))  # what is wrong comes first
    shown, more = _fitting(names, rows)
    size = min(_NAME, max((cell_len(name) for name in shown), default=4))
    size = max(4, size)
    lines: list[Line] = [
        [(_row([_Column("NODE", size), _Column("STATE", 7), _Column("LOAD", 6, True)]) + "  POOLS", _HEAD)]
    ]
    for name in shown:
        status = model.nodes[name]
        line = [(f"{cut(name, size)}  ", ""), (cut(status["state"], 7), _NODE_STYLES.get(status["state"], "bold red"))]
        if status["online"]:
            line.append((f"  {status['loadavg']:6.2f}", ""))
            for pool, of in sorted(status["pools"].items()):
                line += [("  ", ""), *_slots(pool, model.running_on[name, pool], of)]
        else:
            line.append((f"  {'-':>6}  silent for {views.duration(status['silent_s'])}", "dim"))
        lines.append(line)
    return [*lines, *_more(more, "nodes")]


def _slots(pool: str, running: int, of: Info) -> Iterable[tuple[str, str]]:
    full = of["slots"] and running >= of["slots"]
    yield f"{pool} {running}/{of['slots'] or '∞'}", "cyan" if full else ""
    notes = [word for word in ("hold", "drain") if of[word]]
    if notes:
        yield f" {','.join(notes)}", "yellow"


def _pools(model: Model, rows: int) -> list[Line]:
    names = sorted(model.pools, key=lambda name: (-model.pools[name].waiting, -model.pools[name].running, name))
    shown, more = _fitting(names, rows)
    size = max(4, min(_NAME, max((cell_len(name) for name in shown), default=4)))
    lines: list[Line] = [[(_row([_Column("POOL", size), _Column("", _BAR)]) + "  RUNNING   WAITING  NODES", _HEAD)]]
    for name in shown:
        pool = model.pools[name]
        slots = "∞" if pool.slots is None else str(pool.slots)
        notes = "".join(f" {word}" for word, is_so in (("hold", pool.hold), ("drain", pool.drain)) if is_so)
        line = [(f"{cut(name, size)}  ", ""), *_bar(pool), (f"  {f'{pool.running}/{slots}':>7}", "")]
        line += [(f"  {pool.waiting:>8,}", ""), (f"  {' '.join(pool.nodes)}", "dim"), (notes, "yellow")]
        lines.append(line)
    return [*lines, *_more(more, "pools")]


def _bar(pool: PoolTotal) -> Iterable[tuple[str, str]]:
    if not pool.slots:
        yield "·" * _BAR, "dim"
        return
    full = min(_BAR, -(-_BAR * pool.running // pool.slots))
    yield "█" * full, "cyan"
    yield "░" * (_BAR - full), "dim"


def _fitting(names: list[str], rows: int) -> tuple[list[str], int]:
    """The names for which there is room, and how many there are beside."""
    if len(names) <= rows:
        return names, 0
    return names[: max(1, rows - 1)], len(names) - max(1, rows - 1)


def _more(count: int, what: str) -> list[Line]:
    return [[(f"… and {count} more {what}", "dim")]] if count else []


# --- jobs


def _active(model: Model, panes: Panes, width: int, rows: int, now: float) -> list[Line]:
    panes.page = max(1, rows)
    panes.active_from = _scrolled(model.active, model.selected, panes.active_from, rows)
    shown = model.active[panes.active_from : panes.active_from + rows]
    infos = model.infos(shown)
    columns = _columns(infos.values(), width, [_Column("STATE", 7), _Column("TIME", 6, True)])
    lines = [_head(columns, _place(panes.active_from, rows, len(model.active)), width)]
    for jid in shown:
        info = infos.get(jid)
        if info is None:
            lines.append([(jid, "dim")])
            continue
        held = info["state"] == "new" and info["hold"]
        state = "held" if held else "waiting" if info["state"] == "new" else info["state"]
        style = "yellow" if held else _STATE_STYLES.get(info["state"], "")
        cells = {"STATE": state, "TIME": _short(views.elapsed(info, now)), **_job_cells(info)}
        lines.append(_job(cells, columns, style, is_selected=jid == model.selected, width=width))
    return [*lines, *([[]] * (rows - len(shown)))]


def _recent(model: Model, panes: Panes, width: int, rows: int, now: float) -> list[Line]:
    panes.recent_from = _scrolled(model.recent, model.selected, panes.recent_from, rows)
    shown = model.recent[panes.recent_from : panes.recent_from + rows]
    infos = model.infos(shown)
    firsts = [_Column("ENDED", 7), _Column("TOOK", 6, True), _Column("AGO", 6, True), _Column("RC", 3, True)]
    columns = _columns(infos.values(), width, firsts)
    lines = [_head(columns, _place(panes.recent_from, rows, len(model.recent)), width)]
    for jid, info in infos.items():
        cells = {
            "ENDED": info["state"],
            "TOOK": _short(views.elapsed(info, now)),
            "AGO": _short(now - (info["end_ts"] or info["ts"])),
            "RC": "-" if info["rc"] is None else str(info["rc"]),
            **_job_cells(info),
        }
        style = _STATE_STYLES.get(info["state"], "")
        lines.append(_job(cells, columns, style, is_selected=jid == model.selected, width=width))
    return lines


def _job_cells(info: Info) -> dict[str, str]:
    node = info["node"]
    why = (info["error"] or "") if info["state"] == "failed" else ""
    command = views.command_line(info["args"])
    return {
        "NODE": ",".join(node) if isinstance(node, list) else node or "-",
        "POOL": info["pool"],
        "ID": info["id"],
        "COMMAND": f"[{why}] {command}" if why else command,
    }


def _columns(infos: Iterable[Info], width: int, firsts: Sequence[_Column]) -> list[_Column]:
    """The widths for these jobs: names as they are if there is room, and the rest for the command."""
    cells = [_job_cells(info) for info in infos]

    def widest(head: str) -> int:
        return max(len(head), max((cell_len(row[head]) for row in cells), default=0))

    columns = [*firsts, *(_Column(head, min(_NAME, widest(head))) for head in ("NODE", "POOL"))]
    for head in ("", *_DROPPED):
        columns = [column for column in columns if column.head != head]
        rest = width - sum(column.width + 2 for column in columns)
        if rest >= _ID_AND_COMMAND:
            break
    rest = max(0, rest)
    jid = min(widest("ID"), max(rest // 2, min(rest, SHORTEST_ID)))
    return [*columns, _Column("ID", jid), _Column("COMMAND", max(0, rest - jid - 2))]


def _head(columns: Sequence[_Column], place: str, width: int) -> Line:
    return [(set_cell_size(_row(columns), max(0, width - len(place))), _HEAD), (place, "dim underline")]


def _place(first: int, rows: int, total: int) -> str:
    return f" {first + 1:,}-{min(total, first + rows):,} of {total:,}" if total > rows > 0 else ""


def _job(cells: Mapping[str, str], columns: Sequence[_Column], style: str, *, is_selected: bool, width: int) -> Line:
    if is_selected:
        return [(cut(_row(columns, cells), width), "reverse")]
    first = columns[0]
    return [(cut(cells[first.head], first.width), style), (f"  {_row(columns[1:], cells)}", "")]


def _row(columns: Sequence[_Column], cells: Mapping[str, str] | None = None) -> str:
    return "  ".join(_cell(column, column.head if cells is None else cells[column.head]) for column in columns)


def _cell(column: _Column, text: str) -> str:
    if column.head == "ID":
        return cut_id(text, column.width)
    return cut(" " * (column.width - cell_len(text)) + text if column.right else text, column.width)


def _scrolled(ids: Sequence[str], selected: str | None, first: int, rows: int) -> int:
    """From where on to show a list of which the selected one is to be seen."""
    if rows <= 0:
        return 0
    if selected is not None and selected in ids:
        at = ids.index(selected)
        first = min(at, max(first, at - rows + 1))
    return max(0, min(first, len(ids) - rows))


def _short(seconds: float | None) -> str:
    """Whole seconds, which change no more than once a second."""
    if seconds is None:
        return "-"
    return f"{int(max(0.0, seconds))}s" if seconds < 60 else views.duration(int(seconds))


def _footer(model: Model, width: int) -> Line:
    keys = [key.format(sort=model.sort) for key in _KEYS]
    filtered = f"filter: {model.filter}  " if model.filter else ""
    if cell_len(filtered) > width - len(_QUIT):
        filtered = f"{cut(f'filter: {model.filter}', width - len(_QUIT) - 2)}  "
    room, shown = width - cell_len(filtered) + 2, set[int]()
    for at in _FIRST_KEYS:
        if len(keys[at]) + 2 <= room:
            shown.add(at)
            room -= len(keys[at]) + 2
    return [(filtered, "yellow"), ("  ".join(key for at, key in enumerate(keys) if at in shown), "dim")]
