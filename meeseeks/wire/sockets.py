"""Every ZeroMQ socket of meeseeks is made here, with its options and the reason for each. zmq is imported here and in
`transfer` only.

One thread owns a socket (pyzmq: contexts are thread-safe, sockets are not); one context a process. No `zmq` exception
leaves these two but as an error of ours.
"""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path
from typing import NamedTuple

import zmq

from meeseeks.errors import InvalidRequest, RequestFailed

from .keys import Keys
from .messages import MAX_FRAME_BYTES
from .origin import ip_version
from .transfer import Socket, receive_nowait

__all__ = [
    "POLLIN",
    "ConnectionEvent",
    "Poller",
    "Socket",
    "bind",
    "bind_ipc",
    "close",
    "context",
    "endpoint",
    "listener_event",
    "listener_monitor",
    "monitor",
    "monitor_event",
    "new_keys",
    "pair",
    "public_of",
    "publisher",
    "router",
    "subscribe",
    "subscriber",
    "terminate",
    "unsubscribe",
    "watched_dealer",
    "watched_subscriber",
    "zap_listener",
]

Poller = zmq.Poller
POLLIN: int = zmq.POLLIN

_IPC_PATH_MAX = 107  # sun_path of Linux, less its final zero byte
HIGH_WATER_MARK = 100_000
"""Messages queued for one peer before they are dropped. Drops are noticed by seq, and repaired by a sync."""
_PUBLISHED_MAX = 10_000  # the same for one subscriber of broadcasts: one that never reads costs no more than these
_REQUESTS_MAX = 64  # of one connection that a node has not read yet: its senders wait, and not in the node's memory
_TOPIC_MAX = 1024  # what a subscriber may send: a handshake, and short topics
_TOPICS_UNREAD = 16  # subscriptions of one connection: libzmq takes in as many as there are before we see the first
_TOPICS_BYTES = 4096  # on their way from one connection: while more come, libzmq takes them in, and we see none
_CURVE_BYTES = 64  # what encryption adds to a frame is less than these
_MAX_SOCKETS = 16_384
ZAP_DOMAIN = b"meeseeks"
_ZAP_ENDPOINT = "inproc://zeromq.zap.01"  # where libzmq asks whom to let in: RFC 27
_STOP_AFTER_REFUSAL = 0x2  # ZMQ_RECONNECT_STOP_HANDSHAKE_FAILED


class ConnectionEvent(NamedTuple):
    """What happened at a listening socket: accepted, disconnected, refused, or unauthorized (its key is not known).

    `fd` is 0 for the last two: whose connection it was is told by the event that follows.
    """

    word: str
    fd: int


def new_keys() -> Keys:
    """A new mesh key."""
    public, secret = zmq.curve_keypair()
    return Keys(public, secret, public)


def public_of(secret: bytes) -> bytes:
    """The public key that belongs to a secret one (Z85, 40 bytes); ValueError if it is none."""
    try:
        return zmq.curve_public(secret)
    except (zmq.ZMQError, ValueError) as error:
        raise ValueError("not a secret key in Z85") from error


def context() -> zmq.Context[Socket]:
    """The one context of this process. Its sockets die with the process: nothing waits for unsent messages."""
    found: zmq.Context[Socket] = zmq.Context.instance()
    if found.get(zmq.MAX_SOCKETS) < _MAX_SOCKETS:
        found.set(zmq.MAX_SOCKETS, _MAX_SOCKETS)  # the default would be gone with some 250 peers
    return found


def terminate(linger_ms: int) -> None:
    """Close what is left, and wait until what was sent has left too, for so long at most."""
    context().destroy(linger=linger_ms)


def endpoint(host: str, port: int) -> str:
    """The TCP endpoint of a host and port, with the brackets that an IPv6 literal needs."""
    if ":" in host and not host.startswith("["):
        host = f"[{host}]"
    return f"tcp://{host}:{port}"


def bind(socket: Socket, host: str, port: int) -> int:
    """Bind to host and port (0: a free one) and return the port. InvalidRequest says why it can't be had."""
    socket.setsockopt(zmq.BACKLOG, 1024)  # a hundred, the default, wait a second and more where many come at once
    socket.setsockopt(zmq.IPV6, int(":" in host))
    # ZeroMQ wants an address or an interface here: a name that is not in /etc/hosts would be looked up as IPv6 only.
    try:
        socket.bind(endpoint("127.0.0.1" if host == "localhost" else host, port))
    except zmq.ZMQError as error:
        why = (error.strerror or str(error)).partition(" (addr=")[0]
        hint = "; is a node there already? choose another port" if error.errno == zmq.EADDRINUSE else ""
        raise InvalidRequest(f"can't listen on {host}:{port}: {why}{hint}") from error
    bound = socket.getsockopt(zmq.LAST_ENDPOINT)
    assert isinstance(bound, bytes)
    return int(bound.rstrip(b"\0").rsplit(b":", 1)[1])


def bind_ipc(socket: Socket, path: Path) -> None:
    """Bind to a socket file, which must be in a folder that only its user may enter."""
    try:
        socket.bind(f"ipc://{path}")
    except zmq.ZMQError as error:
        raise InvalidRequest(f"can't listen on {path}: {error.strerror or error}") from error


def router(keys: Keys | None = None) -> Socket:
    """The request socket of a node. Without keys anybody may connect."""
    socket = _socket(zmq.ROUTER)
    _guard(socket, keys)
    socket.setsockopt(zmq.RCVHWM, _REQUESTS_MAX)
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)  # else a reply to somebody who left vanishes without a trace
    # Not ROUTER_HANDOVER: one who knows another's routing id would take his place; and when several come by one routing
    # id and leave, libzmq 4.3.5 ends the process. Ours choose none: libzmq gives each connection one of its own.
    return socket


def publisher(keys: Keys | None = None) -> Socket:
    """The broadcast socket of a node: XPUB, since it tells when a subscription arrives."""
    socket = _socket(zmq.XPUB)
    _guard(socket, keys)
    socket.setsockopt(zmq.SNDHWM, _PUBLISHED_MAX)
    socket.setsockopt(zmq.RCVHWM, _TOPICS_UNREAD)
    socket.setsockopt(zmq.RCVBUF, _TOPICS_BYTES)
    socket.setsockopt(zmq.MAXMSGSIZE, _TOPIC_MAX)
    # Every subscriber is answered with a heartbeat at once, so it sees at once whether it missed something.
    socket.setsockopt(zmq.XPUB_VERBOSE, 1)
    return socket


def subscriber(to: str, keys: Keys | None) -> Socket:
    """A SUB that is connected to an endpoint and has no topic yet."""
    socket = _socket(zmq.SUB)
    _show(socket, keys)
    _connect(socket, to)
    return socket


def watched_subscriber(to: str | None, keys: Keys | None) -> tuple[Socket, Socket]:
    """The same with its monitor. After a refused handshake it does not try again: make a new one then.

    None: it is not known yet to where, and nothing is connected.
    """
    return _watched(_socket(zmq.SUB), to, keys)


def subscribe(socket: Socket, topic: str) -> None:
    """Add a topic to a SUB. Topics are followed by a frame border, so `own` is no prefix of another."""
    socket.setsockopt(zmq.SUBSCRIBE, topic.encode())


def unsubscribe(socket: Socket, topic: str) -> None:
    """Take a topic from a SUB."""
    socket.setsockopt(zmq.UNSUBSCRIBE, topic.encode())


def watched_dealer(to: str | None, keys: Keys | None, *, once: bool = False) -> tuple[Socket, Socket]:
    """A DEALER that is connected to a ROUTER, and its monitor. As above it must be made anew after a refusal.

    `once`: it may be sent to at once, and is to be made anew after every end of its connection.
    """
    socket = _socket(zmq.DEALER)
    socket.setsockopt(zmq.IMMEDIATE, int(not once))  # else what is sent without a connection piles up in a pipe
    return _watched(socket, to, keys, 1000 if once else 50)


def _watched(socket: Socket, to: str | None, keys: Keys | None, pause_ms: int = 50) -> tuple[Socket, Socket]:
    _show(socket, keys)
    # ZeroMQ repeats some refused handshakes without any pause, and gives others up for good: neither is wanted.
    socket.setsockopt(zmq.RECONNECT_STOP, _STOP_AFTER_REFUSAL)
    watcher = monitor(socket)  # before the connection begins: so it misses nothing of it
    try:
        if to is not None:
            _connect(socket, to, pause_ms)
    except InvalidRequest:
        watcher.close(linger=0)
        raise
    return socket, watcher


def zap_listener() -> Socket:
    """Where libzmq asks whom to let in. It must be there before the sockets that it guards are bound."""
    socket = context().socket(zmq.ROUTER)
    socket.setsockopt(zmq.LINGER, 0)
    try:
        socket.bind(_ZAP_ENDPOINT)
    except zmq.ZMQError as error:
        socket.close(linger=0)
        raise RequestFailed(f"this process has a node already: {error.strerror or error}") from error
    return socket


def pair(name: str, *, listen: bool) -> Socket:
    """One end of an in-process pipe: how other threads wake the thread that owns the sockets."""
    socket = _socket(zmq.PAIR)
    (socket.bind if listen else socket.connect)(f"inproc://{name}")
    return socket


def monitor(socket: Socket) -> Socket:
    """A socket that tells what becomes of `socket`'s connection: read it with `monitor_event`.

    Close it after `socket`: libzmq waits for ever to tell something to a monitor whose other end is closed.
    """
    events = zmq.EVENT_CONNECTED | zmq.EVENT_CONNECT_RETRIED | zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED
    failed = zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    return _monitored(socket, events | failed | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL)


def listener_monitor(socket: Socket) -> Socket:
    """A socket that tells who is turned away from a listening `socket`: read it with `listener_event`."""
    failed = zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    return _monitored(socket, zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED | failed)


def _monitored(socket: Socket, events: int) -> Socket:
    address = f"inproc://monitor-{socket.fileno()}"
    try:
        socket.monitor(address, events)
        watcher = context().socket(zmq.PAIR)
    except zmq.ZMQError as error:
        close(socket)
        raise _no_more(error) from error
    watcher.setsockopt(zmq.RCVHWM, 0)  # with a limit libzmq would wait for us there, and we for it in `close`
    watcher.connect(address)
    return watcher


def listener_event(socket: Socket) -> ConnectionEvent | None:
    """What happened at a listening socket next, or None."""
    if (frames := receive_nowait(socket)) is None:
        return None
    event, value = struct.unpack("=HI", frames[0])
    word = _LISTENER_WORDS[event]
    return ConnectionEvent(word, value if word in ("accepted", "disconnected") else 0)


def monitor_event(socket: Socket) -> str | None:
    """What happened to a connection next, or None.

    connected, ready, retried, disconnected; or why there is none: refused_key (our key is not known there),
    refused_mechanism (one end encrypts, and the other does not), refused_handshake (the connection was cut).
    """
    if (frames := receive_nowait(socket)) is None:
        return None
    # zmq.utils.monitor would do this, and bring asyncio with it: that doubles the time that a client's import takes.
    event, _value = struct.unpack("=HI", frames[0])
    return _MONITOR_WORDS.get(event, "refused_handshake")


_LISTENER_WORDS = {
    zmq.EVENT_ACCEPTED: "accepted",
    zmq.EVENT_DISCONNECTED: "disconnected",
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: "refused",
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: "unauthorized",
}
_MONITOR_WORDS = {
    zmq.EVENT_CONNECTED: "connected",
    zmq.EVENT_HANDSHAKE_SUCCEEDED: "ready",
    zmq.EVENT_CONNECT_RETRIED: "retried",
    zmq.EVENT_DISCONNECTED: "disconnected",
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: "refused_key",
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: "refused_mechanism",
}


def close(socket: Socket, linger_ms: int = 0) -> None:
    """Close a socket and its monitor; what is unsent has `linger_ms` left."""
    with contextlib.suppress(zmq.ZMQError):  # it has no monitor
        socket.disable_monitor()
    socket.close(linger=linger_ms)


def _socket(kind: int) -> Socket:
    try:
        socket = context().socket(kind)
    except zmq.ZMQError as error:
        raise _no_more(error) from error
    socket.setsockopt(zmq.LINGER, 0)  # the default is to wait for ever at exit
    socket.setsockopt(zmq.SNDHWM, HIGH_WATER_MARK)
    socket.setsockopt(zmq.RCVHWM, HIGH_WATER_MARK)
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME_BYTES + _CURVE_BYTES)
    socket.setsockopt(zmq.HANDSHAKE_IVL, 5000)  # the default leaves a mute stranger 30 s
    # A cable that was pulled sends no FIN: find out in seconds, not in half an hour.
    socket.setsockopt(zmq.HEARTBEAT_IVL, 5000)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 15000)
    socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
    socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, 30)
    return socket


def _no_more(error: zmq.ZMQError) -> RequestFailed:
    return RequestFailed(f"no more sockets can be opened: {error.strerror or error}")


def _guard(socket: Socket, keys: Keys | None) -> None:
    """Encrypt what a listening socket says, and let nobody in who is not on the list."""
    if keys is None:
        return
    socket.setsockopt(zmq.CURVE_SERVER, 1)
    socket.setsockopt(zmq.CURVE_SECRETKEY, keys.secret)
    socket.setsockopt(zmq.ZAP_DOMAIN, ZAP_DOMAIN)
    # Without this whoever knows the public key gets in where nobody answers to ZAP.
    socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)


def _show(socket: Socket, keys: Keys | None) -> None:
    """Show our key to the node at the other end, which must have the one that we expect."""
    if keys is None:
        return
    socket.setsockopt(zmq.CURVE_SERVERKEY, keys.server)
    socket.setsockopt(zmq.CURVE_PUBLICKEY, keys.public)
    socket.setsockopt(zmq.CURVE_SECRETKEY, keys.secret)


def _connect(socket: Socket, to: str, pause_ms: int = 50) -> None:
    # A name with an AAAA record is tried as IPv6 only once IPV6 is on: switch it on for literals that need it.
    host = to.split("//", 1)[1].rsplit(":", 1)[0].strip("[]")
    socket.setsockopt(zmq.IPV6, int(ip_version(host) == 6))
    socket.setsockopt(zmq.RECONNECT_IVL, pause_ms)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)  # the default is no back-off at all
    try:
        socket.connect(to)
    except zmq.ZMQError as error:
        socket.close(linger=0)
        raise InvalidRequest(f"{to} is no address that can be connected to: {error.strerror or error}") from error
