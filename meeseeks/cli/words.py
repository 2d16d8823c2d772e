"""What stands on a command line: job ids and filters, POOL@NODE, durations, and values for a jobspec's keys."""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from meeseeks.errors import InvalidRequest

__all__ = ["Selection", "job_change", "name_value", "nodes_wanted", "seconds", "selection", "target"]

_STATES = ("new", "running", "done", "failed", "killed")
_FLAGS = ("active", "hold", "restart", "resubmit")
_NUMBERS = (
    *(
        "rc",
        "pid",
        "seq",
        "generation",
        "retries",
        "runtime",
        "start_count",
        "fail_count",
        "stdout_size",
        "stderr_size",
    ),
    *("ts", "submit_ts", "assign_ts", "claim_ts", "start_ts", "end_ts"),
)
_NO_FILTERS = {
    "tags": "'tag=x' matches those that have the tag x, 'tag=x*' those that have one that begins so",
    "args": "no filter looks at commands: give the jobs a tag, and use 'tag='",
    "config": "no filter looks into it: give the jobs a tag, and use 'tag='",
}
"""Keys of jobinfo whose values are no text that could be equal to one, and what to use in their place."""
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


class Selection(NamedTuple):
    """Which jobs: by `ids`, or by `filters`; all of them if it has neither."""

    ids: list[str]
    filters: dict[str, str]

    def __str__(self) -> str:
        return " ".join(self.ids or [f"{key}={value}" for key, value in self.filters.items()])


def selection(words: Sequence[str]) -> Selection:
    """Ids or `key=value` filters. A word that ends in `*` is a filter by id."""
    ids: list[str] = []
    filters: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            if not word.endswith("*"):
                ids.append(word)
                continue
            key, value = "id", word
        if key and not value:
            raise InvalidRequest(f"filter {word!r} has no value: give key=value; a value may end in '*'")
        if not key:
            raise InvalidRequest(f"{word!r} is no job id and no filter of the form key=value")
        if key in filters:
            raise InvalidRequest(f"the filter {key!r} is given twice")
        _check_filter(key, value)
        filters[key] = value
    if ids and filters:
        raise InvalidRequest(f"give job ids or filters, not both: {ids[0]!r} is an id, {_first(filters)!r} a filter")
    return Selection(list(dict.fromkeys(ids)), filters)


def _check_filter(key: str, value: str) -> None:
    """Refuse a value that no job can have: `state=runing` would match nothing, and `mks wait` be content with that."""
    if key in _NO_FILTERS:
        raise InvalidRequest(f"{key!r} is no filter; {_NO_FILTERS[key]}")
    if key == "state":
        fits = any(state == value or (value[-1] == "*" and state.startswith(value[:-1])) for state in _STATES)
        allowed = f"{', '.join(_STATES)}, or the beginning of one and '*'"
    elif key in _FLAGS:
        fits, allowed = value.lower() in ("true", "false"), "true and false"
    elif key in _NUMBERS:
        fits, allowed = value.lower() == "none" or _is_number(value), "a number and none"
    else:
        return
    if not fits:
        raise InvalidRequest(f"no job has {key}={value}: allowed are {allowed}")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _first(filters: dict[str, str]) -> str:
    return "=".join(next(iter(filters.items())))


def target(text: str) -> tuple[str, str | list[str] | None]:
    """`POOL`, `POOL@NODE`, `POOL@PATTERN*` or `POOL@NODE,NODE` as (pool, node)."""
    pool, at, node = text.partition("@")
    wanted = nodes_wanted(node)
    if not pool or (at and not wanted):
        raise InvalidRequest(f"{text!r} is not of the form POOL or POOL@NODE")
    return pool, wanted or None


def nodes_wanted(text: str) -> str | list[str]:
    """`NODE`, `PATTERN*` or `NODE,NODE` as a jobspec's `node`."""
    return [name for name in text.split(",") if name] if "," in text else text


def seconds(text: str) -> float:
    """`90`, `90s`, `1.5m`, `2h`, `1d`, `1h30m` in seconds."""
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*([smhd]?)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text.replace(" ", ""):
        raise InvalidRequest(f"{text!r} is no time: give seconds, or 90s, 5m, 2h, 1h30m")
    total = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if not 0 < total < math.inf:
        raise InvalidRequest(f"{text!r} is no time: it must be more than 0 seconds")
    return total


def name_value(text: str) -> tuple[str, str]:
    """`NAME=VALUE`."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise InvalidRequest(f"{text!r} is not of the form NAME=VALUE")
    return name, value


def job_change(text: str) -> tuple[str, Any]:
    """`key=value` as a jobspec has it: `hold=false`, `retries=3`, `runtime=5m`, `tags=a,b`. `key=` is its default."""
    key, value = name_value(text)
    if value == "":
        return key, None
    try:
        return key, _VALUES.get(key, str)(value)
    except InvalidRequest as error:
        raise InvalidRequest(f"{key}: {error}") from None


def _flag(text: str) -> bool:
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if text.lower() not in words:
        raise InvalidRequest(f"{text!r} is neither true nor false, nor yes, no, 1 or 0")
    return words[text.lower()]


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InvalidRequest(f"{text!r} is no whole number") from None


def _list(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def _args(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise InvalidRequest(f"{text!r} is no command line as a shell has it: {error}") from None


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise InvalidRequest(f"{text!r} is no JSON: {error}") from None


_VALUES: dict[str, Callable[[str], Any]] = {
    "args": _args,
    "node": nodes_wanted,
    "runtime": seconds,
    "hold": _flag,
    "restart": _flag,
    "resubmit": _flag,
    "retries": _integer,
    "config": _json,
    "tags": _list,
}
"""Every other key is text. Whether a key and its value are allowed is for the node to say."""
