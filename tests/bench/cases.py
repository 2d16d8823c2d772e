"""The cases by name."""

from __future__ import annotations

from collections.abc import Callable

from . import backpressure, fanout, growth, idle, latency, modes, startup, tens, throughput, timeline
from .peers.listed import peers
from .place import Place

__all__ = ["CASES", "describe"]

CASES: dict[str, Callable[[Place], None]] = {
    "latency": latency.latency,
    "latency-line": latency.line,
    "timeline": timeline.timeline,
    "throughput": throughput.throughput,
    "throughput-line": throughput.line,
    "submit": throughput.submit,
    "security": modes.security,
    "sync": modes.sync,
    "fanout": fanout.fanout,
    "ten": tens.ten,
    "startup": startup.startup,
    "idle": idle.idle,
    "growth": growth.growth,
    "flood": backpressure.flood,
    "mute": backpressure.mute,
    "chatty": backpressure.chatty,
    "peers": peers,
}


def describe() -> str:
    """A line about each case."""
    width = max(map(len, CASES))
    return "\n".join(f"  {name:{width}}  {(case.__doc__ or '').split(chr(10))[0]}" for name, case in CASES.items())
