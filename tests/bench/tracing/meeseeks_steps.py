"""Notes when a process has come to each step of a job: a line a step, with the machine's monotonic clock, in a file.

Nothing of meeseeks knows of it: its methods are wrapped once their module is loaded. A note takes some 3 us.
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.util
import os
import sys
import time
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = ["STEPS", "install_when_loaded", "note", "wrap"]

STEPS: list[tuple[str, str, str, str]] = [
    # (module, what in it, whether its begin or its end counts, the step)
    ("meeseeks.client.link", "Link.send", "end", "the client has sent it"),
    ("meeseeks.node.node", "Node._on_request", "begin", "the node has read it"),
    ("meeseeks.node.durability", "Durability.save_asked", "end", "the node has checked and stored it"),
    ("meeseeks.executor.handle", "ExecutorHandle.send", "end", "the node has decided, the order is out"),
    ("meeseeks.executor.executor", "Executor.turn", "begin", "the executor has read it"),
    ("meeseeks.executor.executor", "spawn", "end", "there is a process"),
    ("meeseeks.executor.executor", "Executor._finish", "begin", "it has ended, and the executor knows"),
    ("meeseeks.executor.loop", "Loop._tell", "end", "the executor has told it"),
    ("meeseeks.core.node_state", "NodeState.on_executor", "begin", "the node has read that"),
    ("meeseeks.node.durability", "Durability.save", "end", "the node has decided and stored"),
    ("meeseeks.node.node", "Node._broadcast", "end", "the node has broadcast it"),
    ("meeseeks.client.replica", "Replica.on_update", "begin", "the client has read it"),
]
"""In the order in which a job comes to them."""


@functools.cache
def _file() -> int:
    return os.open(os.environ["MEESEEKS_STEPS"], os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


def note(step: str) -> None:
    """This process has come to a step."""
    os.write(_file(), f"{time.clock_gettime_ns(time.CLOCK_MONOTONIC)} {step}\n".encode())


def wrap(module: ModuleType) -> None:
    """Have the steps of a module noted."""
    for name, path, when, step in STEPS:
        if name == module.__name__:
            holder: Any = module
            *owners, attribute = path.split(".")
            for owner in owners:
                holder = getattr(holder, owner)
            setattr(holder, attribute, _noting(getattr(holder, attribute), when, step))


def _noting(call: Callable[..., Any], when: str, step: str) -> Callable[..., Any]:
    @functools.wraps(call)
    def noting(*args: Any, **options: Any) -> Any:
        if when == "begin":
            note(step)
            return call(*args, **options)
        try:
            return call(*args, **options)
        finally:
            note(step)

    return noting


def install_when_loaded() -> None:
    """Wrap each module of STEPS when it is imported."""
    sys.meta_path.insert(0, _Finder())


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self) -> None:
        self._waited_for = {step[0] for step in STEPS}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self._waited_for:
            return None
        self._waited_for.remove(fullname)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                load(module)
                wrap(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec
