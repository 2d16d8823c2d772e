"""Clients in processes of their own, as other users are: each is told what to do by lines of JSON, and answers so."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import meeseeks
from meeseeks import Client
from tests.support.nodes import NodeProcess

from .place import CALM_S, true_job

__all__ = ["PROGRAMS", "Program", "running"]

WORKER = Path(__file__).parent / "worker.py"
CHUNK = 2000
_LEAVE_S = 20.0


class Program:
    """One of PROGRAMS, running."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def ask(self, **what: Any) -> None:
        """Tell it to do something."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()

    def answer(self) -> Any:
        """What it says next."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"process {self.pid} ended with {self._process.wait()}"
        return json.loads(line)

    def end(self) -> None:
        """Close its input, and wait until it has left."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(_LEAVE_S)
        finally:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()


@contextmanager
def running(name: str, node: NodeProcess, count: int = 1) -> Iterator[list[Program]]:
    """So many processes of this program, each connected to the node."""
    root = str(Path(meeseeks.__file__).parent.parent)
    options = json.dumps({"program": name, "address": node.address, "port": node.port})
    command = [sys.executable, str(WORKER), root, options]
    programs = []
    try:
        for _ in range(count):
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            programs.append(Program(process))
        for program in programs:
            assert program.answer() == "ready"
        yield programs
    finally:
        for program in programs:
            program.end()


def _watch(client: Client, jid: str) -> Any:
    """When the job was seen to be over: this machine's monotonic clock, which all processes share."""
    client.wait_for(jid, CALM_S)
    return time.monotonic()


def _know(client: Client, jid: str) -> Any:
    """Answer once the job is in the cache."""
    while not client.get_job(jid):
        client.wait()
    return time.monotonic()


def _count(client: Client, prefix: str) -> Any:
    return len(client.list_jobs(id=prefix + "*"))


def _has(client: Client, jid: str) -> Any:
    """Whether the job is in the cache; unlike a count it costs nothing, and can be asked again and again."""
    return bool(client.get_job(jid))


def _flood(client: Client, count: int, prefix: str, pool: str) -> Any:
    """Submit so many jobs as fast as it goes; answers with how many were acknowledged, and in how many seconds."""
    begun_at, acknowledged = time.monotonic(), 0
    for first in range(0, count, CHUNK):
        ids = range(first, min(first + CHUNK, count))
        acknowledged += len(client.submit_many(true_job(id=f"{prefix}{i:07d}", pool=pool) for i in ids))
    return {"acknowledged": acknowledged, "seconds": time.monotonic() - begun_at}


_ORDERS: dict[str, Callable[..., Any]] = {"watch": _watch, "know": _know, "count": _count, "has": _has, "flood": _flood}

PROGRAMS: dict[str, dict[str, Any]] = {"cached": {"refresh": 1}, "requests": {"refresh": 0}}
"""Which Client each of them has."""


def main(program: str, address: str, port: int) -> None:
    """Do as the lines on stdin say, one after the other, until there are no more."""
    with Client(address, port, timeout=CALM_S, **PROGRAMS[program]) as client:
        if client.has_cache:
            client.wait()
        _say("ready")
        for line in sys.stdin:
            order = json.loads(line)
            _say(_ORDERS[order.pop("do")](client, **order))


def _say(what: Any) -> None:
    print(json.dumps(what), flush=True)
