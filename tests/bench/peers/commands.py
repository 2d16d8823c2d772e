"""Peers that are commands and need nothing beside them: task-spooler and GNU parallel."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.processes import having
from tests.support.wait import wait_until

from .way import Sizes, Way, command, need

__all__ = ["gnu_parallel", "task_spooler"]

_LEAVE_S = 20.0


@contextmanager
def task_spooler(folder: Path) -> Iterator[Way]:
    """`tsp` with two slots; its server is started by the first command, and keeps output in files as by default."""
    need(shutil.which("tsp"), "apt-get install task-spooler")
    env = {**os.environ, "TS_SOCKET": str(folder / "socket"), "TMPDIR": str(folder), "TS_MAXFINISHED": "100000"}

    def ask(*args: str) -> str:
        return subprocess.run(["tsp", *args], env=env, check=True, capture_output=True, text=True).stdout.strip()

    def many(n: int) -> None:
        for _ in range(n - 2):
            command(["tsp", "/bin/true"], env)
        for jid in [ask("/bin/true"), ask("/bin/true")]:  # the last two may end in either order
            ask("-w", jid)

    def submit(n: int) -> None:
        blockers = [ask("sleep", "1000"), ask("sleep", "1000")]
        for _ in range(n):
            command(["tsp", "/bin/true"], env)
        held.extend(map(int, (ask("-p", jid) for jid in blockers)))

    held: list[int] = []
    ask("-S", "2")
    try:
        yield Way(
            Sizes(one=200, many=500, submits=300, shell=20),
            one=lambda: command(["tsp", "-f", "/bin/true"], env),
            many=many,
            submit=submit,
            shell=lambda: command(["tsp", "/bin/true"], env),
        )
    finally:
        ask("-K")
        for pid in held:  # what it runs outlives it
            os.kill(pid, signal.SIGTERM)
        # Each job that waits has a process, which writes into the folder when it learns that there is no server.
        wait_until(lambda: not having("TS_SOCKET", env["TS_SOCKET"]), _LEAVE_S, "an end of task-spooler")


@contextmanager
def gnu_parallel(folder: Path) -> Iterator[Way]:
    """`parallel -j2` over lines of a file. It is the batch itself: nothing to submit to."""
    need(shutil.which("parallel"), "apt-get install parallel")
    env = {**os.environ, "PARALLEL_HOME": str(folder), "TMPDIR": str(folder)}

    def many(n: int) -> None:
        lines = folder / f"{n}.txt"
        lines.write_text("/bin/true\n" * n)
        command(["parallel", "--will-cite", "-j2", "-a", str(lines)], env)

    yield Way(Sizes(one=10, many=500), one=lambda: many(1), many=many)
