"""Every error that meeseeks raises on purpose.

    MeeseeksError
    ├── InvalidRequest(ValueError)              the request or the configuration is wrong; nothing was changed
    │   └── ConfigError                         it stood in a configuration file or a key=value argument
    ├── NodeUnreachable(ConnectionError)        no node answers at the address
    ├── AuthenticationFailed(ConnectionError)   a node answers and does not let us in
    ├── RequestTimeout(TimeoutError)            the node was reached, the answer did not come by the deadline
    ├── ClientClosed(ConnectionError)           the Client was closed, by its owner or by a defect that the log names
    ├── RequestFailed(RuntimeError)             the node understood the request and could not carry it out
    └── ProtocolError(ValueError)               bytes that are no valid message of our protocol

`code` is what travels on the wire in an error reply; `from_reply` turns it back into the exception.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "AuthenticationFailed",
    "ClientClosed",
    "ConfigError",
    "InvalidRequest",
    "MeeseeksError",
    "NodeUnreachable",
    "ProtocolError",
    "RequestFailed",
    "RequestTimeout",
    "from_reply",
]


class MeeseeksError(Exception):
    """The base of all of them: `except MeeseeksError` catches whatever this package raises on purpose."""

    code: ClassVar[str] = "error"


class InvalidRequest(MeeseeksError, ValueError):
    """The request is wrong: the text names the field, the value and what is allowed. Nothing was changed."""

    code = "invalid_request"


class ConfigError(InvalidRequest):
    """A configuration file or a key=value argument is wrong; the text names the key and where it stood."""

    code = "config_error"


class NodeUnreachable(MeeseeksError, ConnectionError):
    """No node answers at the address; the text says which address, and why as far as it is known."""

    code = "node_unreachable"


class AuthenticationFailed(MeeseeksError, ConnectionError):
    """A node answers and does not let us in."""

    code = "authentication_failed"


class RequestTimeout(MeeseeksError, TimeoutError):
    """The node was reached, and its answer did not come by the deadline. The request may have been carried out."""

    code = "request_timeout"


class ClientClosed(MeeseeksError, ConnectionError):
    """The Client is closed: by `close()`, or because its I/O thread met a defect, which the text names.

    In a process that was forked so is every Client of its parent.
    """

    code = "client_closed"


class RequestFailed(MeeseeksError, RuntimeError):
    """The node understood the request and could not carry it out; the text says why."""

    code = "request_failed"


class ProtocolError(MeeseeksError, ValueError):
    """Bytes that are no valid message: too large, not MessagePack, or of an unknown type or version."""

    code = "protocol_error"


_BY_CODE: dict[str, type[MeeseeksError]] = {
    kind.code: kind
    for kind in (
        InvalidRequest,
        ConfigError,
        NodeUnreachable,
        AuthenticationFailed,
        RequestTimeout,
        ClientClosed,
        RequestFailed,
        ProtocolError,
    )
}


def from_reply(code: str, message: str) -> MeeseeksError:
    """The exception that an error reply stands for; a code of a later version becomes a plain RequestFailed."""
    return _BY_CODE.get(code, RequestFailed)(message)
