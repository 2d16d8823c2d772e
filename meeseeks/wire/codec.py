"""Frames to messages and back. The only place that decodes bytes from outside, with one error for all bad ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, TypeVar

import msgspec

from meeseeks.core.effects import Beat
from meeseeks.core.record import Record
from meeseeks.errors import ProtocolError

from .messages import MAX_MESSAGE_BYTES, PROTOCOL_VERSION, REQUEST_TYPES, Event, Order, Reply, Request, Snapshot, Update

__all__ = [
    "BadRequest",
    "as_snapshot",
    "convert",
    "decode_events",
    "decode_orders",
    "decode_reply",
    "decode_request",
    "decode_update",
    "encode",
]

T = TypeVar("T")
Dropped = Callable[[str], None]

_ID_MAX = 64
# A TypeError is raised by msgspec before 0.22 for a map that is a key of a map, a RecursionError for what is too deep.
_MALFORMED = (msgspec.DecodeError, RecursionError, TypeError, ValueError)


class _Heading(msgspec.Struct):
    id: int | str


_encoder = msgspec.msgpack.Encoder()
_heading = msgspec.msgpack.Decoder(_Heading)
_reply = msgspec.msgpack.Decoder(Reply)
_anything = msgspec.msgpack.Decoder()

encode = _encoder.encode
"""Any message, or a list of orders or events, as bytes."""


class BadRequest(ProtocolError):
    """A request that can't be answered with a result; `id` is the sender's number for it, if that could be read."""

    def __init__(self, message: str, request_id: int | str | None) -> None:
        super().__init__(message)
        self.id = request_id


def decode_request(frame: bytes | None, bytes_max: int = MAX_MESSAGE_BYTES) -> Request:
    """A request of a known type and version, or BadRequest, which names what is wrong and says the request's id.

    It may have `bytes_max` bytes, which are fewer for readers; None is one that had more than any message may have.
    """
    if frame is None or len(frame) > bytes_max:
        if frame is None:
            raise BadRequest(f"a request has at most {MAX_MESSAGE_BYTES} bytes: send it in parts", None)
        text = f"a request by a key with the role 'read' has at most {bytes_max} bytes, not {len(frame)}"
        raise BadRequest(f"{text}: send it in parts", _id_of(frame))
    try:
        raw = _anything.decode(frame)
    except _MALFORMED as error:
        raise BadRequest(f"the message is not MessagePack: {error}", None) from error
    if not isinstance(raw, dict):
        raise BadRequest(f"a request is a map with v, id and request, not a {type(raw).__name__}", None)
    request_id = raw.get("id")
    if isinstance(request_id, bool) or not isinstance(request_id, (int, str)):
        raise BadRequest(f"a request's id is a number or a string, not {_short(request_id)}", None)
    if isinstance(request_id, str) and len(request_id) > _ID_MAX:
        raise BadRequest(f"a request's id has at most {_ID_MAX} characters, not {len(request_id)}", None)
    version, body = raw.get("v", PROTOCOL_VERSION), raw.get("request")
    if version != PROTOCOL_VERSION:
        raise BadRequest(
            f"protocol version {_short(version)} is not known here; this node speaks {PROTOCOL_VERSION}", request_id
        )
    if not isinstance(body, dict) or len(body) != 1:
        raise BadRequest("`request` is a map with exactly one entry, {type: data}", request_id)
    kind = next(iter(body))
    if kind not in REQUEST_TYPES:
        raise BadRequest(f"request type {_short(kind)} is not known; known are {', '.join(REQUEST_TYPES)}", request_id)
    return Request(id=request_id, request=body)


def _id_of(frame: bytes) -> int | str | None:
    """The id of a request whose data are not looked at: they may be made to take much memory."""
    try:
        found = _heading.decode(frame).id
    except _MALFORMED:
        return None
    return None if isinstance(found, str) and len(found) > _ID_MAX else found


def decode_reply(frame: bytes) -> Reply:
    """A reply, or ProtocolError."""
    return _decode(_reply, frame)


def decode_update(frame: bytes, dropped: Dropped) -> Update:
    """A broadcast, or ProtocolError. Records and heartbeats in it that are none are left out; `dropped` is told why."""
    try:
        return _update().decode(frame)
    except msgspec.ValidationError:
        return _salvage(_decode(_anything, frame), Update, dropped)
    except _MALFORMED as error:
        raise ProtocolError(f"not a valid message: {error}") from error


def as_snapshot(data: Any, dropped: Dropped) -> Snapshot:
    """The answer to a sync, in the same way."""
    try:
        return msgspec.convert(data, Snapshot)
    except (msgspec.ValidationError, RecursionError):
        return _salvage(data, Snapshot, dropped)


def decode_orders(frame: bytes) -> list[Order]:
    """What a node sends to its executor, or ProtocolError."""
    return _decode(_orders(), frame)


def decode_events(frame: bytes) -> list[Event]:
    """What an executor sends to its node, or ProtocolError."""
    return _decode(_events(), frame)


def convert(data: Any, kind: type[T]) -> T:
    """Plain maps and lists as the typed message that they stand for, or ProtocolError."""
    try:
        return msgspec.convert(data, kind)
    except (msgspec.ValidationError, RecursionError) as error:
        raise ProtocolError(f"{kind.__name__.lower()}: {error}") from error


# Made when they are first used: these have many types in them, and a Client without a cache needs none.
_update = cache(lambda: msgspec.msgpack.Decoder(Update))
_orders = cache(lambda: msgspec.msgpack.Decoder(list[Order]))
_events = cache(lambda: msgspec.msgpack.Decoder(list[Event]))


def _decode(decoder: msgspec.msgpack.Decoder[T], frame: bytes) -> T:
    try:
        return decoder.decode(frame)
    except _MALFORMED as error:
        raise ProtocolError(f"not a valid message: {error}") from error


def _salvage(data: Any, kind: type[T], dropped: Dropped) -> T:
    """The message without those of its records and heartbeats that are none: the others are no worse for them."""
    if not isinstance(data, dict):
        raise ProtocolError(f"{kind.__name__.lower()}: it has to be a map, not a {type(data).__name__}")
    kept = dict(data)
    for part, what in (("records", Record), ("beats", Beat)):
        found = data.get(part)
        kept[part] = list(_valid(found, what, dropped)) if isinstance(found, list) else []
    return convert(kept, kind)


def _valid(found: list[Any], kind: type[Any], dropped: Dropped) -> Iterator[Any]:
    for one in found:
        try:
            yield msgspec.convert(one, kind)
        except (msgspec.ValidationError, RecursionError) as error:
            dropped(f"{kind.__name__.lower()}: {error}")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
