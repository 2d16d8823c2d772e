"""The line between a node and its executor: whole frames over a Unix socket, in order, none lost while both live.

ZeroMQ would do the same with two threads of its own on the way, which cost more than all else that a short job needs
of this line. A frame is its length in four bytes, and its bytes. Nothing in here waits, but `close` for what is unsent.
"""

from __future__ import annotations

import select
import socket
import struct
from contextlib import suppress
from pathlib import Path

from meeseeks.errors import InvalidRequest

from .messages import MAX_MESSAGE_BYTES

__all__ = ["Dialer", "Line", "Listener"]

_PATH_MAX = 107  # sun_path of Linux, less its final zero byte
_LENGTH = struct.Struct("<I")
_READ = 256 * 1024
_TURN_BYTES = 16 * 1024 * 1024
"""Read in one call: so that a task that writes much does not keep the others waiting."""
_BUFFER = 1024 * 1024
"""Wanted of the kernel for what is on its way. It grants what `net.core.wmem_max` allows."""


class Line:
    """One end. `fileno` is readable when `receive` has something to do."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._connection: socket.socket | None = None
        self._in = bytearray()
        self._out = b""
        """The rest of a frame that was sent in part."""
        self.closed = False

    def fileno(self) -> int:
        """For a poller."""
        return self._epoll.fileno()

    @property
    def is_connected(self) -> bool:
        """Whether there is somebody at the other end, as far as `receive` knows."""
        return self._connection is not None

    def send(self, frame: bytes) -> bool:
        """Send a frame, or False where it would have to wait or nobody is there: nothing of it has been sent then."""
        if self._connection is None or not self._flush():
            return False
        try:
            sent = self._connection.sendmsg([_LENGTH.pack(len(frame)), frame])
        except OSError:  # there is no room; or nobody any more, as `receive` will find out after the last words
            self._watch(select.EPOLLIN | select.EPOLLOUT)
            return False
        if sent < _LENGTH.size + len(frame):
            self._out = (_LENGTH.pack(len(frame)) + frame)[sent:]
            self._watch(select.EPOLLIN | select.EPOLLOUT)
        return True

    def receive(self) -> list[bytes]:
        """The frames that have come."""
        frames: list[bytes] = []
        for fd, events in self._epoll.poll(0):
            connection = self._connection
            if connection is None or fd != connection.fileno():
                newcomer = self._on_other()
                if newcomer is not None:
                    self._read(newcomer, frames)  # it may have said all that it will ever say
            elif events & ~select.EPOLLOUT:
                self._read(connection, frames)
            elif self._flush():
                self._watch(select.EPOLLIN)
        return frames

    def hang_up(self) -> None:
        """Forget the connection, and what is on its way."""
        if self._connection is not None:
            self._connection.close()  # which takes it out of the epoll as well
            self._connection = None
        self._in.clear()
        self._out = b""

    def close(self, linger_s: float = 0.0) -> None:
        """Close it; what is unsent has so long left. What was sent arrives all the same."""
        if self._connection is not None and self._out:
            self._connection.settimeout(linger_s)
            with suppress(OSError):
                self._connection.sendall(self._out)
        self.hang_up()
        self._epoll.close()
        self.closed = True

    # --- inside

    def _on_other(self) -> socket.socket | None:
        """Something that is not the connection is readable. Returns the connection that came of it."""
        return None

    def _connected(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
        self._connection = connection
        self._epoll.register(connection, select.EPOLLIN)

    def _watch(self, events: int) -> None:
        if self._connection is not None:
            self._epoll.modify(self._connection, events)

    def _flush(self) -> bool:
        """Send the rest of what was sent in part; False if some of it is left."""
        if not self._out or self._connection is None:
            return True
        try:
            sent = self._connection.send(self._out)
        except OSError:
            return False
        self._out = self._out[sent:]
        return not self._out

    def _read(self, connection: socket.socket, frames: list[bytes]) -> None:
        read = 0
        while read < _TURN_BYTES:
            try:
                data = connection.recv(_READ)
            except BlockingIOError:
                break
            except OSError:  # it has died with words of ours unread
                data = b""
            if not data:
                self._split(frames)
                self.hang_up()
                return
            self._in += data
            read += len(data)
            if len(data) < _READ:
                break
        self._split(frames)

    def _split(self, frames: list[bytes]) -> None:
        """Take whole frames out of what was read."""
        data, at = self._in, 0
        while len(data) - at >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(data, at)
            if length > MAX_MESSAGE_BYTES:
                self.hang_up()  # that is no end of ours
                return
            end = at + _LENGTH.size + length
            if end > len(data):
                break
            frames.append(bytes(data[at + _LENGTH.size : end]))
            at = end
        del data[:at]


class Listener(Line):
    """The node's end: a socket file in a folder that only its user may enter. One executor at a time is let in."""

    def __init__(self, path: Path) -> None:
        """InvalidRequest where the path can't be had."""
        super().__init__()
        if len(str(path).encode()) > _PATH_MAX:
            raise InvalidRequest(f"{path} is too long for a socket file ({_PATH_MAX} bytes at most)")
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        try:
            self._listener.bind(str(path))
        except OSError as error:
            self._listener.close()
            raise InvalidRequest(f"can't listen on {path}: {error.strerror}") from error
        self._listener.listen()
        self._listener.setblocking(False)
        self._epoll.register(self._listener, select.EPOLLIN)

    def close(self, linger_s: float = 0.0) -> None:
        """As above; the socket file stays."""
        self._listener.close()
        super().close(linger_s)

    def _on_other(self) -> socket.socket | None:
        try:
            connection, _ = self._listener.accept()
        except OSError:  # it has thought better of it
            return None
        if self._connection is not None:
            connection.close()
            return None
        self._connected(connection)
        return connection


class Dialer(Line):
    """The executor's end."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = str(path)

    def dial(self) -> bool:
        """Connect, if a node listens there now."""
        connection = socket.socket(socket.AF_UNIX)
        connection.setblocking(False)
        try:
            connection.connect(self._path)
        except OSError:
            connection.close()
            return False
        self._connected(connection)
        return True
