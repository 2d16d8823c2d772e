"""dask.distributed, with one worker process of two threads, each of which runs a command."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .way import Sizes, Way, command

__all__ = ["dask"]

_TRUE = (subprocess.call, ["/bin/true"])
_SUBMIT = """
import subprocess
from distributed import Client, fire_and_forget
with Client({!r}) as client:
    fire_and_forget(client.submit(subprocess.call, ["/bin/true"], pure=False, resources={{"none": 1}}))
"""


def _count(dask_scheduler: Any) -> int:
    return len(dask_scheduler.tasks)


@contextmanager
def dask(folder: Path) -> Iterator[Way]:
    """A LocalCluster, its Client, and futures. `submit` answers nothing: the scheduler is asked what it has."""
    import dask as configuration
    from distributed import Client, LocalCluster

    configuration.config.set(temporary_directory=str(folder))
    held: list[Any] = []

    def submit(n: int) -> None:
        # There is no such resource: they wait.
        held.extend(client.submit(*_TRUE, pure=False, resources={"none": 1}) for _ in range(n))
        while client.run_on_scheduler(_count) < n:
            pass

    with LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address=None) as cluster, Client(cluster) as client:
        yield Way(
            Sizes(one=200, many=1500, submits=2000, shell=7),
            one=lambda: client.submit(*_TRUE, pure=False).result(),
            many=lambda n: client.gather([client.submit(*_TRUE, pure=False) for _ in range(n)]),
            submit=submit,
            shell=lambda: command([sys.executable, "-c", _SUBMIT.format(cluster.scheduler_address)]),
        )
        held.clear()
