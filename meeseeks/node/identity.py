"""Who a node is, whatever its name: a key pair in its state folder; and the names of others that it has come to know.

Both are files of the state folder, whatever `state.sync` says: a node that starts again is the same one, and knows the
others again.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import os
from pathlib import Path

from meeseeks.core.names import Names
from meeseeks.wire.curve import make_identity
from meeseeks.wire.keys import Keys

from .rarely import Rarely

__all__ = ["Identity", "KnownNames", "mark_of"]

log = logging.getLogger(__name__)

_MARK_BYTES = 12
"""Enough that nobody finds another key with the same mark, and short enough to stand in every message."""


def mark_of(public: str) -> str:
    """The mark of an identity, with which the incarnations of its node begin; of its public key in Z85."""
    return base64.urlsafe_b64encode(hashlib.sha256(public.encode()).digest()[:_MARK_BYTES]).decode()


class Identity:
    """The node's own. ConfigError if its file can't be made, or is none."""

    def __init__(self, folder: Path, mesh: Keys | None) -> None:
        pair = make_identity(folder / "identity.key")
        self.public = pair.public.decode()
        self.keys: Keys | None = Keys(pair.public, pair.secret, mesh.server) if mesh is not None else None
        """For connections to other nodes, where the mesh has a key."""

    def incarnation(self, life: str) -> str:
        """The name of one life of this node: everybody sees whose it is."""
        return f"{mark_of(self.public)}.{life}"


class KnownNames:
    """Keeps the names that the core knows in a file, and says in the log who was turned away for one of them."""

    def __init__(self, folder: Path, names: Names) -> None:
        self._path = folder / "names.json"
        self._names = names
        self._rarely = Rarely(log)
        names.known = self._read()
        self._saved = dict(names.known)

    def tick(self) -> None:
        """A few times a second."""
        turned_away, self._names.turned_away = self._names.turned_away, set()
        for name in turned_away:
            self._rarely.say(
                name, f"dropped what another node said as node {name!r}, which is known with another identity"
            )
        if self._names.known != self._saved:
            self._write()

    def _read(self) -> dict[str, str]:
        try:
            found = json.loads(self._path.read_text())
            if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
                raise ValueError("it has to be an object of strings")
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            log.warning("%s can't be read, and the names of other nodes are learned anew: %s", self._path, error)
            return {}
        return found

    def _write(self) -> None:
        known, part = dict(self._names.known), self._path.with_suffix(".part")
        try:
            with part.open("w") as file:
                json.dump(known, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            part.replace(self._path)
        except OSError as error:
            self._rarely.say("file", f"{self._path} can't be written: {error.strerror}")  # it is tried again
            return
        self._saved = known
