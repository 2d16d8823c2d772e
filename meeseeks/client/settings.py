"""What a Client is told by its caller or by `MEESEEKS_CONF`, checked before anything is opened."""

from __future__ import annotations

import math
import socket
from collections.abc import Mapping
from importlib import import_module
from typing import Any, NamedTuple

import msgspec

from meeseeks.errors import InvalidRequest, NodeUnreachable
from meeseeks.wire.origin import ip_version

from .credentials import Credentials

__all__ = [
    "DEFAULT_PORT",
    "Address",
    "ClientSettings",
    "Place",
    "parse_address",
    "parse_addresses",
    "parse_environment",
]

DEFAULT_PORT = 13700
_PORT_MAX = 65535
_OPTIONS = ("address", "port", "timeout", "refresh", "poll", "expire", "set_global", "ssl", "security")


class Address(NamedTuple):
    """Where a node listens. `host` is what the user wrote: a name, or an address."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def resolve(self) -> list[str]:
        """The addresses of the host, IPv4 first; NodeUnreachable if it has none. May block while it asks for them."""
        if ip_version(self.host):
            return [self.host]
        # ZeroMQ would try the first answer only, and IPv6 or nothing: so the name is resolved here, and each answer
        # is tried in turn.
        try:
            answers = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise NodeUnreachable(f"no node answers at {self}: the name has no address ({reason})") from error
        answers.sort(key=lambda answer: answer[0] != socket.AF_INET)
        return list(dict.fromkeys(str(answer[4][0]) for answer in answers))


class Place(NamedTuple):
    """One node's listener: an address as the user wrote it, and which of the hosts that it stands for was reached."""

    address: Address
    host: str


class ClientSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The arguments of a Client, checked. Times are in seconds."""

    addresses: tuple[Address, ...]
    timeout: float = 10.0
    refresh: float = 0.0
    poll: float = 10.0
    expire: float = 60.0
    credentials: Credentials

    @classmethod
    def check(
        cls, address: object, port: object, times: Mapping[str, object], cfg: Mapping[str, object]
    ) -> ClientSettings:
        """The settings that a caller's arguments stand for, or InvalidRequest naming the first wrong one.

        `times` holds timeout, refresh, poll and expire.
        """
        _check_options(cfg)
        checked = {name: _seconds(name, value) for name, value in times.items()}
        for name in ("timeout", "poll", "expire"):
            if checked[name] <= 0:
                raise InvalidRequest(f"{name} must be more than 0 seconds, not {checked[name]:g}")
        if checked["refresh"] > 0:
            if checked["poll"] <= checked["refresh"]:
                raise InvalidRequest(
                    f"poll ({checked['poll']:g} s) must be more than refresh ({checked['refresh']:g} s)"
                )
            if checked["expire"] <= checked["poll"]:
                raise InvalidRequest(f"expire ({checked['expire']:g} s) must be more than poll ({checked['poll']:g} s)")
        addresses = parse_addresses(address, port)
        credentials = Credentials(cfg.get("security"), cfg.get("ssl"))
        return cls(addresses=addresses, credentials=credentials, **checked)


def parse_addresses(value: object, port: object = DEFAULT_PORT) -> tuple[Address, ...]:
    """One address, a list of them, or a text with commas between them; each once. InvalidRequest for anything else."""
    if isinstance(value, str) and "," in value:
        value = [each for each in map(str.strip, value.split(",")) if each]
    wanted = value if isinstance(value, (list, tuple)) else [value]
    if not wanted:
        raise InvalidRequest("address is an empty list: name at least one node")
    default = _port(port)
    return tuple(dict.fromkeys(parse_address(each, default) for each in wanted))


def parse_address(text: object, port: int = DEFAULT_PORT) -> Address:
    """`host`, `host:port`, `[v6]:port` or a bare IPv6 address; None is this machine. InvalidRequest otherwise."""
    if text is None:
        return Address("127.0.0.1", port)
    if not isinstance(text, str) or not text.strip():
        raise InvalidRequest(f"address is a host, host:port or a list of these, not {text!r}")
    text = text.strip()
    if text.startswith("["):
        host, closed, rest = text[1:].partition("]")
        if not closed or (rest and not rest.startswith(":")):
            raise InvalidRequest(f"address {text!r} is not of the form [host]:port")
        return Address(host, _port(rest[1:]) if rest else port)
    if text.count(":") == 1:
        host, _, rest = text.partition(":")
        if not host:
            raise InvalidRequest(f"address {text!r} names no host")
        return Address(host, _port(rest))
    if "/" in text or any(c.isspace() for c in text):
        raise InvalidRequest(f"address {text!r} is not a host or host:port")
    return Address(text, port)


def parse_environment(text: str) -> dict[str, Any]:
    """The Client arguments in a `MEESEEKS_CONF`: `key=value` pairs, separated by blanks, dotted for nested keys.

    Numbers become numbers, `true` and `false` booleans. InvalidRequest for anything else.
    """
    found: dict[str, Any] = {}
    for pair in text.split():
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise InvalidRequest(f"MEESEEKS_CONF: {pair!r} is not of the form key=value")
        *outer, last = key.split(".")
        place = found
        for name in outer:
            place = place.setdefault(name, {})
            if not isinstance(place, dict):
                raise InvalidRequest(f"MEESEEKS_CONF: {key!r} goes into {name!r}, which has a value already")
        place[last] = _value(key, value)
    _check_options(found, "MEESEEKS_CONF: ")
    return found


def _value(key: str, text: str) -> Any:
    if key == "address":
        return text
    if key.startswith(("ssl.", "security.")) and key not in ("ssl.verify", "ssl.options"):
        return text  # a password may be a number
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        return text


def _check_options(cfg: Mapping[str, object], where: str = "") -> None:
    for key in cfg:
        if key not in _OPTIONS:
            near = import_module("difflib").get_close_matches(key, _OPTIONS, 1, 0.0)
            raise InvalidRequest(f"{where}Client option {key!r} is not known; the nearest is {near[0]!r}")


def _seconds(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
        raise InvalidRequest(f"{name} is a number of seconds, not {value!r}")
    return float(value)


def _port(value: object) -> int:
    try:
        port = int(value) if isinstance(value, (int, str)) and not isinstance(value, bool) else 0
    except ValueError:
        port = 0
    if not 0 < port <= _PORT_MAX:
        raise InvalidRequest(f"port is a number from 1 to {_PORT_MAX}, not {value!r}")
    return port
