"""How often something is asked for that does not come: over a slow link each repetition makes the answer later."""

from __future__ import annotations

from collections.abc import Hashable

__all__ = ["Pace"]

_FIRST_S, _LONGEST_S = 2.0, 300.0


class Pace:
    """Allows a question again after two seconds, and then each time after twice as long as nothing has come by then.

    After an answer others are expected to take up to twice as long as that one took.
    """

    def __init__(self) -> None:
        self._asked: dict[Hashable, tuple[float, float]] = {}  # since when nothing came, and when to ask again
        self._usual: dict[Hashable, float] = {}

    def may_ask(self, what: Hashable, now: float) -> bool:
        """Whether it is time to ask; `now` in seconds."""
        return what not in self._asked or now >= self._asked[what][1]

    def asked(self, what: Hashable, now: float) -> None:
        """It was asked for."""
        if what not in self._asked:
            self._asked[what] = now, now + self._usual.get(what, _FIRST_S)
        else:
            since, again_at = self._asked[what]
            self._asked[what] = since, now + min(_LONGEST_S, max(_FIRST_S, 2 * (again_at - since)))

    def answered(self, what: Hashable, now: float) -> None:
        """An answer came, perhaps to an earlier question."""
        if what in self._asked:
            since, _ = self._asked.pop(what)
            self._usual[what] = min(_LONGEST_S, max(_FIRST_S, 2 * (now - since)))

    def forget(self, what: Hashable) -> None:
        """It is another link: nothing is known of it, and what was asked for will not come."""
        self._asked.pop(what, None)
        self._usual.pop(what, None)
