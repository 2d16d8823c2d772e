"""Who may do what at this node: the keys that it lets in, the role that each request needs, and who was turned away.

It belongs to the node's loop. A connection is let in by its key once; what the key may do is looked up for each
message, so a key that was taken off the list may do nothing more on the connections that it has.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from meeseeks.config import NodeConfig
from meeseeks.config.check import is_loopback
from meeseeks.core.names import identity_of
from meeseeks.core.placement import CONFIG_POOL
from meeseeks.core.table import Table
from meeseeks.errors import AuthenticationFailed, ConfigError, InvalidRequest
from meeseeks.wire import sockets
from meeseeks.wire.curve import Keyring, Zap, default_key_path, is_key, load_key, make_mesh_key
from meeseeks.wire.keys import Keys, Role
from meeseeks.wire.messages import MAX_MESSAGE_BYTES, Hello
from meeseeks.wire.origin import host_of
from meeseeks.wire.room import connections_max, hang_up, why_full

from .identity import mark_of
from .rarely import Rarely

__all__ = ["REQUIRED", "Access", "mesh_keys"]

log = logging.getLogger(__name__)

REQUIRED: dict[str, Role] = {
    "query": Role.READ,
    "ls": Role.READ,
    "nodes": Role.READ,
    "pools": Role.READ,
    "output": Role.READ,
    "follow": Role.READ,
    "sync": Role.READ,  # the cache of a Client lives on it
    "submit": Role.SUBMIT,
    "submit_many": Role.SUBMIT,
    "kill": Role.SUBMIT,
    "input": Role.SUBMIT,
    "config": Role.ADMIN,
    "adopt": Role.ADMIN,
    "forget": Role.ADMIN,
    "hello": Role.NODE,
}
"""The role that each request needs at least; one that is not named here needs ADMIN."""

_LOOK_EVERY = 1.0
_NOT_ANY_MORE = "the key of this client is not authorized any more"
_READER_MAX = 512 * 1024
_WORDS = {Role.READ: "read", Role.SUBMIT: "submit", Role.ADMIN: "admin", Role.NODE: "the mesh key itself"}


def mesh_keys(config: NodeConfig) -> tuple[Keys, Path] | None:
    """The mesh key and its file, made now if it is the user's own and not there yet; None where there is no security.

    ConfigError if a file that was named is not there, or is none of a node.
    """
    security = config.security
    if security.mode == "none":
        return None
    path = Path(security.key) if security.key else default_key_path()
    keys = load_key(path) if security.key else make_mesh_key(path)
    if keys is None:
        raise ConfigError(
            f"security.key {path} is not there: copy the mesh's key, or make one with 'mks keygen {path}'"
        )
    if not keys.is_mesh_key:
        raise ConfigError(f"{path} is the key of a user: a node needs the mesh's own key")
    return keys, path


class Access:
    """The guard of a node's sockets. Without keys (`security.mode` none) it lets everybody do everything."""

    def __init__(self, config: NodeConfig) -> None:
        found = mesh_keys(config)
        self.keys: Keys | None = None
        self.sockets: list[sockets.Socket] = []
        """What the loop waits for on behalf of this."""
        self._rarely = Rarely(log)  # of each host: it may try again many times a second
        self._look_at = 0.0
        # One that speaks another language is gone again so fast that its address can often not be read any more.
        self._somebody = "a process of this machine" if is_loopback(config.listen.address) else "somebody"
        self._monitors: dict[sockets.Socket, sockets.Socket] = {}  # of each listening socket
        self._hosts: dict[tuple[sockets.Socket, int], str] = {}
        # Of a monitor: why somebody is turned away. Who he is, the end of his connection tells, which follows.
        self._reasons: dict[sockets.Socket, str] = {}
        self._unknown: str | None = None  # the key of who was turned away last by way of TLS
        if found is None:
            return
        self.keys, path = found
        folder = Path(config.security.authorized) if config.security.authorized else path.parent / "authorized"
        self._keyring = Keyring(self.keys, folder, log.warning)
        self._zap = Zap(self._keyring, self._on_unknown_key)
        self.sockets.append(self._zap.socket)

    def watch(self, listener: sockets.Socket, poller: sockets.Poller) -> None:
        """Say in the log who is turned away from a listening socket."""
        monitor = self._monitors[listener] = sockets.listener_monitor(listener)
        poller.register(monitor, sockets.POLLIN)

    def unwatch(self, listener: sockets.Socket, poller: sockets.Poller) -> None:
        """No more of it: it has been closed."""
        monitor = self._monitors.pop(listener)
        self._reasons.pop(monitor, None)
        poller.unregister(monitor)
        sockets.close(monitor)
        self._hosts = {at: host for at, host in self._hosts.items() if at[0] is not monitor}

    def receive(self, ready: dict[Any, int]) -> None:
        """Let in who may, and take in who was turned away."""
        if self.keys is not None and self._zap.socket in ready:
            self._zap.receive()
        for monitor in self._monitors.values():
            if monitor in ready:
                self._read_monitor(monitor)

    def tick(self, now: float) -> bool:
        """Look from time to time whether the list has changed; whether a key was taken off it."""
        if self.keys is None or now < self._look_at:
            return False
        self._look_at = now + _LOOK_EVERY
        self._keyring.refresh()
        return bool(self._keyring.take_shut_out())

    def check(self, kind: str, data: Any, user: str, table: Table) -> None:
        """AuthenticationFailed if the key that a request came with may not ask for this."""
        if self.keys is None:
            return
        role, needed = self._keyring.role_of(user), REQUIRED.get(kind, Role.ADMIN)
        if role is None:
            raise AuthenticationFailed(_NOT_ANY_MORE)
        what = repr(kind)
        if kind in ("submit", "submit_many") and role < Role.ADMIN and _touches_config(data, table):
            needed, what = Role.ADMIN, f"{kind!r} of jobs for pool {CONFIG_POOL!r}"
        if role < needed:
            raise AuthenticationFailed(
                f"the key of this client has the role {_WORDS[role]!r}, and {what} needs {_WORDS[needed]!r}"
            )

    def check_known(self, user: str) -> None:
        """AuthenticationFailed if the key of that user has been taken off the list."""
        if self.keys is not None and self._keyring.role_of(user) is None:
            raise AuthenticationFailed(_NOT_ANY_MORE)

    def bytes_max(self, user: str) -> int:
        """How large a request may be by this key. One who may only read could else fill the memory: a byte can stand
        for an object of a hundred. Who may submit runs what he likes on the machine anyway.
        """
        role = Role.NODE if self.keys is None else self._keyring.role_of(user)
        return MAX_MESSAGE_BYTES if role is not None and role > Role.READ else _READER_MAX

    def proves(self, hello: Hello, user: str) -> bool:
        """Whether a hello came by the key of the identity that it names. If not, that key is let in from now on.

        Without keys there is no proof. InvalidRequest if its incarnation is not one of that identity.
        """
        if self.keys is None and not hello.identity:
            return True
        if not is_key(hello.identity) or identity_of(hello.incarnation) != mark_of(hello.identity):
            raise InvalidRequest("hello: identity must be a public key, and incarnation begin with its mark")
        if self.keys is None or user == hello.identity:
            return True
        self._keyring.introduce(hello.identity)
        return False

    def close(self) -> None:
        """Close what is its own; the sockets that it watches are closed before."""
        for monitor in self._monitors.values():
            sockets.close(monitor)
        if self.keys is not None:
            self._zap.close()

    # --- who was turned away

    def on_turned_away(self, host: str, why: str) -> None:
        """TLS came to nothing (then it is called by its thread), or a node said hello by another one's name."""
        self._rarely.say(host, f"turned away {host or self._somebody}: {why}")

    def _on_unknown_key(self, host: str, public: str) -> None:
        if host.startswith("localhost:"):  # so libzmq says where TLS is in front: the monitor tells whose it was
            self._unknown = public
            return
        self._rarely.say(
            host, f"turned away {host or self._somebody}: its key ({public or 'none'}) is not authorized here"
        )

    def _read_monitor(self, monitor: sockets.Socket) -> None:
        while (event := sockets.listener_event(monitor)) is not None:
            if event.word == "accepted":
                self._hosts[monitor, event.fd] = host = host_of(event.fd)
                if len(self._hosts) > connections_max():
                    self._rarely.say("full", f"turned away {host or self._somebody}: {why_full()}")
                    hang_up(event.fd)
                    del self._hosts[monitor, event.fd]
            elif event.word == "refused":
                self._reasons[monitor] = self._why()
            elif event.word == "unauthorized" and self._unknown is not None:
                self._reasons[monitor] = f"its key ({self._unknown or 'none'}) is not authorized here"
                self._unknown = None
            elif event.word == "disconnected":
                host = self._hosts.pop((monitor, event.fd), "")
                if (why := self._reasons.pop(monitor, None)) is not None:
                    self._rarely.say(host, f"turned away {host or self._somebody}: {why}")

    def _why(self) -> str:
        if self.keys is None:
            return "it encrypts, or is no client of ours, and security.mode is none here"
        return "it has another mesh's key, does not encrypt, or is no client of ours"


def _touches_config(data: Any, table: Table) -> bool:
    """Whether a submit makes or changes a job that is configuration for a node."""
    for spec in data if isinstance(data, list) else [data]:
        if not isinstance(spec, dict):
            continue  # refused later, as no jobspec
        jid = spec.get("id")
        known = [table.get(one) for one in [jid, *table.group(jid)]] if isinstance(jid, str) else []
        if spec.get("pool") == CONFIG_POOL or any(r is not None and r.spec.pool == CONFIG_POOL for r in known):
            return True
    return False
