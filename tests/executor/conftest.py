"""A node that is nothing but an ExecutorHandle: real executor process, real socket file, real tasks."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from meeseeks.core.effects import Ack, Adopted, Dropped, Event, Exited, Kill, Order, Start, Started, TaskKey
from meeseeks.executor.handle import ExecutorHandle
from tests.support.wait import wait_until


class FakeNode:
    """Sends orders, keeps what comes back."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.handle = ExecutorHandle(folder, "n", **options)
        self.events: list[Event] = []

    def key(self, job: str, run: int = 1) -> TaskKey:
        return TaskKey(job, 1, (1, "n"), run)

    def start(self, job: str, *args: str, pool: str = "p", run: int = 1, **rest: Any) -> TaskKey:
        key = self.key(job, run)
        self.send(Start(key=key, pool=pool, args=args, env={"MEESEEKS_JOB_ID": job}, **rest))
        return key

    def script(self, job: str, text: str, *args: str, **rest: Any) -> TaskKey:
        """A Python script as the task."""
        return self.start(job, sys.executable, "-c", text, *args, **rest)

    def send(self, *orders: Order) -> None:
        self.handle.send(list(orders))

    def poll(self) -> list[Event]:
        self.events += self.handle.receive()
        return self.events

    def wait(self, kind: type, key: TaskKey, timeout: float = 15) -> Any:
        def found() -> Event | None:
            return next((event for event in self.poll() if isinstance(event, kind) and event.key == key), None)

        return wait_until(found, timeout, lambda: f"{kind.__name__} of {key}; there were {self.events}")

    def exited(self, key: TaskKey, timeout: float = 15) -> Exited:
        return self.wait(Exited, key, timeout)

    def started(self, key: TaskKey) -> Started:
        return self.wait(Started, key)

    def dropped(self, key: TaskKey) -> Dropped:
        return self.wait(Dropped, key)

    def adopted(self) -> Adopted:
        return wait_until(lambda: next((e for e in self.poll() if isinstance(e, Adopted)), None))

    def kill(self, key: TaskKey, grace: float = 5, why: str = "killed") -> None:
        self.send(Kill(key, grace, why))

    def ack(self, key: TaskKey) -> None:
        self.send(Ack(key))
        self.handle.flush()

    def executor_pid(self) -> int:
        """The handle does not tell; its process is the one with the pidfd."""
        text = Path(f"/proc/self/fdinfo/{self.handle.pidfd}").read_text()
        return int(next(line.split()[1] for line in text.splitlines() if line.startswith("Pid:")))

    def run(self, *args: str, **rest: Any) -> Exited:
        """Start a task of a job of its own, and wait for its end."""
        return self.exited(self.start(f"job{time.monotonic_ns()}", *args, **rest))


@pytest.fixture
def make_node(tmp_path: Path) -> Iterator[Callable[..., FakeNode]]:
    made: list[FakeNode] = []

    def make(folder: Path | None = None, **options: Any) -> FakeNode:
        made.append(FakeNode(folder or tmp_path / "state", **options))
        return made[-1]

    yield make
    for node in made:
        if not node.handle.line.closed:
            node.handle.stop()


LACKING = """#!{python}
import ctypes, os, sys
for number in {capabilities}:
    ctypes.CDLL(None).prctl(24, number, 0, 0, 0)  # PR_CAPBSET_DROP: it holds from the next exec on
os.execv("{python}", ["{python}", *sys.argv[1:]])
"""


@pytest.fixture
def lacking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Executors that are started from now on lack these capabilities of root's: to them others are other users."""

    def lack(*capabilities: int) -> None:
        program = tmp_path / "python"
        program.write_text(LACKING.format(python=sys.executable, capabilities=capabilities))
        program.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(program))

    return lack


@pytest.fixture
def node(make_node: Callable[..., FakeNode]) -> FakeNode:
    return make_node()


@pytest.fixture
def pid_file(tmp_path: Path) -> Iterator[Callable[[str], int]]:
    """Reads a process id that a task wrote to a file in tmp_path; such processes don't outlive the test."""
    seen: list[int] = []

    def read(name: str) -> int:
        path = tmp_path / name
        text = wait_until(lambda: path.exists() and path.read_text().strip(), describe=f"a pid in {path}")
        seen.append(int(text))
        return seen[-1]

    yield read
    for pid in seen:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
