"""A mesh on this machine for as long as it is wanted: nodes as processes, in a folder, on free loopback ports."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from meeseeks.errors import NodeUnreachable
from meeseeks.executor.program import program
from meeseeks.node.parent import PARENT

if TYPE_CHECKING:
    from meeseeks import Client

__all__ = ["LocalMesh", "LocalNode"]

_READY_S = 20.0
_LINKED_S = 20.0
_STOP_S = 12.0
"""A node ends within 10 s of a SIGTERM."""
_MARK = "MEESEEKS_LOCAL_MESH"
"""An environment variable that all processes below a LocalMesh carry, so that none is left behind."""


class LocalNode:
    """One node process."""

    def __init__(self, name: str, folder: Path, pairs: Sequence[str], join: str | None, mark: str) -> None:
        self.name = name
        self.address = ""
        self.log = folder / f"{name}.log"
        settings = [
            f"name={name}",
            "listen.address=127.0.0.1",
            "listen.port=0",
            f"state.dir={folder / name}",
            *pairs,
        ]
        with self.log.open("wb") as log:
            # In a session of its own: a Ctrl-C of the terminal is for the mesh's owner, who ends the nodes in order.
            self.process = subprocess.Popen(
                [*program("meeseeks.node"), *settings, *(["--join", join] if join else [])],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                env={**os.environ, _MARK: mark, PARENT: str(os.getpid())},
            )

    def wait_ready(self) -> None:
        """Return when the node has said where it listens; NodeUnreachable with its last words if it does not."""
        assert self.process.stdout is not None
        fd, deadline, line = self.process.stdout.fileno(), time.monotonic() + _READY_S, b""
        while not line.endswith(b"\n"):
            readable, _, _ = select.select([fd], [], [], max(0.0, deadline - time.monotonic()))
            piece = os.read(fd, 4096) if readable else b""
            if not piece:
                raise NodeUnreachable(f"node {self.name} did not start: {self._last_words()}")
            line += piece
        words = line.decode().split()
        if words[:2] != ["ready", self.name]:
            raise NodeUnreachable(f"node {self.name} said {line!r} in place of its ready line")
        self.address = words[2]

    def ask_to_stop(self) -> None:
        """SIGTERM; does not wait."""
        if self.process.poll() is None:
            self.process.terminate()

    def wait_stopped(self, timeout: float = _STOP_S) -> bool:
        """Wait for its end; whether it ended by itself."""
        if self.process.stdout is not None:
            self.process.stdout.close()
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return False
        return True

    def _last_words(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()
        return lines[-1] if lines else f"it ended with exit code {self.process.poll()}"


class LocalMesh:
    """Nodes that have joined the first. Entering starts them; leaving ends them and all that they have started.

    Their mesh key is in the file `key`, and made if it is not there; by default it is one of their own in the folder.
    """

    def __init__(self, folder: Path, names: Sequence[str], pairs: Sequence[str] = (), key: Path | None = None) -> None:
        self.nodes: list[LocalNode] = []
        self._folder = folder
        self._names = names
        self._key = key or folder / "mesh.key"
        self._pairs = [f"security.key={self._key}", *pairs]
        self._mark = uuid.uuid4().hex

    def __enter__(self) -> Self:
        from meeseeks.wire.curve import make_mesh_key

        make_mesh_key(self._key)
        try:
            for name in self._names:
                join = self.nodes[0].address if self.nodes else None
                self.nodes.append(LocalNode(name, self._folder, self._pairs, join, self._mark))
                if join is None:
                    self.nodes[0].wait_ready()
            for node in self.nodes[1:]:
                node.wait_ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def client(self, at: int = 0) -> Client:
        """A Client of one of the nodes."""
        from meeseeks import Client

        return Client(self.nodes[at].address, security={"key": self._key})

    def wait_linked(self) -> None:
        """Return when every node sees all of them online; NodeUnreachable if that takes too long."""
        names, deadline = set(self._names), time.monotonic() + _LINKED_S
        for at, node in enumerate(self.nodes):
            with self.client(at) as client:
                while missing := names - {name for name, status in client.nodes().items() if status["online"]}:
                    if time.monotonic() > deadline:
                        raise NodeUnreachable(f"node {node.name} does not see {', '.join(sorted(missing))}")
                    time.sleep(0.02)

    def close(self) -> None:
        """End all nodes; whatever then is left of them, of a node that had to be killed, is killed."""
        for node in self.nodes:
            node.ask_to_stop()
        deadline = time.monotonic() + _STOP_S
        clean = [node.wait_stopped(max(0.0, deadline - time.monotonic())) for node in self.nodes]
        if not all(clean) or any(node.process.returncode for node in self.nodes):
            self._sweep()

    def _sweep(self) -> None:
        mark = f"{_MARK}={self._mark}".encode()
        while left := [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _carries(pid, mark)]:
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue  # it ended by itself meanwhile
            time.sleep(0.02)


def _carries(pid: int, mark: bytes) -> bool:
    try:
        return mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False  # gone, or not ours
