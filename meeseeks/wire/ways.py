"""How a connection gets to a node: straight, or through TLS, whose code is imported only where it is used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from meeseeks.errors import RequestFailed

from . import sockets

if TYPE_CHECKING:
    from meeseeks.core.tls_options import TlsOptions

    from .tls import Failure
    from .tunnels import Forwarder, Tunnels

__all__ = ["Way"]


class Way:
    """To any number of addresses, all with the same options; without options it is plain TCP.

    InvalidRequest if a file of the options can't be used. The thread of TLS runs from the first use to `close`.
    """

    def __init__(self, options: TlsOptions | None) -> None:
        self._context = None if options is None else import_module("meeseeks.wire.tls").client_context(options)
        self._tunnels: Tunnels | None = None
        self._forwarders: dict[tuple[str, int, str], Forwarder] = {}

    @property
    def takes_names(self) -> bool:
        """Whether it may be asked for the endpoint of a name: TLS looks that up itself, and holds nobody up."""
        return self._context is not None

    def endpoint(self, host: str, port: int, name: str) -> str:
        """What a socket connects to in order to reach a host; `name` is what its certificate must be for."""
        if self._context is None:
            return sockets.endpoint(host, port)
        at = (host, port, name)
        if at not in self._forwarders:
            try:
                if self._tunnels is None:
                    self._tunnels = import_module("meeseeks.wire.tunnels").Tunnels()
                assert self._tunnels is not None
                self._forwarders[at] = self._tunnels.forward(host, port, name, self._context)
            except OSError as error:  # no folder or no file for it
                raise RequestFailed(f"no TLS tunnel can be made: {error}") from error
        return f"ipc://{self._forwarders[at].path}"

    def failure(self, host: str, port: int, name: str) -> Failure | None:
        """Why the last connection to a host failed, where TLS knows; None where it works, or has not been tried."""
        forwarder = self._forwarders.get((host, port, name))
        return forwarder.failure if forwarder is not None else None

    def close(self) -> None:
        """End the tunnels. Close the sockets that use them before."""
        if self._tunnels is not None:
            self._tunnels.close()
        self._tunnels = None
        self._forwarders.clear()
