"""Real nodes for tests: processes on free loopback ports, alone or as a mesh of a given shape.

with mesh(tmp_path, 3, shape="line", **{"pools.p.slots": 4}) as (a, b, c):
    with c.client() as client: ...
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

import meeseeks

from . import prefork
from .ports import free_port
from .processes import NODE_MARK, kill_all, marked
from .wait import wait_until

__all__ = ["DEFAULTS", "NodeProcess", "Shape", "live_nodes", "mesh", "wait_linked"]

Shape = Literal["full", "line", "cycle"]

DEFAULTS: dict[str, object] = {
    "listen.address": "127.0.0.1",
    "state.timeout": 2,
    "state.lost_after": 6,
    "heartbeat": 0.2,
    "pools.p.slots": 2,
}
"""What a node of a test is given, unless the test says otherwise: a pool `p`, and times that don't make a test wait.

And ports that it still has when it is started again; with `listen.port=0` it gets some from the kernel, as a user does.
"""

PROGRAM = "meeseeks.node"
_READY_S = 20.0  # generous: two cores, and others work on them as well
_STOP_S = 15.0

_live: dict[str, NodeProcess] = {}


def live_nodes() -> dict[str, NodeProcess]:
    """The nodes that are to be running now, by their marks: what they have started is no leak."""
    return dict(_live)


class NodeProcess:
    """One node in a process of its own. `config` is `key=value` in dotted keys; None leaves a default out."""

    def __init__(
        self,
        folder: Path,
        name: str,
        config: Mapping[str, object] | None = None,
        *,
        join: str = "",
        client: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
        within: Sequence[str] = (),
    ) -> None:
        """`environment` is added to that of this process; `within` is a command that becomes the one after it."""
        self.name = name
        self.environment = dict(environment or {})
        self.within = list(within)
        self.options = dict(client or {})
        self.folder = folder / name
        self.mark = uuid.uuid4().hex
        self.config = {**DEFAULTS, "name": name, "state.dir": self.folder / "state", **(config or {})}
        if "listen.port" not in self.config:
            self.config.update({"listen.port": free_port(), "listen.pub_port": free_port()})
        self.join = join
        self.address, self.port, self.pub_port = "", 0, 0
        self._process: prefork.Child | subprocess.Popen[bytes] | None = None
        self._starts = 0

    def __repr__(self) -> str:
        return f"<node {self.name} at {self.address}:{self.port}>"

    @property
    def endpoint(self) -> str:
        """`host:port`, as `--join` wants it."""
        return f"{self.address}:{self.port}"

    @property
    def pid(self) -> int:
        """The process id of the daemon."""
        assert self._process is not None, f"node {self.name} was not started"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the daemon's process is there."""
        return self._process is not None and self._process.poll() is None

    @property
    def stderr(self) -> str:
        """What the node of the last start has logged."""
        return self._path("stderr").read_text(errors="replace") if self._starts else ""

    @property
    def lives(self) -> tuple[int, int]:
        """Changes once a new program of it is ready: by a start, or by SIGHUP."""
        said = self._path("stdout").read_text() if self._starts else ""
        return self._starts, said.count("ready ")

    def start(self) -> NodeProcess:
        """Start the daemon and wait for its ready line; if it dies instead, fail with what it said."""
        assert not self.running, f"node {self.name} runs already"
        self._starts += 1
        self.folder.mkdir(parents=True, exist_ok=True)
        config = {key: value for key, value in self.config.items() if value is not None}
        args = self._secrets([key for key in config if key.endswith(".pass")])
        args += [f"{key}={_text(value)}" for key, value in config.items() if not key.endswith(".pass")]
        args += ["--join", self.join] if self.join else []
        root = str(Path(meeseeks.__file__).parent.parent)
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
        environment = {**os.environ, **self.environment, NODE_MARK: self.mark, "PYTHONPATH": path}
        with self._path("stdout").open("wb") as stdout, self._path("stderr").open("wb") as stderr:
            if self.within or self.environment:  # which may be for the loader, or for the interpreter
                command = [*self.within, sys.executable, "-m", PROGRAM, *args]
                streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": stdout, "stderr": stderr}
                self._process = subprocess.Popen(command, env=environment, **streams)
            else:
                files = stdout.fileno(), stderr.fileno()
                self._process = prefork.start(PROGRAM, args, environment, Path.cwd(), *files)
        _live[self.mark] = self
        try:
            self._wait_ready()
        except BaseException:
            self.kill()
            self.sweep()
            raise
        return self

    def _secrets(self, keys: list[str]) -> list[str]:
        """A file with those, since they are refused on the command line; or none."""
        if not keys:
            return []
        path = self.folder / "secrets.toml"
        path.touch(mode=0o600)
        path.write_text("".join(f'{key} = "{self.config[key]}"\n' for key in keys))
        return [str(path)]

    def _wait_ready(self) -> None:
        def ready() -> list[str]:
            text = self._path("stdout").read_text()
            lines = [line.split() for line in text.splitlines(keepends=True) if line.endswith("\n")]
            found = [line for line in lines if line[:1] == ["ready"]]
            assert found or self.running, f"node {self.name} ended with {self._process and self._process.poll()}"
            return found[0] if found else []

        try:
            _, name, endpoint, _, pub_port = wait_until(ready, _READY_S, f"the ready line of node {self.name}")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.report()}") from None
        assert name == self.name
        host, _, port = endpoint.rpartition(":")
        self.address, self.port, self.pub_port = host.strip("[]"), int(port), int(pub_port)

    def restart(self) -> NodeProcess:
        """Start it again, on the ports that it had."""
        self.config.update({"listen.port": self.port, "listen.pub_port": self.pub_port})
        return self.start()

    def stop(self) -> None:
        """SIGTERM; fails unless the node ends with exit code 0 in time."""
        self.ask_to_stop()
        self.wait_stopped()

    def ask_to_stop(self) -> None:
        """SIGTERM, without waiting for what comes of it."""
        if self.running:
            os.kill(self.pid, signal.SIGCONT)
            os.kill(self.pid, signal.SIGTERM)

    def wait_stopped(self) -> None:
        """Wait until it ended by itself, with exit code 0; what it leaves behind is a leak from now on."""
        if self._process is None:
            return
        try:
            code = self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"node {self.name} did not end within {_STOP_S:g} s\n{self.report()}") from None
        self._process = None
        _live.pop(self.mark, None)
        assert code == 0, f"node {self.name} ended with exit code {code}\n{self.report()}"

    def kill(self) -> None:
        """SIGKILL to the daemon alone: its executor and the jobs live on, as after a crash. `sweep` ends those."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def sweep(self) -> None:
        """Kill whatever of this node is left: what a killed daemon leaves behind on purpose."""

        def gone() -> bool:
            left = marked(self.mark)
            kill_all(left)
            return not left

        wait_until(gone, describe=f"an end of what node {self.name} left")
        _live.pop(self.mark, None)

    def freeze(self) -> None:
        """SIGSTOP: the daemon is there, and mute."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT: it goes on as if no time had passed."""
        os.kill(self.pid, signal.SIGCONT)

    def executor_pid(self) -> int:
        """The process id of its executor."""
        found = [process.pid for process in marked(self.mark) if "meeseeks.executor" in process.command]
        assert len(found) == 1, f"node {self.name} has {len(found)} executors\n{self.report()}"
        return found[0]

    def client(self, **options: Any) -> meeseeks.Client:
        """A Client of this node, with its `options`."""
        return meeseeks.Client(self.address, self.port, **{**self.options, **options})

    def report(self, lines: int = 60) -> str:
        """The end of its log, for a failure's message."""
        tail = "\n".join(self.stderr.splitlines()[-lines:])
        return f"--- node {self.name} said:\n{tail}\n---"

    def _path(self, stream: str) -> Path:
        return self.folder / f"{stream}.{self._starts}"


@contextmanager
def mesh(
    folder: Path,
    n: int,
    *,
    shape: Shape = "full",
    per_node: Mapping[str, Mapping[str, object]] | None = None,
    client: Mapping[str, Any] | None = None,
    **config: object,
) -> Iterator[list[NodeProcess]]:
    """`n` started and linked nodes a, b, c, …: all with all, in a line a–b–c, or in a cycle.

    `config` is for all of them, `per_node` for those that it names, `client` are options of every Client of them.
    At the end every node that still runs must stop cleanly; of one that was killed whatever it left is killed.
    """
    nodes: list[NodeProcess] = []
    with ExitStack() as stack:
        stack.callback(_end, nodes)
        for i in range(n):
            name = chr(ord("a") + i)
            own = {**config, **(per_node or {}).get(name, {})}
            if shape == "full":
                join = nodes[0].endpoint if nodes else ""
                nodes.append(NodeProcess(folder, name, own, join=join, client=client))
            else:
                neighbours = [*nodes[-1:], *(nodes[:1] if shape == "cycle" and 2 <= i == n - 1 else [])]
                nodes.append(NodeProcess(folder, name, {"discover": False, **_links(neighbours), **own}, client=client))
            nodes[-1].start()
        try:
            wait_linked(nodes)
            yield nodes
        except BaseException:
            for node in nodes:
                print(node.report(), file=sys.stderr)
            raise


def wait_linked(nodes: Sequence[NodeProcess], timeout: float = 20.0) -> None:
    """Wait until each of these nodes sees all of them online."""
    names = {node.name for node in nodes}
    with ExitStack() as stack:
        for node in nodes:
            client = stack.enter_context(node.client())

            def missing(client: meeseeks.Client = client) -> set[str]:
                return names - {name for name, status in client.nodes().items() if status["online"]}

            wait_until(
                lambda missing=missing: not missing(),
                timeout,
                lambda node=node, missing=missing: f"{node.name} to see {sorted(missing())} online",
            )


def _links(neighbours: Sequence[NodeProcess]) -> dict[str, object]:
    found: dict[str, object] = {}
    for other in neighbours:
        found[f"nodes.{other.name}.address"] = other.address
        found[f"nodes.{other.name}.port"] = other.port
    return found


def _end(nodes: Sequence[NodeProcess]) -> None:
    """Stop all at once: their graces run side by side. The first failure is raised when all are gone."""
    failures = []
    clean = [node for node in nodes if node.running]
    for node in clean:
        node.ask_to_stop()
    for node in nodes:
        try:
            node.wait_stopped() if node in clean else node.sweep()
        except AssertionError as failure:
            failures.append(failure)
            node.sweep()
    if failures:
        raise failures[0]


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
