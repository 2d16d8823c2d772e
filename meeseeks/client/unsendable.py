"""What of a request can't be sent, and why: looked for once it was refused, so that what can be sent pays nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from meeseeks.core.wording import key_shown, shown
from meeseeks.errors import InvalidRequest
from meeseeks.wire import codec

from .arguments import checked

__all__ = ["unsendable"]

_DEEPEST = 100


def unsendable(kind: str, payload: Any, error: Exception) -> InvalidRequest:
    """The error for a request that could not be encoded: it names the key, the value and what is allowed."""
    at, value = _culprit(payload)
    if isinstance(value, str):
        return InvalidRequest(f"{kind}: {at or 'the text'} must be text that UTF-8 has, not {shown(value)}")
    if kind == "submit" and isinstance(payload, Mapping):
        for key, one in payload.items():
            try:
                checked({key: one}, new=False)
            except InvalidRequest as wrong:
                if str(wrong).startswith(str(key)):  # else it says no more than we know
                    return InvalidRequest(f"{kind}: {wrong}")
    return InvalidRequest(f"{kind}: {at or 'this'} can't be sent, it is {shown(value)}: {error}")


def _culprit(value: Any) -> tuple[str, Any]:
    """Where the innermost value is that can't be encoded, and the value."""
    at = ""
    for _ in range(_DEEPEST):
        wrong = next(((where, one) for where, one in _parts(at, value) if not _can_be_encoded(one)), None)
        if wrong is None:
            break
        at, value = wrong
    return at, value


def _parts(at: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping):
        return [(f"{at}.{key_shown(str(key))}".lstrip("."), one) for key, one in value.items()]
    if isinstance(value, (list, tuple)):
        return [(f"{at}[{i}]", one) for i, one in enumerate(value)]
    return []


def _can_be_encoded(value: Any) -> bool:
    try:
        codec.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return False
    return True
