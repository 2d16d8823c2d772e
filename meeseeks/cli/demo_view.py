"""What `mks demo` shows: a live table on a terminal, lines of progress otherwise, and a summary at the end."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

__all__ = ["Scene", "View", "choose_view"]

_BAR_CELLS = 30


class Scene(NamedTuple):
    """The mesh at one moment."""

    nodes: dict[str, dict[str, Any]]
    jobs: dict[str, dict[str, Any]]
    ended: int
    total: int


class View(Protocol):
    """Shows how a demo goes on."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def say(self, text: str) -> None:
        """Something has happened."""

    def show(self, scene: Scene) -> None:
        """This is how it is now."""

    def finish(self, jobs: dict[str, dict[str, Any]], left: str, verdict: str) -> None:
        """This is how it was: what ran where."""


def choose_view() -> View:
    """A live table for a terminal, lines for anything else."""
    return _Live() if sys.stdout.isatty() else _Lines()


class _Row(NamedTuple):
    """What a node did: jobs that ended well there, starts that were repeated there, seconds of work."""

    node: str
    done: int
    retried: int
    busy_s: float


def _summary(jobs: Iterable[dict[str, Any]]) -> list[_Row]:
    done: Counter[str] = Counter()
    retried: Counter[str] = Counter()
    busy: Counter[str] = Counter()
    for info in jobs:
        if info["state"] != "done":
            continue
        node = info["node"]
        done[node] += 1
        retried[node] += info["start_count"] > 1
        busy[node] += info["end_ts"] - info["start_ts"]
    return [_Row(node, done[node], retried[node], busy[node]) for node in sorted(done)]


class _Lines:
    """For pipes and logs: a line each time something has happened."""

    def __init__(self) -> None:
        self._shown = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return

    def say(self, text: str) -> None:
        print(text, flush=True)

    def show(self, scene: Scene) -> None:
        if scene.ended >= self._shown + scene.total // 6 or scene.ended == scene.total != self._shown:
            self._shown = scene.ended
            print(f"{scene.ended} of {scene.total} jobs have ended", flush=True)

    def finish(self, jobs: dict[str, dict[str, Any]], left: str, verdict: str) -> None:
        for row in _summary(jobs.values()):
            notes = f", {row.retried} of them after a run that was cut off" if row.retried else ""
            gone = " (taken down on the way)" if row.node == left else ""
            print(f"{row.node}{gone}: {row.done} jobs{notes}, {row.busy_s:.1f} s of work")
        print(verdict, flush=True)


class _Live:
    """For a terminal: a table that moves."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(highlight=False)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)

    def say(self, text: str) -> None:
        self._console.print(text, markup=False)

    def show(self, scene: Scene) -> None:
        self._live.update(_picture(scene), refresh=True)

    def finish(self, jobs: dict[str, dict[str, Any]], left: str, verdict: str) -> None:
        self._live.stop()
        table = _table("NODE", "JOBS DONE", "AFTER A CUT-OFF RUN", "WORK")
        for row in _summary(jobs.values()):
            name = f"{row.node} (taken down on the way)" if row.node == left else row.node
            table.add_row(name, str(row.done), str(row.retried), f"{row.busy_s:.1f} s")
        self._console.print(table)
        self._console.print(verdict, style="bold", markup=False)


def _table(*heads: str) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for at, head in enumerate(heads):
        table.add_column(head, justify="right" if at and head != "RUNNING NOW" else "left", no_wrap=True)
    return table


def _picture(scene: Scene) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    where = Counter((info["node"], info["state"]) for info in scene.jobs.values())
    table = _table("NODE", "STATE", "DONE", "RUNNING NOW")
    for name, status in sorted(scene.nodes.items()):
        running = [
            i["id"].removeprefix("demo-") for i in scene.jobs.values() if i["state"] == "running" and i["node"] == name
        ]
        style = "green" if status["online"] else "red"
        table.add_row(name, Text(status["state"], style), str(where[name, "done"]), "  ".join(sorted(running)))
    full = _BAR_CELLS * scene.ended // max(1, scene.total)
    bar = Text.assemble(
        ("━" * full, "green"), ("─" * (_BAR_CELLS - full), "dim"), f"  {scene.ended} of {scene.total} jobs"
    )
    return Group(table, bar)
