"""Many jobs of one `mks sub`: an array, a job a line of a file, or jobspecs as JSON lines; and how they are sent.

Everything is checked here before the first job is sent: of a file with a wrong line nothing is submitted.
"""

from __future__ import annotations

import json
import re
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meeseeks.errors import InvalidRequest, MeeseeksError

from .jobspec import with_variables
from .output import warn

if TYPE_CHECKING:
    from meeseeks import Client

__all__ = ["array", "each", "specs_of_lines", "submit_all"]

Spec = dict[str, Any]

_MAX_ARRAY = 1_000_000
_AT_ONCE = 2000
"""Jobspecs in one request: as many as the Client puts into one."""
_BYTES_AT_ONCE = 8 * 1024 * 1024
_BAR_FROM = _AT_ONCE
"""Jobs from which on a bar is worth its lines."""


def array(spec: Spec, text: str) -> list[Spec]:
    """`N` or `FIRST-LAST` of one job, told apart by MEESEEKS_ARRAY_INDEX."""
    found = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", text)
    if found is None:
        raise InvalidRequest(f"--array {text!r} is neither a number of jobs nor a range FIRST-LAST")
    numbers = range(int(found[1])) if found[2] is None else range(int(found[1]), int(found[2]) + 1)
    if not 0 < len(numbers) <= _MAX_ARRAY:
        raise InvalidRequest(f"--array {text!r} is {len(numbers)} jobs: 1 to {_MAX_ARRAY} are allowed")
    return [_numbered(spec, name, number, {}) for name in [_name(spec)] for number in numbers]


def each(spec: Spec, file: str) -> list[Spec]:
    """The job for each line of a file (`-`: stdin) that is not blank, with the line in MEESEEKS_ARRAY_ITEM."""
    items = [line for _, line in _lines(file)]
    if not items:
        raise InvalidRequest(f"--each {file!r} has no lines: there is nothing to submit")
    if any("{}" in arg for arg in spec["args"]):
        warn("{} stays as it is: a job finds its line in its environment, as in sh -c 'gzip \"$MEESEEKS_ARRAY_ITEM\"'")
    name = _name(spec)
    return [_numbered(spec, name, at, {"MEESEEKS_ARRAY_ITEM": item}) for at, item in enumerate(items)]


def _name(spec: Spec) -> str:
    return spec.get("id") or uuid.uuid4().hex


def _numbered(spec: Spec, name: str, number: int, variables: Mapping[str, str]) -> Spec:
    told = with_variables(spec, {"MEESEEKS_ARRAY_INDEX": str(number), **variables})
    return {**told, "id": f"{name}-{number}"}


def specs_of_lines() -> list[Spec]:
    """The jobspecs that stand on stdin, one JSON object a line; InvalidRequest names the first line that is wrong."""
    from meeseeks.core.spec import check

    specs: list[Spec] = []
    first_at: dict[str, int] = {}
    for at, line in _lines("-"):
        spec = _object(at, line)
        jid = spec.get("id")
        try:
            # What names an id may be a change of a job that is there: whether it is, the node knows.
            check(spec, new=jid is None)
        except InvalidRequest as error:
            raise InvalidRequest(f"line {at}: {error}; nothing was submitted") from error
        if isinstance(jid, str) and first_at.setdefault(jid, at) != at:
            raise InvalidRequest(
                f"line {at}: the id {jid!r} stands on line {first_at[jid]} as well; nothing was submitted"
            )
        specs.append(spec)
    if not specs:
        raise InvalidRequest("there are no jobspecs on stdin: give a JSON object a line")
    return specs


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


def submit_all(client: Client, specs: Sequence[Spec]) -> dict[str, dict[str, Any]]:
    """Submit them, and show on a terminal how far it is. {id: jobinfo} in the order of the specs."""
    if len(specs) == 1:
        return client.submit(**specs[0])
    submitted: dict[str, dict[str, Any]] = {}
    sent = 0
    with _bar(len(specs)) as advance:
        for part in _parts(specs):
            try:
                submitted.update(client.submit_many(part))
            except MeeseeksError:
                if sent:
                    warn(f"the first {sent} of {len(specs)} jobs are submitted; of the rest none, or not all")
                raise
            sent += len(part)
            advance(len(part))
    return submitted


def _parts(specs: Iterable[Spec]) -> Iterator[list[Spec]]:
    """As many at once as fit well into one message."""
    import msgspec

    part: list[Spec] = []
    size = 0
    for spec in specs:
        bytes_ = len(msgspec.msgpack.encode(spec))
        if part and (len(part) >= _AT_ONCE or size + bytes_ > _BYTES_AT_ONCE):
            yield part
            part, size = [], 0
        part.append(spec)
        size += bytes_
    if part:
        yield part


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
