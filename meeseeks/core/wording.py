"""How an error says which value is wrong: shortened, and with the known name that is nearest to an unknown one.

What is shown here came from outside: a value may be any object, of any size.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["key_shown", "one_of", "shown", "unknown"]

_LONGEST_NAME = 64
_LONGEST_KEY = 64  # that is shown as it is


class _Shown(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 60
        self.maxlevel = 2
        self.maxdict = self.maxlist = self.maxtuple = 4

    def repr_int(self, value: int, _level: int) -> str:
        """A number; Python itself refuses to write very long ones."""
        return repr(value) if value.bit_length() <= 128 else f"a number of {value.bit_length()} bits"


_shown = _Shown()


def shown(value: object) -> str:
    """A value as an error's sentence shows it: on one line, and never long."""
    return _shown.repr(value)


def key_shown(key: str) -> str:
    """A key as an error's sentence shows it: as it is, or as a value where it is long, or has what does not print."""
    return key if key.isprintable() and len(key) <= _LONGEST_KEY else shown(key)


def one_of(names: Iterable[str]) -> str:
    """`a, b or c`."""
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last


def unknown(what: str, name: object, known: Iterable[str]) -> str:
    """`unknown WHAT NAME`, with the known name that is nearest to it, or all of them if none is near."""
    known = list(known)
    near = get_close_matches(name[:_LONGEST_NAME], known, 1) if isinstance(name, str) else []
    return f"unknown {what} {shown(name)}; " + (f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}")
