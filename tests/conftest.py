"""What holds for every test: a clean environment, and nothing that outlives it: no process, no thread."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.support import prefork
from tests.support.nodes import NodeProcess, live_nodes, mesh
from tests.support.processes import Found, kill_all, marked
from tests.support.wait import wait_until

ROOT = Path(__file__).absolute().parent.parent
_LEAVE_S = 3.0
"""How long a process or thread that is on its way out may take."""


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # So a shell without job control starts what is in the background; what we start would ignore Ctrl-C as well.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Two cores, and other tests beside this one: how long an example takes says nothing.
hypothesis.settings.register_profile("suite", deadline=None)
hypothesis.settings.load_profile("suite")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """A failed test shows what its nodes have logged."""
    report = yield
    if report.failed:
        report.sections += [(f"node {node.name}", node.report()) for node in live_nodes().values()]
    return report


@pytest.fixture(scope="session", autouse=True)
def clean_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing of the developer's own configuration or state reaches a test, nor the other way round."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("MEESEEKS_") and "_TEST_" not in name]:
            patch.delenv(name)
        home = tmp_path_factory.mktemp("home")
        for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR", "XDG_CACHE_HOME"):
            patch.setenv(name, str(home))
        yield


@pytest.fixture(scope="session", autouse=True)
def compiled_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Where Python may not keep what it compiles beside the sources, as in many containers, it is kept for the session.

    Each node, executor and `mks` would compile the package again: an eighth of the CPU of the suite, as measured.
    """
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # which all workers share
    with pytest.MonkeyPatch.context() as patch:
        if os.environ.get("PYTHONDONTWRITEBYTECODE"):
            patch.delenv("PYTHONDONTWRITEBYTECODE")
            patch.setenv("PYTHONPYCACHEPREFIX", str(folder / "compiled"))
        yield


@pytest.fixture(scope="session", autouse=True)
def preforked(clean_environment: None, compiled_once: None) -> Iterator[None]:
    """Before the first test, so that none takes it for its own leak: what nodes and calls of `mks` are forked from."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    with prefork.running({**os.environ, "PYTHONPATH": path}):
        yield


@pytest.fixture(autouse=True)
def nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves processes or threads behind. A node of a wider fixture, and its jobs, may stay."""
    before_pids = {process.pid for process in marked()}
    before_threads = set(threading.enumerate())
    yield
    leaks: list[Found] = []

    def no_process() -> bool:
        leaks[:] = [p for p in marked() if p.pid not in before_pids and p.node not in live_nodes()]
        return not leaks

    def no_thread() -> bool:
        return not set(threading.enumerate()) - before_threads

    try:
        wait_until(no_process, _LEAVE_S, lambda: f"an end of the processes that the test left: {leaks}")
        wait_until(no_thread, _LEAVE_S, lambda: f"an end of the threads: {set(threading.enumerate()) - before_threads}")
    finally:
        kill_all(leaks)


@pytest.fixture
def mesh_of(tmp_path: Path, nothing_left: None) -> Iterator[Callable[..., list[NodeProcess]]]:
    """`mesh_of(3, shape="line", **{"pools.p.slots": 4})` gives started and linked nodes; stopped when the test ends."""
    with ExitStack() as stack:
        started = 0

        def start(n: int, **options: object) -> list[NodeProcess]:
            nonlocal started
            started += 1
            return stack.enter_context(mesh(tmp_path / f"mesh{started}", n, **options))  # type: ignore[arg-type]

        yield start
