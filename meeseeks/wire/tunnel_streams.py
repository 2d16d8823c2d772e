"""The two ends of a tunnel: how they come about with TLS, carry bytes to each other, and close without a rest."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

__all__ = ["CHUNK", "Streams", "closing", "pump", "secured"]

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

CHUNK = 256 * 1024
_CLOSE_S = 0.5
_LAST_WORDS_S = 0.1


class _Protocol(asyncio.StreamReaderProtocol):
    """One that tells its transport before whoever waits for it hears of it."""

    transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        super().connection_made(transport)


async def secured(
    connect: Callable[[Callable[[], _Protocol]], Coroutine[Any, Any, tuple[asyncio.Transport, _Protocol]]],
) -> Streams:
    """A connection with TLS. Cancelled just when it has come about, asyncio would wait for a goodbye: it ends here."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=CHUNK, loop=loop)
    protocol = _Protocol(reader, loop=loop)
    try:
        transport, _ = await connect(lambda: protocol)
    except BaseException:
        if isinstance(protocol.transport, asyncio.Transport):
            protocol.transport.abort()
        raise
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


async def pump(
    near: Streams,
    far: Streams,
    on_first: Callable[[], None] = lambda: None,
    on_silent_end: Callable[[OSError | None], None] = lambda _error: None,
) -> None:
    """Carry bytes both ways until one side ends.

    `on_first` hears of the first that comes from the far side, `on_silent_end` of an end before that, with its error.
    """
    heard = False
    problem: OSError | None = None

    async def out() -> None:
        while piece := await near[0].read(CHUNK):
            far[1].write(piece)
            await far[1].drain()

    async def back() -> None:
        nonlocal heard, problem
        try:
            while piece := await far[0].read(CHUNK):
                if not heard:
                    heard = True
                    on_first()
                near[1].write(piece)
                await near[1].drain()
        except OSError as error:
            problem = error

    tasks = [asyncio.ensure_future(out()), asyncio.ensure_future(back())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not heard:  # what the far side says at the end tells why
            await asyncio.wait(tasks[1:], timeout=_LAST_WORDS_S)
            if not heard:
                on_silent_end(problem)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def closing(streams: Streams) -> AsyncIterator[Streams]:
    """Close a connection at the end: politely, if the other side answers soon and we are not cancelled ourselves."""
    writer = streams[1]
    try:
        yield streams
    finally:
        writer.close()
        try:
            with contextlib.suppress(OSError):
                await asyncio.wait_for(writer.wait_closed(), _CLOSE_S)
        finally:
            with contextlib.suppress(AttributeError):  # Python 3.11.2: it has lost a part of itself, and is closed
                writer.transport.abort()
