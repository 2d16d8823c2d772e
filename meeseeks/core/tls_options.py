"""The `ssl` option of a listener, a peer or a Client, checked: names and types. What they mean is in `wire.tls`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from meeseeks.errors import InvalidRequest

from .wording import key_shown, one_of, shown, unknown

__all__ = ["TlsOptions", "check_tls", "refuse_secret", "secret_in"]

_KEYS = ("capath", "cafile", "ciphers", "options", "verify", "cert", "key", "pass")
_VERIFY = {"none": "none", "optional": "optional", "required": "required"}
_VERIFY |= {"cert_none": "none", "cert_optional": "optional", "cert_required": "required"}
_VERIFY_NUMBERS = {0: "none", 1: "optional", 2: "required"}


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """What to make an `ssl.SSLContext` of. None is the default of the side that it is for."""

    capath: str | None = None
    cafile: str | None = None
    ciphers: str | None = None
    options: tuple[int | str, ...] = ()
    verify: str | None = None
    cert: str | None = None
    key: str | None = None
    password: str | None = field(default=None, repr=False)


def secret_in(values: object, at: str = "") -> str | None:
    """The dotted key of a password in a tree of settings or in a part of it, which begins at `at`; None: none is."""
    if not isinstance(values, Mapping):
        return None
    for key, value in values.items():
        here = f"{at}.{key}" if at else str(key)
        if value and here.endswith("ssl.pass"):
            return here
        found = secret_in(value, here)
        if found is not None:
            return found
    return None


def refuse_secret(values: object) -> None:
    """InvalidRequest if a command line says a password: everybody on the machine can list command lines."""
    found = secret_in(values)
    if found is not None:
        raise InvalidRequest(
            f"{key_shown(found)} can't be an argument, since everybody on this machine can see it there: "
            "put it into a configuration file that only you can read (chmod 600)"
        )


def check_tls(value: object, where: str = "ssl") -> TlsOptions:
    """The options in a map of capath, cafile, ciphers, options, verify, cert, key and pass; or InvalidRequest."""
    if not isinstance(value, Mapping):
        raise InvalidRequest(f"{where} must be a map of {', '.join(_KEYS)}, not {shown(value)}")
    for key in value:
        if key not in _KEYS:
            raise InvalidRequest(unknown(f"{where} key", key, list(_KEYS)))
    texts = {}
    for key in ("capath", "cafile", "ciphers", "cert", "key", "pass"):
        text = value.get(key)
        if text is not None and (not isinstance(text, str) or not text):
            shows = "something else" if key == "pass" else shown(text)
            raise InvalidRequest(f"{where}.{key} must be a non-empty text, not {shows}")
        texts["password" if key == "pass" else key] = text
    if texts["key"] and not texts["cert"]:
        raise InvalidRequest(f"{where}.key is the private key of {where}.cert: give that too")
    return TlsOptions(
        options=_options(value.get("options"), where), verify=_verify(value.get("verify"), where), **texts
    )


def _options(value: object, where: str) -> tuple[int | str, ...]:
    """A number, a name (OP_NO_TLSv1_2), or several of them in a list, or in a text with commas or '|' between."""
    if isinstance(value, str):
        value = [part.strip() for part in value.replace("|", ",").split(",")]
    parts = [] if value is None else value if isinstance(value, (list, tuple)) else [value]
    for part in parts:
        if isinstance(part, bool) or not isinstance(part, (int, str)) or (isinstance(part, int) and part < 0):
            raise InvalidRequest(f"{where}.options must be names like OP_NO_TLSv1_2, or a number, not {shown(part)}")
    return tuple(parts)


def _verify(value: object, where: str) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return "required" if value else "none"
    found = _VERIFY_NUMBERS.get(value) if isinstance(value, int) else None
    if isinstance(value, str):
        found = _VERIFY.get(value.lower().removeprefix("ssl."))
    if found is None:
        raise InvalidRequest(f"{where}.verify must be {one_of(('none', 'optional', 'required'))}, not {shown(value)}")
    return found
