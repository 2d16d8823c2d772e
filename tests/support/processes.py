"""Who runs on this machine because of these tests: every process below a test carries marks in its environment."""

from __future__ import annotations

import os
import signal
import uuid
from typing import NamedTuple

__all__ = [
    "NODE_MARK",
    "SESSION_MARK",
    "Found",
    "children_of",
    "command_of",
    "having",
    "is_running",
    "kill_all",
    "marked",
]

SESSION_MARK = "MEESEEKS_TEST_SESSION"
NODE_MARK = "MEESEEKS_TEST_NODE"
_SESSION = f"{os.getpid()}-{uuid.uuid4().hex}"
os.environ[SESSION_MARK] = _SESSION


class Found(NamedTuple):
    """A process that carries the mark of this test session; `node` is the NodeProcess that it came from, if any."""

    pid: int
    node: str | None
    command: str


def is_running(pid: int) -> bool:
    """Whether a process with this id is there and not a zombie."""
    return _state(pid) not in (None, "Z", "X")


def command_of(pid: int) -> str:
    """The command line of a process, or the empty string where there is none."""
    return _read(pid, "cmdline").replace(b"\0", b" ").decode(errors="replace").strip()


def children_of(pid: int) -> list[int]:
    """The direct children of a process."""
    return [int(child) for child in _read(pid, f"task/{pid}/children").split()]


def marked(node: str | None = None) -> list[Found]:
    """The running processes that came from this test session (of this NodeProcess only, if one is given)."""
    found = []
    session = f"{SESSION_MARK}={_SESSION}".encode()
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        pid = int(name)
        items = _read(pid, "environ")
        if session not in items or not is_running(pid):  # asked before and after each test, of each process there is
            continue
        environ = dict(item.split(b"=", 1) for item in items.split(b"\0") if b"=" in item)
        mark = environ.get(NODE_MARK.encode())
        of = None if mark is None else mark.decode()
        if node is None or of == node:
            found.append(Found(pid, of, command_of(pid)))
    return found


def having(variable: str, value: str) -> list[int]:
    """The running processes that have this in their environment."""
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    item = f"{variable}={value}".encode()
    return [pid for pid in pids if item in _read(pid, "environ").split(b"\0") and is_running(pid)]


def kill_all(found: list[Found]) -> None:
    """SIGKILL to each of these processes."""
    for process in found:
        try:
            os.kill(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue  # it ended by itself meanwhile


def _state(pid: int) -> str | None:
    stat = _read(pid, "stat")
    return stat.rpartition(b")")[2].split()[0].decode() if stat else None


def _read(pid: int, name: str) -> bytes:
    try:
        with open(f"/proc/{pid}/{name}", "rb", buffering=0) as file:  # noqa: PTH123 - half the time of a Path's
            return file.readall()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""
