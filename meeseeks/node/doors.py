"""The addresses that a node listens on: plain TCP, or TLS in front of sockets that nobody else can reach."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

from meeseeks.config import NodeConfig
from meeseeks.core.tls_options import check_tls
from meeseeks.errors import InvalidRequest
from meeseeks.wire import sockets
from meeseeks.wire.keys import Keys

if TYPE_CHECKING:
    from meeseeks.wire.tunnels import Terminator, Tunnels

__all__ = ["Doors"]


class Doors:
    """Opens the node's listening sockets as `listen` says. `turned_away` hears of hosts that TLS does not let in."""

    def __init__(self, config: NodeConfig, turned_away: Callable[[str, str], None]) -> None:
        self._host = config.listen.address
        self._turned_away = turned_away
        self._open: dict[str, Terminator] = {}
        self._tunnels: Tunnels | None = None
        if config.listen.ssl is not None:
            options = check_tls(config.listen.ssl, "listen.ssl")
            self._context = import_module("meeseeks.wire.tls").server_context(options)
            self._tunnels = import_module("meeseeks.wire.tunnels").Tunnels()

    def open(self, what: str, socket: sockets.Socket, port: int) -> int:
        """Let a socket listen on a port (0: a free one), and return the port. InvalidRequest if it can't be had.

        With TLS the port is kept when another socket takes the place of the first: `what` says which it is.
        """
        if self._tunnels is None:
            return sockets.bind(socket, self._host, port)
        path = self._tunnels.path()
        sockets.bind_ipc(socket, path)
        if what in self._open:
            self._open[what].path = path
        else:
            self._open[what] = self._tunnels.terminate(self._host, port, path, self._context, self._turned_away)
        return self._open[what].port

    def publisher(self, keys: Keys | None, port: int) -> tuple[sockets.Socket, int]:
        """A PUB that listens, and its port. MeeseeksError if it can't be had."""
        publisher = sockets.publisher(keys)
        try:
            return publisher, self.open("publisher", publisher, port)
        except InvalidRequest:
            sockets.close(publisher)
            raise

    def close(self) -> None:
        """Let nobody in any more."""
        if self._tunnels is not None:
            self._tunnels.close()
