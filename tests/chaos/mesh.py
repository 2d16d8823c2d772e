"""Real nodes that reach each other only through proxies, and what can be broken about them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from meeseeks import Client
from tests.support.nodes import NodeProcess, wait_linked
from tests.support.ports import free_ports
from tests.support.processes import marked
from tests.support.wait import wait_until

from .clock import Clock, build
from .disk import Disk
from .faults import KINDS, Fault
from .proxy import Ports, Proxy, host

__all__ = ["CONFIG", "ChaosMesh"]

CONFIG: Mapping[str, object] = {
    "heartbeat": 0.2,
    "state.timeout": 1.5,
    "state.lost_after": 4,
    "pools.p.slots": 4,
    "pools.p.grace": 1,
    "discover": False,
}
"""Small times, so that nodes are lost within seconds."""

_DISK_MIB = 64
_REPAIR_S = 60.0
_CLIENT_S = 2.0

Repair = Callable[[Callable[[], None]], None]
"""Mends a fault; the function that it is given is called when that is done."""


class ChaosMesh:
    """`with` starts the nodes; the last one has its state on a small disk of its own, if one can be mounted."""

    def __init__(self, folder: Path, names: Sequence[str], config: Mapping[str, object]) -> None:
        self.folder = folder
        self.names = list(names)
        self.nodes: dict[str, NodeProcess] = {}
        self.died: list[str] = []
        """Nodes that ended although nobody killed them, or did not come back, with what they said."""
        self._config = {**CONFIG, **config}
        self._down: set[str] = set()
        self._disk: Disk | None = None
        self._clocks: dict[str, Clock] = {}
        self._stack = ExitStack()
        self._repairs: list[Future[None]] = []

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            ports = _free_ports(len(self.names))
            self._proxy = stack.enter_context(Proxy(ports))
            self._workers = {name: ThreadPoolExecutor(1, f"chaos-{name}") for name in self.names}
            self._watchers = ThreadPoolExecutor(len(self.names), "chaos-watchers")
            for worker in (self._watchers, *self._workers.values()):
                stack.callback(worker.shutdown)
            self._disk = Disk.mounted(self.folder / "disk", _DISK_MIB)
            if self._disk is not None:
                stack.callback(self._disk.unmount)
            library = build(self.folder)
            stack.callback(self._end)
            for i, name in enumerate(self.names):
                if library is not None:
                    self._clocks[name] = Clock(library, self.folder / f"clock-{name}")
                self.nodes[name] = self._make(i, name, ports)
                self.nodes[name].start()
            wait_linked(list(self.nodes.values()))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def _make(self, i: int, name: str, ports: Sequence[Ports]) -> NodeProcess:
        state = self.folder / name / "state"
        if self._disk is not None and i == len(self.names) - 1:
            state = self._disk.folder / "state"
        config = {**self._config, "listen.port": ports[i].router, "listen.pub_port": ports[i].publisher}
        config["state.dir"] = state
        for j, other in enumerate(self.names):
            if j != i:
                config[f"nodes.{other}.address"] = host(i, j)
                config[f"nodes.{other}.port"] = ports[j].router
        clock = self._clocks.get(name)
        return NodeProcess(self.folder, name, config, environment=clock.environment if clock is not None else None)

    def _end(self) -> None:
        for node in self.nodes.values():
            node.kill()
        for node in self.nodes.values():
            node.sweep()

    @property
    def kinds(self) -> list[str]:
        """The kinds of faults that this machine allows."""
        missing = {"disk-full": self._disk is None, "clock": not self._clocks}
        return [kind for kind in KINDS if not missing.get(kind)]

    def client(self, name: str) -> Client:
        """A Client of a node: it is never cut off from it."""
        node = self.nodes[name]
        return node.client(timeout=_CLIENT_S)

    # --- faults

    def break_by(self, fault: Fault) -> Repair | None:
        """Let a fault happen. Returns what mends it; None if what it is about is not there now."""
        self.look()
        name = fault.nodes[0]
        if fault.kind in ("kill-node", "crash", "stop-node", "replace-node") and (
            name in self._down or not self.nodes[name].running
        ):
            return None
        breakers: dict[str, Callable[[Fault], Repair | None]] = {
            "kill-node": self._kill_node,
            "crash": self._crash,
            "stop-node": self._stop_node,
            "replace-node": self._replace_node,
            "kill-executor": self._kill_executor,
            "stop-executor": self._stop_executor,
            "disk-full": self._fill_disk,
            "clock": self._turn_clock,
        }
        return breakers.get(fault.kind, self._break_link)(fault)

    def look(self) -> None:
        """Notice nodes that have ended by themselves, and start them again."""
        for name, node in self.nodes.items():
            if name not in self._down and not node.running:
                self.died.append(f"node {name} ended by itself\n{node.report(30)}")
                self._start_again(name, lambda: None)

    def wait_repaired(self) -> None:
        """Wait until all that is being mended is mended."""
        self.look()
        repairs, self._repairs = self._repairs, []
        for repair in repairs:
            repair.result(_REPAIR_S)

    def _kill_node(self, fault: Fault) -> Repair | None:
        (name,) = fault.nodes
        self._down.add(name)
        self.nodes[name].kill()
        return lambda done: self._start_again(name, done)

    def _crash(self, fault: Fault) -> Repair | None:
        for pid in self._executors(fault.nodes[0]):
            _signal(pid, signal.SIGKILL)
        return self._kill_node(fault)

    def _stop_node(self, fault: Fault) -> Repair | None:
        node = self.nodes[fault.nodes[0]]
        node.freeze()

        def thaw(done: Callable[[], None]) -> None:
            if node.running:
                node.thaw()
            done()

        return thaw

    def _replace_node(self, fault: Fault) -> Repair | None:
        node = self.nodes[fault.nodes[0]]
        lives = node.lives
        os.kill(node.pid, signal.SIGHUP)

        def wait_until_back(done: Callable[[], None]) -> None:
            def wait() -> None:
                # It may be killed before it is up, or be frozen until that is repaired.
                wait_until(lambda: not node.running or node.lives != lives, _REPAIR_S, node.report)
                done()

            self._repairs.append(self._watchers.submit(wait))

        return wait_until_back

    def _kill_executor(self, fault: Fault) -> Repair | None:
        pids = self._executors(fault.nodes[0])
        for pid in pids:
            _signal(pid, signal.SIGKILL)
        return _nothing_to_mend if pids else None

    def _stop_executor(self, fault: Fault) -> Repair | None:
        pids = self._executors(fault.nodes[0])
        for pid in pids:
            _signal(pid, signal.SIGSTOP)

        def thaw(done: Callable[[], None]) -> None:
            for pid in pids:
                _signal(pid, signal.SIGCONT)
            done()

        return thaw if pids else None

    def _executors(self, name: str) -> list[int]:
        found = marked(self.nodes[name].mark)
        return [process.pid for process in found if "meeseeks.executor" in process.command]

    def _fill_disk(self, fault: Fault) -> Repair | None:
        disk = self._disk
        assert disk is not None
        disk.fill()

        def free(done: Callable[[], None]) -> None:
            disk.free()
            done()

        return free

    def _turn_clock(self, fault: Fault) -> Repair | None:
        self._clocks[fault.nodes[0]].set(int(fault.amount))
        return _nothing_to_mend

    def _break_link(self, fault: Fault) -> Repair | None:
        a, *others = [self.names.index(name) for name in fault.nodes]
        if fault.kind == "isolate":
            others = [i for i in range(len(self.names)) if i != a]
        for b in others:
            if fault.kind == "cut":
                self._proxy.sever(a, b)
            elif fault.kind == "delay":
                self._proxy.delay(a, b, fault.amount)
            else:
                self._proxy.mute(a, b)
                if fault.kind != "one-way":
                    self._proxy.mute(b, a)

        def heal(done: Callable[[], None]) -> None:
            for b in others:
                self._proxy.heal(a, b)
            done()

        return heal

    def _start_again(self, name: str, done: Callable[[], None]) -> None:
        self._down.add(name)

        def start() -> None:
            try:
                self._start_patiently(name)
            except AssertionError as error:
                self.died.append(f"node {name} did not come back: {error}")
            else:
                self._down.discard(name)
                done()

        self._repairs.append(self._workers[name].submit(start))

    def _start_patiently(self, name: str) -> None:
        """A node without room to write may refuse to start: whoever supervises it tries again."""
        while True:
            had_no_room = self._is_full(name)
            try:
                self.nodes[name].start()
            except AssertionError:
                if not (had_no_room or self._is_full(name)):
                    raise
            else:
                return

    def _is_full(self, name: str) -> bool:
        return self._disk is not None and name == self.names[-1] and self._disk.is_full

    def left_behind(self) -> list[str]:
        """Processes of jobs that live, of whatever depth."""
        found = []
        for node in self.nodes.values():
            for process in marked(node.mark):
                if not any(part in process.command for part in ("meeseeks.node", "meeseeks.executor")):
                    found.append(f"{process.pid} {process.command}")
        return found

    def wait_nothing_left(self, timeout: float) -> list[str]:
        """What is left of jobs after some time to leave."""
        try:
            wait_until(lambda: not self.left_behind(), timeout)
        except AssertionError:
            return self.left_behind()
        return []


def _nothing_to_mend(done: Callable[[], None]) -> None:
    done()


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return  # it ended by itself


def _free_ports(count: int) -> list[Ports]:
    return [Ports(*free_ports(2)) for _ in range(count)]
