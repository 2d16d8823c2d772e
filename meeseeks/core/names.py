"""Whose name is whose: the identity that each node's name came with first, so that nobody takes over another's place.

An incarnation is `IDENTITY.LIFE`: whatever a node says of itself, and whatever others pass on of it, carries both. One
without a dot has no identity, and fits a name only as long as nobody with one has used it.
"""

from __future__ import annotations

from typing import ClassVar

from meeseeks.errors import InvalidRequest

__all__ = ["NameTaken", "Names", "identity_of"]


class NameTaken(InvalidRequest):
    """A node wants to be in the mesh by another node's name: to ask again would not help."""

    code: ClassVar[str] = "name_taken"


def identity_of(incarnation: str) -> str:
    """The identity of the node whose life this is; blank if it has none."""
    identity, dot, _ = incarnation.partition(".")
    return identity if dot else ""


class Names:
    """What one node knows. `known` is to survive restarts: the shell keeps it in a file."""

    def __init__(self) -> None:
        self.known: dict[str, str] = {}
        """Identities by name."""
        self.turned_away: set[str] = set()
        """Names in which something was said by another identity, since the shell looked last."""

    def fits(self, name: str, incarnation: str) -> bool:
        """Whether this is a life of the node that is known by this name, or nobody is."""
        if self._is_its(name, incarnation):
            return True
        self.turned_away.add(name)
        return False

    def check(self, name: str, incarnation: str) -> None:
        """NameTaken if the name is another node's."""
        if not self._is_its(name, incarnation):
            raise NameTaken(
                f"node {name!r} is known with another identity: use another name, or start it with the state folder of "
                f"the old one (identity.key in it), or, once that is gone for good, say 'mks forget {name}'"
            )

    def learn(self, name: str, incarnation: str) -> None:
        """A node of this name was met, or heard of."""
        identity = identity_of(incarnation)
        if identity:
            self.known.setdefault(name, identity)

    def forget(self, name: str) -> bool:
        """The name is free again. False if it was."""
        return self.known.pop(name, None) is not None

    def _is_its(self, name: str, incarnation: str) -> bool:
        identity = identity_of(incarnation)
        return self.known.get(name, identity) == identity
