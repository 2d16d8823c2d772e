"""The links between nodes, as TCP proxies: each node reaches each other one at an address that only those two use.

Node i finds node j at `host(i, j)`, on the ports of j. What it sends there comes out at j with `host(j, i)` as its
source, so that 'where you see me' is again an address of the proxy, and all that two nodes say to each other passes
through here, whoever connected. No node needs to know of it, and encryption goes through as it is.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple, Self

__all__ = ["Ports", "Proxy", "host"]

_CHUNK_BYTES = 64 * 1024
_CHUNKS_ON_THE_WAY = 64
_START_S = 10.0
_LAST_WORDS_S = 1.0
_TURNS_TO_ACCEPT = 3
"""A task of asyncio's own makes a transport of what was accepted; if that is cancelled, or its server is closed before,
the socket stays open."""


class Ports(NamedTuple):
    """Where a node listens, on 127.0.0.1."""

    router: int
    publisher: int


def host(source: int, target: int) -> str:
    """The address at which node number `source` finds node number `target`."""
    return f"127.1.{source + 1}.{target + 1}"


class _Way:
    """One direction of a link. Mute: bytes stay where they are, and come out when it is no longer mute."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()
        self.opened.set()
        self.delay_s = 0.0
        self.bytes_per_s = math.inf


class Proxy:
    """All links of a mesh, in a thread of its own; the other methods may be called from any thread."""

    def __init__(self, ports: Sequence[Ports]) -> None:
        self._ports = ports
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="chaos-proxy")
        self._started = threading.Event()
        self._error: OSError | None = None
        self._ways: Mapping[tuple[int, int], _Way] = {pair: _Way() for pair in self._pairs()}
        self._severed: set[frozenset[int]] = set()
        self._connections: dict[frozenset[int], set[asyncio.StreamWriter]] = {}
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(_START_S), "the proxy does not start"
        if self._error is not None:
            self._thread.join()
            raise self._error
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def ends(self) -> list[asyncio.StreamWriter]:
        """All ends of connections that are open now."""
        return list(self._open)

    # --- faults

    def sever(self, a: int, b: int) -> None:
        """Break all connections of a link, and refuse new ones."""
        self._do(lambda: self._sever(frozenset((a, b))))

    def mute(self, source: int, target: int) -> None:
        """From now on nothing that `source` says reaches `target`; the connections stay."""
        self._do(self._ways[source, target].opened.clear)

    def delay(self, a: int, b: int, seconds: float) -> None:
        """Everything takes so much longer, in both directions."""
        for way in (self._ways[a, b], self._ways[b, a]):
            self._do(partial(setattr, way, "delay_s", seconds))

    def slow(self, source: int, target: int, bytes_per_s: float) -> None:
        """What `source` says reaches `target` at this rate only."""
        self._do(partial(setattr, self._ways[source, target], "bytes_per_s", bytes_per_s))

    def heal(self, a: int, b: int) -> None:
        """Nothing is wrong with this link any more."""
        self._do(lambda: self._severed.discard(frozenset((a, b))))
        for way in (self._ways[a, b], self._ways[b, a]):
            self._do(way.opened.set)
        self.delay(a, b, 0.0)

    def _do(self, action: Callable[[], object]) -> None:
        self._loop.call_soon_threadsafe(action)

    def _sever(self, link: frozenset[int]) -> None:
        self._severed.add(link)
        for writer in self._connections.get(link, ()):
            writer.transport.abort()

    # --- the thread

    def _pairs(self) -> Iterator[tuple[int, int]]:
        for source in range(len(self._ports)):
            for target in range(len(self._ports)):
                if source != target:
                    yield source, target

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        servers: list[asyncio.Server] = []
        try:
            self._loop.run_until_complete(self._listen(servers))
        except OSError as error:
            self._error = error
        finally:
            self._started.set()
        if self._error is None:
            self._loop.run_forever()
        for server in servers:
            for listener in server.sockets:
                self._loop.remove_reader(listener.fileno())
        for _ in range(_TURNS_TO_ACCEPT):
            self._loop.run_until_complete(asyncio.sleep(0))
        for server in servers:
            server.close()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        for end in self._open:
            end.transport.abort()
        self._loop.run_until_complete(asyncio.sleep(0))  # transports close a turn after they are told to
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    async def _listen(self, servers: list[asyncio.Server]) -> None:
        """Adds to `servers` one by one: those before the one that can't be had are to be closed as well."""
        for source, target in self._pairs():
            for port in self._ports[target]:

                def serve(
                    reader: asyncio.StreamReader,
                    writer: asyncio.StreamWriter,
                    pair: tuple[int, int] = (source, target),
                    port: int = port,
                ) -> None:
                    # No coroutine: one that is cancelled before it has begun would never close its connection.
                    self._open.add(writer)
                    task = self._loop.create_task(self._serve(pair, port, reader, writer))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)

                servers.append(await asyncio.start_server(serve, host(source, target), port))

    async def _serve(
        self, pair: tuple[int, int], port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        source, target = pair
        link = frozenset(pair)
        ends = [writer]
        try:
            if link in self._severed:
                return
            there = await asyncio.open_connection("127.0.0.1", port, local_addr=(host(target, source), 0))
            ends.append(there[1])
            self._open.add(there[1])
            if link in self._severed:
                return
            self._connections.setdefault(link, set()).update(ends)
            ways = self._ways[source, target], self._ways[target, source]
            flows = [
                asyncio.create_task(flow)
                for flow in (_flow(reader, there[1], ways[0]), _flow(there[0], writer, ways[1]))
            ]
            try:
                await asyncio.wait(flows, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for flow in flows:
                    flow.cancel()
                await asyncio.gather(*flows, return_exceptions=True)
        except OSError:
            return  # nobody listens there: the other end sees its connection break
        finally:
            for end in ends:
                await _close(end)
                self._open.discard(end)
                self._connections.get(link, set()).discard(end)


async def _close(writer: asyncio.StreamWriter) -> None:
    """What was passed on already still arrives, if the other end takes it."""
    try:
        writer.close()
        await asyncio.wait_for(writer.wait_closed(), _LAST_WORDS_S)
    except (OSError, TimeoutError):
        writer.transport.abort()


async def _flow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: _Way) -> None:
    """Pass on what comes, in its order, as late as the way has it, until the end, which is passed on like the rest."""
    chunks: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_CHUNKS_ON_THE_WAY)
    loop = asyncio.get_running_loop()

    async def take_in() -> None:
        data = b"-"
        while data:
            try:
                data = await reader.read(_CHUNK_BYTES)
            except OSError:
                data = b""
            await chunks.put((loop.time() + way.delay_s, data))

    source = asyncio.create_task(take_in())
    try:
        while True:
            due, data = await chunks.get()
            await asyncio.sleep(max(0.0, due - loop.time(), len(data) / way.bytes_per_s))
            await way.opened.wait()
            if not data:
                return
            writer.write(data)
            await writer.drain()
    finally:
        source.cancel()
        await asyncio.gather(source, return_exceptions=True)
