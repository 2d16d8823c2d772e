"""What the `ssl` option means: its SSL contexts, and what went wrong in words. Imported only where it is used."""

from __future__ import annotations

import contextlib
import ssl
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from meeseeks.core.tls_options import TlsOptions
from meeseeks.errors import InvalidRequest

__all__ = ["Failure", "client_context", "failure_of", "server_context"]

_VERIFY = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}


class Failure(NamedTuple):
    """Why a tunnel has no connection. `reached`: somebody answers there, and TLS did not come about."""

    reached: bool
    why: str


def client_context(options: TlsOptions) -> ssl.SSLContext:
    """For the side that connects: it checks the other's certificate and host name, unless `verify` is none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    verify = _VERIFY[options.verify or "required"]
    context.check_hostname = verify is not ssl.CERT_NONE
    _set_up(context, options, verify)
    if verify is not ssl.CERT_NONE and not (options.cafile or options.capath):
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    return context


def server_context(options: TlsOptions) -> ssl.SSLContext:
    """For the side that listens: it has a certificate, and wants one of everybody, unless `verify` says otherwise."""
    if options.cert is None:
        raise InvalidRequest("listen.ssl needs cert, the file of this node's certificate")
    verify = _VERIFY[options.verify or "required"]
    if verify is not ssl.CERT_NONE and not (options.cafile or options.capath):
        raise InvalidRequest(
            "listen.ssl checks the certificates of others: give cafile or capath, or verify=none to let everybody in"
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _set_up(context, options, verify)
    return context


def _set_up(context: ssl.SSLContext, options: TlsOptions, verify: ssl.VerifyMode) -> None:
    context.verify_mode = verify
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of options that somebody asked for by name
        for option in options.options:
            try:
                context.options |= option if isinstance(option, int) else _option_named(option)
            except OverflowError as error:
                raise InvalidRequest(f"ssl.options: {option} is too large") from error
    try:
        if options.ciphers is not None:
            context.set_ciphers(options.ciphers)
    except (ssl.SSLError, ValueError) as error:  # a ValueError for a zero byte, and for what is no Unicode
        raise InvalidRequest(f"ssl.ciphers {options.ciphers!r} names no cipher") from error
    if options.cafile is not None or options.capath is not None:
        if options.capath is not None and not Path(options.capath).is_dir():
            raise InvalidRequest(f"ssl.capath {options.capath} is no folder")
        with _reading(f"ssl.cafile {options.cafile}"):
            context.load_verify_locations(options.cafile, options.capath)
    if options.cert is not None:
        with _reading(f"ssl.cert {options.cert} with key {options.key or options.cert}"):
            # A password is always given: without one OpenSSL would ask for it at the terminal.
            context.load_cert_chain(options.cert, options.key, options.password or "")


@contextlib.contextmanager
def _reading(what: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        hint = "; is it the right file, and `pass` its password?" if isinstance(error, ssl.SSLError) else ""
        raise InvalidRequest(f"{what} can't be used: {reason}{hint}") from error


def _option_named(name: str) -> int:
    value = getattr(ssl, name, None) if name.startswith("OP_") else None
    if value is None:
        raise InvalidRequest(
            f"ssl.options: {name!r} is not known; they are called like OP_NO_TLSv1_2, as in Python's ssl"
        )
    return int(value)


def failure_of(error: BaseException) -> Failure:
    """What an error of a connection or a handshake says."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return Failure(reached=True, why=f"its certificate is not accepted: {error.verify_message}")
    if isinstance(error, ssl.SSLError):
        reason = (error.reason or str(error)).replace("_", " ").lower()
        if "wrong version" in reason or "http request" in reason or "packet length" in reason:
            return Failure(reached=True, why=f"the other side does not speak TLS ({reason})")
        if "alert" in reason:
            return Failure(reached=True, why=f"the other side refuses: {reason}; does it accept our certificate?")
        return Failure(reached=True, why=f"TLS failed: {reason}")
    if isinstance(error, ConnectionResetError):
        return Failure(reached=True, why="the other side closed the connection: it does not speak TLS, or refuses us")
    if isinstance(error, TimeoutError):
        return Failure(reached=False, why="no answer in time")
    return Failure(reached=False, why=getattr(error, "strerror", None) or str(error))
