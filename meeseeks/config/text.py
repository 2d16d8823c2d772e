"""What configuration files and `key.key=value` arguments say: one tree of plain values, and where each key stood.

Nothing here knows which keys there are; `node_config` does.
"""

from __future__ import annotations

import json
import stat
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from meeseeks.core.tls_options import refuse_secret, secret_in
from meeseeks.core.wording import shown
from meeseeks.errors import ConfigError, InvalidRequest

__all__ = ["DEFAULT_PORT", "NAMED", "KeyPath", "Tree", "parse_joins"]

DEFAULT_PORT = 13700
NAMED = ("nodes", "pools")
"""The sections that have a section for each name: None instead of one takes it out."""

KeyPath = tuple[str, ...]


class Tree:
    """Values from several sources, each laid over those before it; `origin` says where a key came from."""

    def __init__(self, values: dict[str, Any] | None = None) -> None:
        self.values: dict[str, Any] = values or {}
        self.warnings: list[str] = []
        """What is wrong with where they come from."""
        self._origins: dict[KeyPath, str] = {}

    def origin(self, path: KeyPath) -> str:
        """Where the key, or else the section it belongs to, stood; empty where nobody gave it."""
        while path:
            if path in self._origins:
                return self._origins[path]
            path = path[:-1]
        return ""

    def lay_over(self, values: Mapping[str, Any], origin: str) -> None:
        """Merge values in: sections key by key, everything else as a whole."""
        _lay_over(self.values, values, (), lambda path: self._origins.__setitem__(path, origin))

    def read_file(self, name: str | Path) -> None:
        """Merge a TOML or JSON file in. ConfigError names the file, and the line if it can't be parsed."""
        path = Path(name)
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{path} can't be read: {error.strerror or error}") from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path} is no text in UTF-8: {error}") from error
        is_json = path.suffix == ".json" or text.lstrip().startswith("{")  # TOML never begins with a brace
        try:
            values = json.loads(text) if is_json else tomllib.loads(text)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{path} is no valid {'JSON' if is_json else 'TOML'}: {error}") from error
        if not isinstance(values, dict):
            raise ConfigError(f"{path} must be a table of settings, not {shown(values)}")
        secret = secret_in(values)
        if secret is not None and path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
            self.warnings.append(f"{path} has {secret} in it, and others may read it: 'chmod 600 {path}'")
        self.lay_over(values, str(path))

    def read_pair(self, pair: str, is_text: Callable[[KeyPath], bool]) -> None:
        """Merge a `key.key=value` argument in. A value is TOML or JSON where it can be, and plain text elsewhere.

        `is_text` tells keys that are text, so that a node may be named `7` without quotes within quotes.
        """
        key, equals, text = pair.partition("=")
        path = _key_path(key.strip())
        if not equals or not all(path):
            raise ConfigError(f"argument {shown(pair)} must be key=value or section.key=value")
        values: Any = _value(text.strip(), as_text=is_text(path))
        for part in reversed(path):
            values = {part: values}
        try:
            refuse_secret(values)
        except InvalidRequest as error:
            raise ConfigError(str(error)) from None
        self.lay_over(values, f"argument {shown(pair)}")


def _lay_over(base: dict[str, Any], over: Mapping[str, Any], path: KeyPath, note: Callable[[KeyPath], None]) -> None:
    for key, value in over.items():
        here = (*path, str(key))
        if value is None and len(here) == 2 and here[0] in NAMED:
            base.pop(key, None)
        elif isinstance(value, Mapping):
            below = base.get(key)
            if not isinstance(below, dict):
                below = base[key] = {}
                note(here)
            _lay_over(below, value, here, note)
        else:
            base[key] = value
            note(here)


def _key_path(key: str) -> KeyPath:
    """`pools.p.slots`, or `nodes."a.b".port` as TOML has it."""
    if "\n" not in key and '"' in key:
        try:
            node: Any = tomllib.loads(f"{key} = 0")
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"argument key {shown(key)} has wrong quotes: {error}") from error
        if not node:
            raise ConfigError(f"argument key {shown(key)} is a comment: put a part that has a # into quotes")
        path: list[str] = []
        while isinstance(node, dict):
            part, node = next(iter(node.items()))
            path.append(part)
        return tuple(path)
    return tuple(key.split("."))


def _value(text: str, *, as_text: bool) -> Any:
    if text == "null":
        return None
    value = _parsed(text)
    plain = isinstance(value, (str, bool, int, float, list, dict))  # TOML would have dates as well
    return value if isinstance(value, str) or (plain and not as_text) else text


def _parsed(text: str) -> Any:
    try:
        values = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        values = {}
    if len(values) == 1:  # two: the text has a line break, and another key after it
        return values["value"]
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _parse_join(text: str) -> tuple[str, int]:
    """`HOST`, `HOST:PORT`, `[IPV6]:PORT` or a bare IPv6 address, as (host, port), or ConfigError."""
    host, colon, port = text.rpartition(":")
    if not colon or (":" in host and not (host.startswith("[") and host.endswith("]"))):
        host, port = text, str(DEFAULT_PORT)
    host = host.strip("[]")
    if not host or any(char.isspace() for char in host) or not (port.isascii() and port.isdigit()) or len(port) > 5:
        raise ConfigError(f"--join must be HOST or HOST:PORT, not {shown(text)}")
    if not 0 < int(port) <= 65535:
        raise ConfigError(f"--join {shown(text)}: a port is a number from 1 to 65535")
    return host, int(port)


def parse_joins(joins: Iterable[str]) -> tuple[tuple[str, int], ...]:
    """All of them, each once."""
    return tuple(dict.fromkeys(_parse_join(text) for text in joins))
