"""Many jobs of one `mks sub`: an array, a job a line of a file, or jobspecs as JSON lines; and how they are sent.

All that can be known of them here is checked before the first is sent: of a file with a line that is wrong in itself
nothing is submitted. What only their node can refuse, it refuses for all that travel together.
"""

from __future__ import annotations

import json
import re
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from meeseeks.errors import InvalidRequest, MeeseeksError, RequestFailed

from .jobspec import with_variables
from .output import warn

if TYPE_CHECKING:
    from meeseeks import Client

__all__ = ["Batch", "array", "each", "of_lines", "submit_all"]

Spec = dict[str, Any]

_MAX_ARRAY = 1_000_000
_BYTES_AT_ONCE = 8 * 1024 * 1024
"""Of jobspecs that are sent at once: less than the Client puts into one request, which so has all of them or none."""
_ASKED_AT_ONCE = 500
_BAR_FROM = 2000
"""Jobs from which on a bar is worth its lines."""


class Batch(NamedTuple):
    """Jobs to submit; those from stdin with the numbers of their lines there."""

    specs: Sequence[Spec]
    lines: Sequence[int] = ()


def array(spec: Spec, text: str) -> list[Spec]:
    """`N` or `FIRST-LAST` of one job, told apart by MEESEEKS_ARRAY_INDEX."""
    found = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", text)
    if found is None:
        raise InvalidRequest(f"--array {text!r} is neither a number of jobs nor a range FIRST-LAST")
    numbers = range(int(found[1])) if found[2] is None else range(int(found[1]), int(found[2]) + 1)
    if not 0 < len(numbers) <= _MAX_ARRAY:
        raise InvalidRequest(f"--array {text!r} is {len(numbers)} jobs: 1 to {_MAX_ARRAY} are allowed")
    name = _name(spec)
    specs = [_numbered(spec, name, number, {}) for number in numbers]
    _check(specs[-1])  # they differ in their numbers only, and this is the longest
    return specs


def each(spec: Spec, file: str) -> list[Spec]:
    """The job for each line of a file (`-`: stdin) that is not blank, with the line in MEESEEKS_ARRAY_ITEM."""
    items = list(_lines(file))
    if not items:
        raise InvalidRequest(f"--each {file!r} has no lines: there is nothing to submit")
    if any("{}" in arg for arg in spec["args"]):
        warn("{} stays as it is: a job finds its line in its environment, as in sh -c 'gzip \"$MEESEEKS_ARRAY_ITEM\"'")
    name = _name(spec)
    specs = [_numbered(spec, name, at, {"MEESEEKS_ARRAY_ITEM": item}) for at, (_, item) in enumerate(items)]
    for (line, _), one in zip(items, specs, strict=True):
        _check(one, line)
    return specs


def _name(spec: Spec) -> str:
    return spec.get("id") or uuid.uuid4().hex


def _numbered(spec: Spec, name: str, number: int, variables: Mapping[str, str]) -> Spec:
    told = with_variables(spec, {"MEESEEKS_ARRAY_INDEX": str(number), **variables})
    return {**told, "id": f"{name}-{number}"}


def _check(spec: Spec, line: int | None = None, *, new: bool = True) -> None:
    """InvalidRequest if it is wrong in itself, with the line that it is of."""
    from meeseeks.core.spec import check

    try:
        check(spec, new=new)
    except InvalidRequest as error:
        where = "" if line is None else f"line {line}: "
        raise InvalidRequest(f"{where}{error}; nothing was submitted") from error


def of_lines() -> Batch:
    """The jobspecs that stand on stdin, one JSON object a line; InvalidRequest names the first line that is wrong."""
    specs: dict[int, Spec] = {}
    first_at: dict[str, int] = {}
    for at, line in _lines("-"):
        spec = _object(at, line)
        jid = spec.get("id")
        # What names an id may be a change of a job that is there: whether it is, the node knows.
        _check(spec, at, new=jid is None)
        if isinstance(jid, str) and first_at.setdefault(jid, at) != at:
            raise InvalidRequest(
                f"line {at}: the id {jid!r} stands on line {first_at[jid]} as well; nothing was submitted"
            )
        specs[at] = spec
    if not specs:
        raise InvalidRequest("there are no jobspecs on stdin: give a JSON object a line")
    return Batch([*specs.values()], [*specs])


def _object(at: int, line: str) -> Spec:
    try:
        spec = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"line {at} is no JSON: {error}; nothing was submitted") from error
    if not isinstance(spec, dict):
        raise InvalidRequest(f"line {at} is no JSON object but {line.strip()[:60]!r}; nothing was submitted")
    return spec


def _lines(file: str) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, each with its number."""
    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise InvalidRequest(f"can't read {file!r}: {error.strerror or error}") from error
    for at, raw in enumerate(data.split(b"\n"), 1):
        try:
            line = raw.removesuffix(b"\r").decode()
        except UnicodeDecodeError as error:
            raise InvalidRequest(f"line {at} of {file!r} is no UTF-8 text; nothing was submitted") from error
        if line.strip():
            yield at, line


def submit_all(client: Client, batch: Batch) -> tuple[dict[str, dict[str, Any]], MeeseeksError | None]:
    """Submit them, and show on a terminal how far it is: {id: jobinfo} in the order of the specs.

    With it comes the error that ended it, if a part of them is submitted by then. One before that is raised.
    """
    from meeseeks.client.submits import spans

    specs = batch.specs
    _check_is_known(client, batch)
    submitted: dict[str, dict[str, Any]] = {}
    with _bar(len(specs)) as advance:
        for span in spans(specs, _BYTES_AT_ONCE):
            part = specs[span]
            try:
                submitted.update(client.submit(**part[0]) if len(part) == 1 else client.submit_many(part))
            except KeyboardInterrupt:
                _warn_interrupted(batch, span, submitted)
                raise
            except MeeseeksError as error:
                if submitted:
                    return submitted, _told(error, batch, span.start, submitted)
                if isinstance(error, InvalidRequest) and batch.lines:
                    where = _lines_named(batch.lines[span])
                    raise InvalidRequest(f"{error}; this is of {where}; nothing was submitted") from error
                raise
            advance(len(part))
    return submitted, None


def _check_is_known(client: Client, batch: Batch) -> None:
    """InvalidRequest names the first line that can only be a change, of a job that is not there."""
    wanted = {spec["id"]: at for at, spec in zip(batch.lines, batch.specs, strict=False) if _is_change(spec)}
    ids = list(wanted)
    for first in range(0, len(ids), _ASKED_AT_ONCE):
        part = ids[first : first + _ASKED_AT_ONCE]
        known = client.query(part)
        for jid in part:
            # The id may also be that of jobs on several nodes.
            if jid not in known and not client.ls(id=f"{jid}@*"):
                raise InvalidRequest(
                    f"line {wanted[jid]}: a new job needs 'pool' and 'args', and no job has the id {jid!r} to be "
                    "changed; nothing was submitted"
                )


def _is_change(spec: Spec) -> bool:
    return spec.get("pool") is None or spec.get("args") is None


def _lines_named(lines: Sequence[int]) -> str:
    return f"line {lines[0]}" if len(lines) == 1 else f"one of the lines {lines[0]} to {lines[-1]}"


def _told(error: MeeseeksError, batch: Batch, done: int, submitted: Mapping[str, Any]) -> MeeseeksError:
    """The error that ended it after the first `done` jobspecs: with what became of them, and of the rest."""
    first, *_, last = [*submitted] * 2
    rest = f"line {batch.lines[done]}" if batch.lines else batch.specs[done]["id"]
    is_refused = isinstance(error, (InvalidRequest, RequestFailed))
    became = "nothing is" if is_refused else "nobody knows yet whether all is, or a part, or nothing"
    # Not InvalidRequest, which says that nothing was changed.
    kind = RequestFailed if isinstance(error, InvalidRequest) else type(error)
    told = kind(f"{error}; {done} of {len(batch.specs)} jobs are submitted, {first} to {last}; from {rest} on {became}")
    told.__cause__ = error
    return told


def _warn_interrupted(batch: Batch, under_way: slice, submitted: Mapping[str, Any]) -> None:
    """Say in a line on stderr which jobs are submitted by now, and which may be: their ids were not printed yet."""
    names = [*submitted]
    which = f", {names[0]} to {names[-1]}" if names else ""
    first, count = batch.specs[under_way.start].get("id"), under_way.stop - under_way.start
    rest = f"{count} more, from {first} on," if first else f"{count} more"
    warn(f"interrupted: {under_way.start} of {len(batch.specs)} jobs are submitted{which}, and {rest} may be")


@contextmanager
def _bar(total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr, if that is a terminal and the bar will be seen."""
    if total < _BAR_FROM or not sys.stderr.isatty():
        yield lambda _count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("submitting"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=total)
        yield lambda count: progress.update(task, advance=count, refresh=True)
