"""The keys of CURVE as values: what a socket needs of them. `curve` reads and writes them."""

from __future__ import annotations

import enum
from typing import NamedTuple

__all__ = ["Keys", "Role"]


class Role(enum.IntEnum):
    """What the holder of a key may do. Each may do what those below may."""

    READ = 1
    """See jobs, nodes, pools and output."""
    SUBMIT = 2
    """Submit, change and kill jobs."""
    ADMIN = 3
    """Change the configuration of nodes."""
    NODE = 4
    """Be a node of the mesh: whoever has the mesh key."""


class Keys(NamedTuple):
    """Keys of CURVE in Z85: our own pair, and the public key that a node at the other end must have.

    The pair of a mesh key has `server == public`: its nodes use it at both ends.
    """

    public: bytes
    secret: bytes
    server: bytes

    def __repr__(self) -> str:
        """Never the secret: reprs end up in logs."""
        return f"Keys(public={self.public!r}, server={self.server!r})"

    @property
    def is_mesh_key(self) -> bool:
        """Whether a node can serve with it."""
        return self.server == self.public
