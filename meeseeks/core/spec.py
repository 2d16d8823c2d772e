"""What may be asked of a job: every key of a jobspec, checked as it came off the wire.

`check` is pure and total: whatever it is given, it returns the given keys in the form that `record.Spec` keeps them,
or raises InvalidRequest with one sentence that names the key, the value and what is allowed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from meeseeks.errors import InvalidRequest

from .placement import CONFIG_POOL
from .record import KILLED, NEW, Record, Spec, Status, jobinfo
from .tls_options import secret_in
from .wording import key_shown, one_of, shown, unknown

__all__ = ["JOB_KEYS", "MAX_NAME_LENGTH", "MAX_RETRIES", "MAX_RUNTIME", "MAX_SPEC_BYTES", "check"]

MAX_NAME_LENGTH = 255
"""Characters of an id, a pool's or a node's name, and a tag."""
MAX_RETRIES = 1_000_000
MAX_RUNTIME = 1e9
"""Seconds; some thirty years."""
MAX_SPEC_BYTES = 1024 * 1024
"""A jobspec as MessagePack: every node keeps every spec in memory, so large input belongs in a file."""

_MAX_ID = 2**32 - 2  # of a user or a group; 2**32 - 1 means 'leave it' to the kernel


def check(request: Mapping[Any, Any], *, new: bool) -> dict[str, Any]:
    """The given keys of a jobspec, normalised, or InvalidRequest.

    A new job must name `pool` and `args`. None stands for a key's default; for `id` and `state`, which have none, it
    is as if they were not given. The result fits the fields of `Spec`, but for `state`, and for `node`, which may
    still be a pattern or a list of them.
    """
    if not isinstance(request, Mapping):
        raise InvalidRequest(f"a job is a mapping of {', '.join(JOB_KEYS)}, not {shown(request)}")
    for key in request:
        if key in _SET_BY_NODE:
            raise InvalidRequest(f"{key!r} is set by the node, it can't be given")
        if not isinstance(key, str) or key not in _CHECKS:
            raise InvalidRequest(unknown("key", key, JOB_KEYS))
    for key in ("pool", "args"):
        if new and request.get(key) is None:
            jid = request.get("id") if request.get("pool") is None and request.get("args") is None else None
            why = "" if jid is None else f"no job has id {shown(jid)}, and "
            raise InvalidRequest(f"{why}a new job needs {key!r}")
    result: dict[str, Any] = {}
    for key, value in request.items():
        if value is not None or key in ("pool", "args"):
            result[key] = _CHECKS[key](key, value)
        elif key in _DEFAULTS:
            result[key] = _DEFAULTS[key]()
    _check_args_fit_pool(result)
    _check_has_no_secret(result)
    _check_size(result)
    return result


def _check_args_fit_pool(result: dict[str, Any]) -> None:
    """A change that names only one of the two is for the caller to judge, who knows the job."""
    if "pool" not in result or "args" not in result:
        return
    is_config = result["pool"] == CONFIG_POOL
    if is_config != isinstance(result["args"], dict):
        wanted = "a mapping of configuration keys" if is_config else "a list: the executable and its arguments"
        raise InvalidRequest(f"args of pool {shown(result['pool'])} must be {wanted}, not {shown(result['args'])}")


def _check_has_no_secret(result: dict[str, Any]) -> None:
    """Pushed configuration is a job: all who may see jobs can read it, and all nodes store it."""
    if not isinstance(args := result.get("args"), dict):
        return
    try:
        at = secret_in(args)
    except RecursionError as error:
        raise InvalidRequest("args are nested too deeply") from error
    if at is not None:
        raise InvalidRequest(
            f"args: {key_shown(at)} can't be pushed as a job, which others can read: put it into a configuration file "
            "of its node (chmod 600)"
        )


def _check_size(result: dict[str, Any]) -> None:
    try:
        size = len(msgspec.msgpack.encode(result))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidRequest(f"the job can't be sent as MessagePack: {error}") from error
    if size > MAX_SPEC_BYTES:
        raise InvalidRequest(f"the job has {size} bytes, at most {MAX_SPEC_BYTES} are allowed: use a file")


def _wrong(key: str, value: object, wanted: str) -> InvalidRequest:
    return InvalidRequest(f"{key} must be {wanted}, not {shown(value)}")


def _name(key: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise _wrong(key, value, "a non-empty string")
    if len(value) > MAX_NAME_LENGTH:
        raise InvalidRequest(f"{key} has {len(value)} characters, at most {MAX_NAME_LENGTH} are allowed")
    if any(ord(char) < 32 or ord(char) == 127 for char in value):
        raise _wrong(key, value, "a string without control characters")
    return value


def _id(key: str, value: object) -> str:
    name = _name(key, value)
    if name.isspace():
        raise _wrong(key, value, "a string that is not blank")
    if name.endswith("*"):
        raise _wrong(key, value, "a string that doesn't end in '*' (that is a filter)")
    return name


def _pattern(key: str, value: object) -> str:
    name = _name(key, value)
    if "*" in name[:-1]:
        raise _wrong(key, value, "a node's name with '*' only at its end")
    return name


def _node(key: str, value: object) -> str | list[str]:
    if isinstance(value, str):
        return _pattern(key, value)
    if not isinstance(value, (list, tuple)) or not value:
        raise _wrong(key, value, "a node's name, a pattern that ends in '*', or a non-empty list of these")
    return list(dict.fromkeys(_pattern(f"{key}[{i}]", item) for i, item in enumerate(value)))


def _text(key: str, value: object) -> str:
    if not isinstance(value, str):
        raise _wrong(key, value, "a string")
    if "\0" in value:
        raise _wrong(key, value, "a string without NUL")
    return value


def _path(key: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise _wrong(key, value, "a path, as a non-empty string")
    return _text(key, value)


def _args(key: str, value: object) -> tuple[str, ...] | dict[str, Any]:
    if isinstance(value, Mapping):
        _check_plain(key, value)
        return dict(value)
    if not isinstance(value, (list, tuple)) or not value:
        raise _wrong(key, value, "a non-empty list: the executable and its arguments")
    args = tuple(_text(f"{key}[{i}]", item) for i, item in enumerate(value))
    if not args[0]:
        raise _wrong(f"{key}[0]", "", "the executable")
    return args


def _check_plain(key: str, value: object, levels: int = 21) -> None:
    """What every node, and `mks`, can show: as JSON has it."""
    if not levels:
        raise InvalidRequest(f"{key} is nested too deeply")
    if isinstance(value, Mapping):
        for name, item in value.items():
            if not isinstance(name, str):
                raise InvalidRequest(f"{key} has the key {shown(name)}, which is not a string")
            _check_plain(f"{key}.{key_shown(name)}", item, levels - 1)
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            _check_plain(f"{key}[{i}]", item, levels - 1)
    elif value is not None and not isinstance(value, (str, int, float)):
        raise _wrong(key, value, "a text, a number, true, false or null")


def _flag(key: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise _wrong(key, value, "true or false")
    return value


def _integer(key: str, value: object, lowest: int, highest: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
        raise _wrong(key, value, f"a whole number from {lowest} to {highest}")
    return value


def _retries(key: str, value: object) -> int:
    return _integer(key, value, 0, MAX_RETRIES)


def _runtime(key: str, value: object) -> float:
    # nan compares false with everything, so it is refused as well
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= MAX_RUNTIME:
        raise _wrong(key, value, f"a number of seconds above 0, {MAX_RUNTIME:.0f} at most")
    return float(value)


def _tags(key: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)):
        raise _wrong(key, value, "a list of strings")
    return tuple(dict.fromkeys(_name(f"{key}[{i}]", tag) for i, tag in enumerate(value)))


def _state(key: str, value: object) -> str:
    if not isinstance(value, str) or value not in (NEW, KILLED):
        raise _wrong(key, value, one_of([repr(NEW), repr(KILLED)]))
    return value


def _config(key: str, value: object) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise _wrong(key, value, "a mapping of Popen arguments")
    result: dict[str, Any] = {}
    for name, argument in value.items():
        if isinstance(name, str) and name in _EXECUTORS_OWN:
            raise InvalidRequest(f"{key}.{name} can't be given: {_EXECUTORS_OWN[name]}")
        if not isinstance(name, str) or name not in _POPEN:
            raise InvalidRequest(unknown(f"{key} key", name, _POPEN))
        if argument is not None:
            result[name] = _POPEN[name](f"{key}.{name}", argument)
    return result


def _environment(key: str, value: object) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise _wrong(key, value, "a mapping of strings to strings")
    for name in value:
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            raise InvalidRequest(f"{key} has the name {shown(name)}, not a non-empty string without '=' and NUL")
    return {name: _text(f"{key}.{key_shown(name)}", text) for name, text in value.items()}


def _umask(key: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 0o777:
        raise _wrong(key, value, "a whole number from 0 to 511 (0o777)")
    return value


def _account(key: str, value: object) -> str | int:
    if isinstance(value, str):
        return _name(key, value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MAX_ID:
        raise _wrong(key, value, f"a name, or a number from 0 to {_MAX_ID}")
    return value


def _accounts(key: str, value: object) -> list[str | int]:
    if not isinstance(value, (list, tuple)):
        raise _wrong(key, value, "a list of names or numbers")
    return [_account(f"{key}[{i}]", item) for i, item in enumerate(value)]


_POPEN: dict[str, Callable[[str, object], Any]] = {
    "cwd": _path,
    "env": _environment,
    "shell": _flag,
    "executable": _path,
    "umask": _umask,
    "user": _account,
    "group": _account,
    "extra_groups": _accounts,
}
"""The arguments of subprocess.Popen that a job's `config` may set."""

_EXECUTORS_OWN: dict[str, str] = {
    "args": "it is a key of the job itself",
    **dict.fromkeys(("stdin", "stdout", "stderr"), "it is a key of the job itself, and names a file"),
    **dict.fromkeys(
        ("start_new_session", "process_group", "preexec_fn", "close_fds", "pass_fds", "restore_signals"),
        "the executor sets it itself, so that it can end the job's whole process tree",
    ),
    **dict.fromkeys(
        ("bufsize", "text", "encoding", "errors", "universal_newlines", "pipesize"),
        "the executor has no pipe to the job: its output goes straight to a file",
    ),
    **dict.fromkeys(("startupinfo", "creationflags"), "it exists on Windows only"),
}
"""The other arguments of subprocess.Popen, and why each is refused."""

_CHECKS: dict[str, Callable[[str, object], Any]] = {
    "id": _id,
    "pool": _name,
    "args": _args,
    "node": _node,
    "stdin": _path,
    "stdout": _path,
    "stderr": _path,
    "runtime": _runtime,
    "hold": _flag,
    "restart": _flag,
    "retries": _retries,
    "resubmit": _flag,
    "config": _config,
    "tags": _tags,
    "state": _state,
}

JOB_KEYS: tuple[str, ...] = tuple(_CHECKS)
"""The keys of a jobspec, as API.md lists them."""

_DEFAULTS: dict[str, Callable[[], Any]] = {
    **dict.fromkeys(("node", "stdin", "stdout", "stderr", "runtime"), lambda: None),
    **dict.fromkeys(("hold", "restart", "resubmit"), bool),
    "retries": int,
    "config": dict,
    "tags": tuple,
}


def _set_by_node() -> frozenset[str]:
    sample = Record(Spec(id="", pool="", args=(), submit_node=""), Status(epoch=(0, "")))
    return (frozenset(jobinfo(sample, 0)) | frozenset(Spec.__struct_fields__)) - frozenset(JOB_KEYS)


_SET_BY_NODE = _set_by_node()
