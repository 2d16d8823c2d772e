"""How a Client shows who it is: the key that it finds, or none if it was told so; and why that did not do."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

from meeseeks.errors import ConfigError, InvalidRequest
from meeseeks.wire.curve import default_key_path, load_key, stranger
from meeseeks.wire.keys import Keys
from meeseeks.wire.ways import Way

__all__ = ["Credentials"]

_MODES = ("curve", "none")


class Credentials:
    """The options `security` and `ssl` of a Client: `mode` and `key` as on a node, and the `way` to nodes."""

    def __init__(self, option: object = None, ssl: object = None) -> None:
        """Check the options; InvalidRequest says what is wrong with them, or with a file that they name."""
        # What only TLS or an error needs is imported then: `mks` would wait for it at each call.
        self.way = Way(None if ssl is None else import_module("meeseeks.core.tls_options").check_tls(ssl))
        given = {} if option is None else option
        if not isinstance(given, Mapping):
            raise InvalidRequest(f"security is a map of mode and key, not {given!r}")
        for key in given:
            if key not in ("mode", "key"):
                wording = import_module("meeseeks.core.wording")
                raise InvalidRequest(
                    wording.unknown("Client option", f"security.{key}", ["security.mode", "security.key"])
                )
        mode, path = given.get("mode", "curve"), given.get("key")
        if mode not in _MODES:
            raise InvalidRequest(f"security.mode must be {' or '.join(map(repr, _MODES))}, not {mode!r}")
        if path is not None and (not isinstance(path, (str, Path)) or not str(path)):
            raise InvalidRequest(f"security.key is the path of a key file, not {path!r}")
        self._plain = mode == "none"
        self._path = default_key_path() if path is None else Path(path).expanduser().absolute()
        self._problem = ""
        if not self._plain:
            load_key(self._path)

    def __repr__(self) -> str:
        return f"<Credentials: {'none' if self._plain else self._path}>"

    def keys(self) -> Keys | None:
        """The keys to connect with; None for plain connections.

        Where there is no key file yet, keys that nobody knows: nothing is ever said to somebody in the clear by
        mistake, and whether a node is there at all is seen all the same. It is looked for at each connection.
        """
        if self._plain:
            return None
        try:
            found = load_key(self._path)
        except ConfigError as error:
            self._problem, found = str(error), None
        else:
            self._problem = (
                ""
                if found
                else (f"there is no key at {self._path}; copy the mesh's key there, or name its file in MEESEEKS_KEY")
            )
        return found or stranger()

    def why(self, word: str) -> str:
        """Why a handshake was refused (a word of `sockets.monitor_event`), and what to do."""
        if self._problem and word != "refused_mechanism":
            return f"it expects a key, and {self._problem}"
        if word == "refused_key":
            return f"our key {self._path} is not authorized there; ask for it to be put among its security.authorized"
        if self._plain:
            return "it expects a key, or is no node; leave out security.mode=none"
        plain = "it does not encrypt; if it is a node of security.mode none, give this client security.mode=none too"
        if word == "refused_mechanism":
            return plain
        return (
            f"our key {self._path} is that of another mesh: copy the mesh's key there; or it expects TLS: see ssl; "
            f"or {plain}; or it has no room for more connections, as its log says then"
        )
