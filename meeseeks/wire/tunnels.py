"""TLS around ZeroMQ, which has none: tunnels for its bytes, in a thread with an asyncio loop. Imported only if used.

    DEALER, SUB ──ipc──▶ Forwarder ══TLS over TCP══▶ Terminator ──ipc──▶ ROUTER, XPUB

The sockets behind a tunnel are on ipc in a folder that only its user may enter, never on TCP. A Forwarder waits longer
after each failure, since ZeroMQ does not; it keeps the last failure, for whoever wonders why there is no connection.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import logging
import os
import shutil
import socket
import ssl
import tempfile
import threading
from asyncio import sslproto
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from meeseeks.errors import InvalidRequest

from .origin import tunnel_name
from .room import connections_max, why_full
from .tls import Failure, failure_of
from .tunnel_streams import CHUNK, Streams, closing, pump, secured

__all__ = ["Forwarder", "Terminator", "Tunnels"]

_log = logging.getLogger(__name__)
T = TypeVar("T")
_numbers = itertools.count(1)
"""Of the connections that have come in: each has a name of its own."""

_HANDSHAKE_S = 5.0
_CONNECT_S = 10.0
_PAUSE_MIN, _PAUSE_MAX = 0.1, 2.0
"""With it a connection must come about within libzmq's HANDSHAKE_IVL, or it is cut as soon as it is there."""
_BACKLOG = 1024
_BUFFER = 16 * 1024
_FILES_EACH = 6
"""Three for a connection: two ends of its tunnel, and what is behind; and there are two listeners."""
_START_S = 10.0


class Tunnels:
    """All tunnels of a node or a Client, with their thread and their folder. Any thread may call its methods."""

    def __init__(self) -> None:
        base = os.environ.get("XDG_RUNTIME_DIR")
        self._folder = Path(
            tempfile.mkdtemp(prefix="meeseeks-tls-", dir=base if base and Path(base).is_dir() else None)
        )
        self._numbers = itertools.count(1)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="meeseeks-tls", daemon=True)
        self._thread.start()

    def path(self) -> Path:
        """A new place for a socket file."""
        return self._folder / str(next(self._numbers))

    def forward(self, host: str, port: int, name: str, context: ssl.SSLContext) -> Forwarder:
        """A tunnel to a listener; `name` is the host name that its certificate must have."""
        forwarder = Forwarder(self.path(), host, port, name, context)
        self._call(forwarder.start())
        return forwarder

    def terminate(
        self, host: str, port: int, path: Path, context: ssl.SSLContext, turned_away: Callable[[str, str], None]
    ) -> Terminator:
        """A tunnel's end on a TCP address, to the socket file `path`. InvalidRequest if the address can't be had."""
        terminator = Terminator(_listener(host, port), path, context, turned_away)
        self._call(terminator.start())
        return terminator

    def close(self) -> None:
        """End all tunnels, and the thread."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_START_S)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        done: concurrent.futures.Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return done.result(_START_S)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            tasks = asyncio.all_tasks(self._loop)
            for task in tasks:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            self._loop.run_until_complete(asyncio.sleep(0))  # transports close a turn after they are told to
            self._loop.close()


class Forwarder:
    """Listens on a socket file, and makes a TLS connection for each connection there."""

    def __init__(self, path: Path, host: str, port: int, name: str, context: ssl.SSLContext) -> None:
        self.path = path
        self.failure: Failure | None = None
        """Why the last connection failed; None once one works."""
        self._to = (host, port)
        self._name = name
        self._context = context
        self._pause = 0.0
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen."""
        listener = socket.socket(socket.AF_UNIX)
        try:
            listener.setblocking(False)
            listener.bind(str(self.path))
            listener.listen(_BACKLOG)
        except OSError:
            listener.close()
            raise
        _keep(self._tasks, _accept(listener, self._serve))
        await asyncio.sleep(0)  # from then on it belongs to that task, which closes it

    async def _serve(self, inner: socket.socket) -> None:
        with inner:
            try:
                await asyncio.sleep(self._pause)
                async with asyncio.timeout(_CONNECT_S):
                    far = await self._connect()
            except OSError as error:
                self._failed(failure_of(error))
                return
            async with closing(far), closing(await asyncio.open_unix_connection(sock=inner, limit=CHUNK)) as near:
                await pump(near, far, self._on_first, self._on_silent_end)

    async def _connect(self) -> Streams:
        connect = asyncio.get_running_loop().create_connection
        return await secured(
            partial(
                connect,
                host=self._to[0],
                port=self._to[1],
                ssl=self._context,
                server_hostname=self._name,
                ssl_handshake_timeout=_HANDSHAKE_S,
            )
        )

    def _on_silent_end(self, error: OSError | None) -> None:
        # With TLS 1.3 our certificate is judged only after our side of the handshake is over.
        refusal = "it closed the connection at once: does it accept our certificate? its log says why it does not"
        self._failed(failure_of(error) if isinstance(error, ssl.SSLError) else Failure(reached=True, why=refusal))

    def _on_first(self) -> None:
        self.failure, self._pause = None, 0.0

    def _failed(self, failure: Failure) -> None:
        self.failure = failure
        self._pause = min(_PAUSE_MAX, max(_PAUSE_MIN, 2 * self._pause))


class Terminator:
    """Listens on TCP, and connects who shows a certificate that is accepted to the socket file of a ROUTER or XPUB."""

    def __init__(
        self,
        listener: socket.socket,
        path: Path,
        context: ssl.SSLContext,
        turned_away: Callable[[str, str], None],
    ) -> None:
        self.port: int = listener.getsockname()[1]
        self.path = path
        """Where connections go: it may be changed, and is used from the next connection on."""
        self._listener = listener
        self._context = context
        self._turned_away = turned_away
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Take connections."""
        # asyncio makes a buffer of this size for each connection before a byte has come: 256 KiB, as it is.
        sslproto.SSLProtocol.max_size = _BUFFER
        _keep(self._tasks, _accept(self._listener, self._serve, self._has_room))
        await asyncio.sleep(0)  # as above

    def _has_room(self, open_now: int) -> bool:
        if open_now < connections_max() // _FILES_EACH:
            return True
        self._turned_away("", why_full())
        return False

    async def _serve(self, outer: socket.socket) -> None:
        host = ""
        with outer:
            try:
                host = str(outer.getpeername()[0])
                if not await _says_something(outer):
                    return  # it only looked whether somebody is here, as `mks` does
                far = await self._secure(outer)
            except OSError as error:
                # One who does not accept our certificate just leaves.
                left = "it left; does it accept our certificate?"
                why = left if isinstance(error, ConnectionError) else failure_of(error).why
                self._turned_away(host, f"TLS with it did not come about: {why}")
                return
            async with closing(far):
                try:
                    near = await self._connect_inner(host)
                except OSError as error:
                    _log.error("the socket behind TLS is gone: %s", error)
                    return
                async with closing(near):
                    await pump(near, far, on_silent_end=partial(self._on_silent_end, host))

    def _on_silent_end(self, host: str, error: OSError | None) -> None:
        # With TLS 1.3 our certificate is judged only after our side of the handshake is over.
        why = failure_of(error).why if isinstance(error, ssl.SSLError) else "does it accept our certificate?"
        self._turned_away(host, f"it ended the connection before it said anything: {why}")

    async def _secure(self, outer: socket.socket) -> Streams:
        outer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        outer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        accept = asyncio.get_running_loop().connect_accepted_socket
        return await secured(partial(accept, sock=outer, ssl=self._context, ssl_handshake_timeout=_HANDSHAKE_S))

    async def _connect_inner(self, host: str) -> Streams:
        """Our end has a name that says from where the connection comes: `transfer.receive_request` reads it."""
        inner = socket.socket(socket.AF_UNIX)
        try:
            inner.setblocking(False)
            inner.bind(tunnel_name(next(_numbers), host))
            await asyncio.get_running_loop().sock_connect(inner, str(self.path))
            return await asyncio.open_unix_connection(sock=inner, limit=CHUNK)
        except BaseException:
            inner.close()
            raise


async def _says_something(connection: socket.socket) -> bool:
    """Whether anything comes before the end. TimeoutError if neither does."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(connection, readable.set)
    try:
        await asyncio.wait_for(readable.wait(), _HANDSHAKE_S)
    finally:
        loop.remove_reader(connection)
    try:
        return connection.recv(1, socket.MSG_PEEK) != b""
    except ConnectionError:
        return False


def _listener(host: str, port: int) -> socket.socket:
    try:
        where = "0.0.0.0" if host == "*" else host.strip("[]")  # noqa: S104 - as it was asked for
        found = socket.getaddrinfo(where, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, proto, _, at = found[0]
        listener = socket.socket(family, kind, proto)
    except OSError as error:
        raise InvalidRequest(f"can't listen on {host}:{port}: {error.strerror or error}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setblocking(False)
        listener.bind(at)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise InvalidRequest(f"can't listen on {host}:{port}: {error.strerror or error}") from error
    return listener


def _keep(tasks: set[asyncio.Task[None]], work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Run it; the loop itself would forget a task that nobody holds."""
    task = asyncio.get_running_loop().create_task(work)
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    return task


def _end(connection: socket.socket, _task: asyncio.Task[None]) -> None:
    connection.close()


async def _accept(
    listener: socket.socket,
    serve: Callable[[socket.socket], Coroutine[Any, Any, None]],
    has_room: Callable[[int], bool] = lambda _open_now: True,
) -> None:
    """Serve each connection in a task of its own, until this one is cancelled. Without room it is closed at once."""
    loop, tasks = asyncio.get_running_loop(), set[asyncio.Task[None]]()

    def take() -> None:
        # Not `sock_accept`: cancelled at the wrong moment it would lose a connection that it has taken.
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            return
        except OSError as error:
            _log.warning("a connection could not be taken: %s", error.strerror)
            loop.remove_reader(listener)
            loop.call_later(_PAUSE_MIN, loop.add_reader, listener, take)
            return
        if not has_room(len(tasks)):
            connection.close()
            return
        connection.setblocking(False)
        # Also where it is cancelled before it began, and so never had the connection in its hands.
        _keep(tasks, serve(connection)).add_done_callback(partial(_end, connection))

    with listener:
        loop.add_reader(listener, take)
        try:
            await loop.create_future()
        finally:
            loop.remove_reader(listener)
