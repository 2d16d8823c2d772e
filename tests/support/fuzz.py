"""Hostile input for a live node: bytes before anybody is let in, and frames of one who was.

Everything comes from a seeded Random, so that a run can be repeated: `Fuzzer(node, seed).run(1000)`.
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import zmq

from meeseeks.wire.messages import REQUEST_TYPES
from tests.support.curve import guard, identity, mesh_key, show
from tests.support.frames import send_cut
from tests.support.nodes import NodeProcess

__all__ = ["GREETING", "Fuzzer", "bad_beat", "bad_frame", "bad_record", "bad_value", "large_frame", "rss_mb"]

ANSWER_S = 5.0
GROWTH_MAX_MB = 50.0
_RAW_OPEN = 50
"""Connections that are left open at once, mute and half-open."""
GREETING = b"\xff\0\0\0\0\0\0\0\1\x7f\3\1" + b"CURVE".ljust(20, b"\0") + bytes(32)
"""What a connection of ZMTP 3.1 begins with."""

_KEYS = ("id", "pool", "args", "node", "state", "tags", "since", "incarnation", "origin", "stream", "offset", "config")


def bad_value(random: random.Random, depth: int = 0) -> Any:
    """A value that is rarely what was asked for: wrong types, extremes, bytes that are no text, deep nests."""
    simple: list[Callable[[], Any]] = [
        lambda: None,
        lambda: random.choice([True, False]),
        lambda: random.choice([0, -1, 2**31, 2**63 - 1, -(2**63), 2**64 - 1]),
        lambda: random.choice([0.0, float("nan"), float("inf"), -1e308]),
        lambda: random.choice(["", "*", "__config", "\0", "a" * 300, "é\u202e\ud7ff", "../../etc", "a@b", "p"]),
        lambda: random.randbytes(random.randrange(40)),
        lambda: msgpack.ExtType(random.randrange(128), random.randbytes(8)),
        lambda: msgpack.Timestamp(random.randrange(2**33), random.randrange(10**9)),
    ]
    if depth > 3 or random.random() < 0.6:
        return random.choice(simple)()
    if random.random() < 0.5:
        return [bad_value(random, depth + 1) for _ in range(random.randrange(5))]
    return {random.choice(_KEYS): bad_value(random, depth + 1) for _ in range(random.randrange(5))}


def bad_frame(random: random.Random, good: bytes) -> bytes:
    """A frame that was good once, or never."""
    at = random.randrange(len(good) or 1)
    return random.choice(
        [
            lambda: good[:at],
            lambda: good + random.randbytes(10),
            lambda: good[:at] + random.randbytes(random.randrange(1, 6)) + good[at + 1 :],
            lambda: bytes(byte ^ (1 << random.randrange(8)) if random.random() < 0.05 else byte for byte in good),
            lambda: random.choice([b"\x91", b"\x81\xa1a", b"\x82", b"\x81\x90"]) * random.choice([10, 1000, 50_000]),
            lambda: random.choice([b"\xdd", b"\xdf", b"\xdb", b"\xc6", b"\xc9"]) + b"\xff\xff\xff\xff" + good,
            lambda: b"\x83\xa1v\x01\xa2id\x01\xa7request\x81\xa6submit\x81\xa4pool\xa3\xff\xfe\xfd",
            lambda: random.randbytes(random.randrange(200)),
            lambda: b"",
        ]
    )()


_NUMBERS = (0, 1, 2, 3, 7, 1000, 2**31, 2**40, 2**48, 2**53)
_NAMES = ("a", "forger", "nowhere", "", "*", "a" * 300, "x/../y", "\0", "p")
_TIMES = (0.0, -1e308, 1e308, 1e18, float("nan"), float("inf"), 1.0)


def bad_record(random: random.Random) -> dict[str, Any]:
    """A job of a forger: fields of the right type and far away, and now and then of a wrong one or missing."""
    number, name, when = (lambda: random.choice(_NUMBERS)), (lambda: random.choice(_NAMES)), random.choice
    epoch = [number(), name()]
    spec = {"id": f"forged-{random.randrange(50)}", "pool": when(["p", "q", "__config"]), "args": ["true"]}
    spec |= {"submit_node": when(["a", "forger", "nowhere"]), "writer": name(), "lamport": number(), "ts": when(_TIMES)}
    spec |= {"generation": number(), "adoptions": number(), "killed_generation": number()}
    spec |= {"lost": [number(), epoch, number()]}
    spec |= {"submit_ts": when(_TIMES), "runtime": when([None, *_TIMES]), "node": when([None, "a", "*", "nowhere"])}
    spec |= {"retries": number(), "resubmit": when([True, False]), "hold": when([True, False]), "group": name()}
    status = {"generation": number(), "epoch": epoch, "rev": number(), "node": when([None, "a", "forger"])}
    status |= {"state": when(["new", "running", "done", "failed", "killed"]), "active": when([True, False])}
    status |= {"rc": when([None, *_NUMBERS]), "pid": number(), "start_ts": when(_TIMES), "end_ts": when(_TIMES)}
    status |= {"stdout_size": number(), "output_node": name(), "ts": when(_TIMES), "start_count": number()}
    for part in (spec, status):
        for key in list(part):
            chance = random.random()
            if chance < 0.02:
                del part[key]
            elif chance < 0.03:
                part[key] = bad_value(random)
    return {"spec": spec, "status": status}


def bad_beat(random: random.Random) -> dict[str, Any]:
    """A heartbeat of one that counts, sees and promises wrongly."""
    number, when = (lambda: random.choice(_NUMBERS)), random.choice
    life = identity(when(["1", "2"]))["incarnation"]
    beat = {"node": when(["forger", "forger", "a", "ghost"]), "incarnation": life, "number": number()}
    beat |= {"seq": number(), "ts": when(_TIMES), "timeout": when(_TIMES), "lost_after": when(_TIMES)}
    beat |= {"acks": {when(_NAMES): [when(["1", "x"]), number()]}, "tails": {when(_NAMES): ["1", number()]}}
    beat |= {"pools": {when(_NAMES): {"slots": number(), "running": number()}}, "loadavg": when(_TIMES)}
    beat |= {"sees": [when(_NAMES)], "address": when(["", "127.0.0.1", "bad host"]), "port": when([0, 1, 2**40])}
    if random.random() < 0.1:
        beat[when(list(beat))] = bad_value(random)
    return beat


def large_frame(size: int, sent: int) -> bytes:
    """The beginning of a command of `size` bytes: more of it than that is more than it said."""
    return b"\x06" + struct.pack(">Q", size) + bytes(sent)


def rss_mb(node: NodeProcess) -> float:
    """The memory of a node's own process."""
    status = Path(f"/proc/{node.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


class Fuzzer:
    """Attacks one node, and asks it from time to time whether it is well. AssertionError says that it is not."""

    def __init__(self, node: NodeProcess, seed: int) -> None:
        self.node = node
        self.sent = 0
        self._seed = seed
        self._random = random.Random(seed)
        self._open: list[socket.socket] = []
        self._first_rss = rss_mb(self.node)
        context = zmq.Context.instance()
        self._asks, self._subscribes = self._connected(zmq.DEALER, node.port), self._connected(zmq.XSUB, node.pub_port)
        self._router, self._pub = guard(context.socket(zmq.ROUTER)), guard(context.socket(zmq.XPUB))
        for one in (self._router, self._pub):
            one.linger = 0
        self._ports = [one.bind_to_random_port("tcp://127.0.0.1") for one in (self._router, self._pub)]

    def _connected(self, kind: int, port: int) -> Any:
        one = zmq.Context.instance().socket(kind)
        one.linger, one.sndtimeo, one.rcvhwm = 0, 5000, 1000
        show(one)
        one.connect(f"tcp://{self.node.address}:{port}")
        return one

    def close(self) -> None:
        """Close all that it opened."""
        for one in (self._asks, self._subscribes, self._router, self._pub, *self._open):
            one.close()

    def run(self, count: int, every: int = 500) -> None:
        """Send so many messages; the node must answer a member now and then, live, and not grow."""
        kinds = [self._raw, self._request, self._request, self._request, self._subscription, self._broadcast]
        self._meet()
        until = self.sent + count
        while self.sent < until:
            self._random.choice(kinds)()
            self.sent += 1
            if self.sent % every == 0:
                self.check()
        self.check()

    def check(self) -> None:
        """It lives, answers, and has not grown."""
        where = f"after {self.sent} messages of seed {self._seed}"
        assert self.node.running, f"the node died {where}\n{self.node.report()}"
        with self.node.client(timeout=ANSWER_S) as client:
            assert isinstance(client.ls(state="none"), list), where
        growth = rss_mb(self.node) - self._first_rss
        assert growth < GROWTH_MAX_MB, f"the node grew by {growth:.0f} MB {where}"

    # --- before anybody is let in

    def _raw(self) -> None:
        if len(self._open) >= _RAW_OPEN:
            self._open.pop(self._random.randrange(len(self._open))).close()
        one = socket.create_connection(
            (self.node.address, self._random.choice([self.node.port, self.node.pub_port])), 5
        )
        one.settimeout(5)
        self._open.append(one)
        with contextlib.suppress(ConnectionError):
            for piece in self._bytes():
                one.sendall(piece)
        if self._random.random() < 0.3:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # goes with a reset

    def _bytes(self) -> list[bytes]:
        rng = self._random
        mechanism = rng.choice([b"CURVE", b"NULL", b"PLAIN", b"GSSAPI", rng.randbytes(20)])
        greeting = (GREETING[:11] + bytes([rng.randrange(4)]) + mechanism.ljust(20, b"\0") + b"\0" * 32)[:64]
        hello = b"\x05HELLO" + bytes([1, 0]) + rng.randbytes(192)
        command = rng.choice(
            [
                b"\x04" + bytes([len(hello)]) + hello,
                b"\x04" + bytes([rng.randrange(256)]) + rng.randbytes(rng.randrange(300)),
                b"\x06" + struct.pack(">Q", rng.choice([2**63 - 1, 2**64 - 1, 64 * 2**20, 10**6])) + rng.randbytes(64),
                b"\x01\x05READY" + rng.randbytes(20),
                large_frame(rng.choice([4000, 4096, 64 * 2**20]), rng.choice([3999, 10_000, 2**20])),
            ]
        )
        return rng.choice(
            [
                [],
                [rng.randbytes(rng.randrange(1, 300))],
                [greeting[: rng.randrange(64)]],
                [greeting, command],
                [greeting, command, rng.randbytes(200)],
                [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"],
                [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + rng.randbytes(50)],
            ]
        )

    # --- by one who was let in

    def _request(self) -> None:
        rng, kind = self._random, self._random.choice([kind for kind in REQUEST_TYPES if kind != "config"])
        message = {"v": 1, "id": self.sent, "request": {kind: bad_value(rng)}}
        for key in ("v", "id", "request"):
            if rng.random() < 0.05:
                message[key] = bad_value(rng)
        frame = msgpack.packb(message, unicode_errors="surrogatepass")
        if rng.random() < 0.5:
            frame = bad_frame(rng, frame)
        extra = [rng.randbytes(rng.randrange(20)) for _ in range(rng.choice([0, 0, 0, 1, 5]))]
        if rng.random() < 0.01:
            self._asks.send(rng.randbytes(rng.randrange(4200, 100_000)))  # ends the connection; the next one is made
        send_cut(self._asks, frame, *extra)
        while self._asks.poll(0):
            self._asks.recv_multipart()

    def _subscription(self) -> None:
        rng = self._random
        self._subscribes.send(rng.choice([b"\x01", b"\0", b"\x02", b""]) + rng.choice([b"own", b"", rng.randbytes(30)]))
        while self._subscribes.poll(0):
            self._subscribes.recv_multipart()

    def _broadcast(self) -> None:
        """What a peer says that has gone mad: the node has linked to us, and listens."""
        rng = self._random
        update = {"node": "forger", "incarnation": identity(rng.choice(["1", "2"]))["incarnation"], "topic": "own"}
        update |= {"prev": rng.randrange(5), "seq": rng.randrange(2**40)}
        update["beats"] = [bad_beat(rng) for _ in range(rng.randrange(3))]
        update["records"] = [bad_record(rng) for _ in range(rng.randrange(3))]
        if rng.random() < 0.1:
            update[rng.choice(list(update))] = bad_value(rng)
        frame = msgpack.packb(update, unicode_errors="surrogatepass")
        if rng.random() < 0.1:
            frame = bad_frame(rng, frame)
        send_cut(self._pub, frame, rng.choice([b"own", b"all"]))
        while self._router.poll(0):
            envelope = self._router.recv_multipart()[:1]
            reply = {"v": 1, "id": rng.randrange(100), "response": {rng.choice(["sync", "hello"]): bad_value(rng)}}
            answer = msgpack.packb(reply, unicode_errors="surrogatepass")
            send_cut(self._router, bad_frame(rng, answer) if rng.random() < 0.5 else answer, *envelope)

    def _meet(self) -> None:
        """Become a peer: the node links to us, and hears our broadcasts."""
        hello = {"node": "forger", "address": "127.0.0.1", **identity("1")}
        hello |= {"port": self._ports[0], "pub_port": self._ports[1]}
        deadline = time.monotonic() + 10
        self._asks.send(msgpack.packb({"v": 1, "id": "hello", "request": {"hello": hello}}))
        assert mesh_key().is_mesh_key
        while not self._pub.poll(100):
            assert time.monotonic() < deadline, "the node did not link to the forger"
        self._pub.recv()
