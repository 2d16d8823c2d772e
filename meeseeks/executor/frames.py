"""Lists of orders or events as messages, none of them larger than the other side takes."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

from meeseeks.wire import codec
from meeseeks.wire.messages import MAX_MESSAGE_BYTES, Event, Order

__all__ = ["frames"]

_BATCH = 1000

log = logging.getLogger(__name__)


def frames(items: Sequence[Order] | Sequence[Event]) -> Iterator[tuple[int, bytes]]:
    """Pairs (how many of the items, their frame), in order. The caller may delete what was sent as it goes."""
    left = list(items)
    size = _BATCH
    while left:
        frame = codec.encode(left[:size])
        if len(frame) > MAX_MESSAGE_BYTES and size > 1:
            size = max(1, min(size, len(left)) // 2)
            continue
        if len(frame) > MAX_MESSAGE_BYTES:
            # It would close the connection, now and each time that it is repeated.
            log.error("a message of %d bytes can't be sent and is dropped: %.200r", len(frame), left[0])
            frame = codec.encode([])
        yield len(left[:size]), frame
        del left[:size]
