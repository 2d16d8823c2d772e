"""From plain values to declared structs, with one sentence for whatever does not fit.

It knows no setting by itself, but the keys of the original meeseeks that have no work to do here, and those that later
versions will have.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

import msgspec
from msgspec import inspect

from meeseeks.core.wording import key_shown, one_of, shown, unknown
from meeseeks.errors import ConfigError

from .text import KeyPath, Tree

__all__ = ["Check", "Setting", "declared", "is_loopback", "is_text"]

S = TypeVar("S", bound=msgspec.Struct)

_IDLE_KEYS: dict[str, dict[str, str]] = {
    "": {"refresh": "peers push their changes", "poll": "peers push their changes"},
    "logging": dict.fromkeys(
        ("filename", "filemode", "format", "datefmt", "style", "stream", "force", "encoding", "errors"),
        "a node logs to stderr",
    ),
    "listen": dict.fromkeys(("refresh", "poll", "timeout"), "connections take care of themselves"),
    "state": {
        "refresh": "the node acts at once on what changes",
        "poll": "the node acts at once on what changes",
        "update": "the node acts at once on what changes",
        "expire_active_jobs": "a job is judged when its node is lost, never by its age",
        "file": "jobs are stored in the folder state.dir",
        "checkpoint": "each change is stored at once",
    },
    "nodes": dict.fromkeys(("refresh", "poll", "timeout"), "peers push their changes; state.timeout judges silence"),
    "pools": dict.fromkeys(("refresh", "update"), "a pool acts at once on what changes"),
}
"""Keys of the original that are accepted with a warning, by section, and why they do nothing."""

_REFUSED_KEYS: dict[str, dict[str, str]] = {
    "": {
        "user": "start the node as that user instead",
        "group": "start the node as that group instead",
        "ssl": "give it to listen and to nodes.NAME, or to defaults",
    },
    "pools": {"plugin": "pool plugins are not available in this version"},
}
"""Keys that must not be passed over, since whoever writes them relies on them."""

_OLD_NAMES = {"pools": {"max_runtime": "runtime"}}
_NAME = re.compile(r"(?!__)[^\s*/@]{1,255}")


class Setting(NamedTuple):
    """One setting, for people."""

    key: str
    allowed: str
    default: Any
    description: str


class Check:
    """Makes structs of a tree's values. `warnings` collects what was accepted and does nothing."""

    def __init__(self, tree: Tree, named: tuple[str, ...]) -> None:
        self.tree = tree
        self.warnings: list[str] = []
        self._named = named
        self._defaults: dict[str, Any] = {}

    def error(self, path: KeyPath, what: str) -> ConfigError:
        """A ConfigError for a key: where it stood, its name, and what is wrong with it."""
        origin = self.tree.origin(path)
        return ConfigError(f"{origin + ': ' if origin else ''}{'.'.join(map(key_shown, path))} {what}")

    def name(self, path: KeyPath, name: Any) -> None:
        """Refuse what is no name of a node or a pool."""
        if not isinstance(name, str) or not _NAME.fullmatch(name) or not name.isprintable():
            raise self.error(
                path,
                f"{shown(name)} can't be used: a name has 1 to 255 characters, no space, control character, "
                "'*', '/' or '@', and does not begin with '__'",
            )

    def build(self, cls: type[S], leave_out: tuple[str, ...]) -> S:
        """The tree as a `cls`; its fields in `leave_out` are none that a user may give."""
        sections = _sections(cls)
        self._defaults = self._read_defaults(sections)
        values: dict[str, Any] = {}
        for key, value in self._known_keys("", self.tree.values, cls, (), leave_out):
            if key not in sections:
                values[key] = self._value(cls, key, value, (key,))
            elif key in self._named:
                table = self._table(value, (key,))
                for name in table:
                    self.name((key, str(name)), name)
                values[key] = {name: self._section(key, sections[key], table[name], (key, name)) for name in table}
            else:
                values[key] = self._section(key, sections[key], value, (key,))
        for key in sections:
            if key not in values and key not in self._named:
                values[key] = self._section(key, sections[key], {}, (key,))
        values["defaults"] = self._defaults
        return cls(**values)

    def _section(self, kind: str, cls: type[msgspec.Struct], raw: Any, path: KeyPath) -> msgspec.Struct:
        given = dict(self._known_keys(kind, self._table(raw, path), cls, path))
        fitting = {key: value for key, value in self._defaults.items() if key in cls.__struct_fields__}
        values = {key: self._value(cls, key, value, (*path, key)) for key, value in {**fitting, **given}.items()}
        return cls(**values)

    def _read_defaults(self, sections: Mapping[str, type[msgspec.Struct]]) -> dict[str, Any]:
        """`defaults`, each checked against every section that has the key, whether anybody uses it or not."""
        path, found = ("defaults",), {}
        for key, value in self._table(self.tree.values.get("defaults"), path).items():
            name = next((old[key] for old in _OLD_NAMES.values() if key in old), key)
            kinds = [kind for kind, cls in sections.items() if name in cls.__struct_fields__ and kind != "security"]
            if not kinds:
                if not self._pass_over(list(sections), key, value, path):
                    fitting = [cls for kind, cls in sections.items() if kind != "security"]
                    known = list(dict.fromkeys(name for cls in fitting for name in cls.__struct_fields__))
                    raise self._unknown("defaults key", key, known, path)
                continue
            if value is None:
                continue
            for kind in kinds:
                self._value(sections[kind], name, value, (*path, key))
            found[name] = value
        return found

    def _known_keys(
        self, kind: str, raw: Mapping[Any, Any], cls: type[msgspec.Struct], path: KeyPath, leave_out: KeyPath = ()
    ) -> Iterator[tuple[str, Any]]:
        """The keys of a section that are declared, under their present names; None values are left to the default."""
        known = [name for name in cls.__struct_fields__ if name not in leave_out]
        for key, value in raw.items():
            name = _OLD_NAMES.get(kind, {}).get(key, key)
            if name != key and name in raw:
                raise self.error((*path, key), f"is the old name of {name}: give only one of them")
            if name in known:
                if value is not None:
                    yield name, value
            elif not self._pass_over([kind], key, value, path):
                raise self._unknown(f"{'.'.join(path)} key" if path else "key", key, known, (*path, str(key)))

    def _unknown(self, what: str, key: Any, known: list[str], path: KeyPath) -> ConfigError:
        origin = self.tree.origin(path)
        return ConfigError(f"{origin + ': ' if origin else ''}{unknown(what, key, known)}")

    def _pass_over(self, kinds: list[str], key: Any, value: Any, path: KeyPath) -> bool:
        """Whether the key is one that does nothing here. ConfigError if somebody would rely on what it does not do."""
        for kind in kinds:
            if key in _REFUSED_KEYS.get(kind, {}):
                if value in (None, {}, [], ""):
                    return True
                raise self.error((*path, key), f"can't be set: {_REFUSED_KEYS[kind][key]}")
            if key in _IDLE_KEYS.get(kind, {}):
                origin = self.tree.origin((*path, key))
                name = ".".join((*path, key))
                self.warnings.append(f"{origin + ': ' if origin else ''}{name} does nothing: {_IDLE_KEYS[kind][key]}")
                return True
        return False

    def _table(self, raw: Any, path: KeyPath) -> Mapping[Any, Any]:
        if raw is None:
            return {}
        if not isinstance(raw, Mapping):
            raise self.error(path, f"must be a table of settings, not {shown(raw)}")
        return raw

    def _value(self, cls: type[msgspec.Struct], key: str, value: Any, path: KeyPath) -> Any:
        hint = _hints(cls)[key]
        if path == ("logging", "level") and isinstance(value, str):
            value = value.upper()
        try:
            return msgspec.convert(value, hint)
        except msgspec.ValidationError:
            raise self.error(path, f"must be {_allowed(hint)}, not {shown(value)}") from None


def declared(cls: type[msgspec.Struct], prefix: str = "", named: tuple[str, ...] = ("nodes", "pools")) -> list[Setting]:
    """The settings of a struct and the structs within it, in their order."""
    found: list[Setting] = []
    hints = _hints(cls)
    sections = _sections(cls)
    for field in msgspec.structs.fields(cls):
        if field.name in sections:
            below = f"{prefix}{field.name}.{'NAME.' if field.name in named else ''}"
            found += declared(sections[field.name], below)
            continue
        info = inspect.type_info(hints[field.name])
        schema = (info.extra_json_schema or {}) if isinstance(info, inspect.Metadata) else {}
        default = field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default
        found.append(
            Setting(
                prefix + field.name,
                _allowed(hints[field.name]),
                None if default is msgspec.NODEFAULT else default,
                schema.get("description", ""),
            )
        )
    return found


def is_text(cls: type[msgspec.Struct], path: KeyPath) -> bool:
    """Whether the key at a path is one that takes text and no number."""
    sections = _sections(cls)
    if path and path[0] in sections:
        cls = sections[path[0]]
    hint = _hints(cls).get(path[-1]) if path else None
    if hint is None:
        return False
    kinds = _kinds(inspect.type_info(hint))
    return any(isinstance(kind, (inspect.StrType, inspect.LiteralType)) for kind in kinds) and not any(
        isinstance(kind, (inspect.IntType, inspect.FloatType)) for kind in kinds
    )


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach it. A name other than localhost is not looked up: it counts as reachable."""
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return address.lower() == "localhost"


@cache
def _hints(cls: type[msgspec.Struct]) -> dict[str, Any]:
    return get_type_hints(cls, include_extras=True)


@cache
def _sections(cls: type[msgspec.Struct]) -> dict[str, type[msgspec.Struct]]:
    """The fields of a struct that are structs, or tables of them."""
    found: dict[str, type[msgspec.Struct]] = {}
    for name, hint in get_type_hints(cls).items():
        inner = get_args(hint)[1] if get_origin(hint) is dict else hint
        if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
            found[name] = inner
    return found


def _kinds(info: inspect.Type) -> list[inspect.Type]:
    """The members of a union, or the type itself."""
    while isinstance(info, inspect.Metadata):
        info = info.type
    return [kind for member in info.types for kind in _kinds(member)] if isinstance(info, inspect.UnionType) else [info]


def _allowed(hint: Any) -> str:
    """What a type takes, in words."""
    return one_of(_words(kind) for kind in _kinds(inspect.type_info(hint)) if not isinstance(kind, inspect.NoneType))


def _words(kind: inspect.Type) -> str:
    match kind:
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType(ge=lowest, le=highest):
            return f"a whole number from {lowest} to {highest}"
        case inspect.FloatType(gt=None, ge=lowest, le=highest):
            return f"a number from {lowest:g} to {highest:.0f}"
        case inspect.FloatType(gt=lowest, le=highest):
            return f"a number above {lowest:g}, {highest:.0f} at most"
        case inspect.LiteralType(values=values):
            return one_of(repr(value) for value in values)
        case inspect.StrType():
            return "a non-empty text"
        case _:
            return "a table of settings"
