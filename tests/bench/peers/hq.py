"""HyperQueue by its Python package, which brings server and worker, but no `hq` command."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .way import Sizes, Way, command

__all__ = ["hyperqueue"]

_SUBMIT = """
from hyperqueue import Client, Job
job = Job()
job.program(["/bin/true"])
Client({!r}).submit(job)
"""


@contextmanager
def hyperqueue(folder: Path) -> Iterator[Way]:
    """A local cluster with a worker of two cores, without a journal.

    Its own `wait_for_jobs` asks once a second. So the end of a job is seen by the FIFO that it has for its stdout.
    """
    import hyperqueue as hq
    from hyperqueue.cluster import LocalCluster, WorkerConfig
    from hyperqueue.ffi.protocol import ResourceRequest

    os.chdir(folder)  # where output goes
    os.environ["TQDM_DISABLE"] = "1"
    told = folder / "told"
    os.mkfifo(told)

    def job(**options: Any) -> Any:
        found = hq.Job()
        found.program(["/bin/true"], **options)
        return found

    def one() -> None:
        client.submit(job(stdout=str(told)))
        told.read_bytes()

    def many(n: int) -> None:
        found = hq.Job()
        tasks = [found.program(["/bin/true"]) for _ in range(n - 1)]
        found.program(["/bin/true"], stdout=str(told), deps=tasks)
        client.submit(found)
        told.read_bytes()

    def submit(n: int) -> None:
        for _ in range(n):
            client.submit(job(resources=ResourceRequest(cpus=1000)))  # more than there are: they wait

    server = folder / "server"
    server.mkdir()
    with LocalCluster(server_dir=str(server), worker_config=WorkerConfig(cores=2)) as cluster:
        client = cluster.client()
        yield Way(
            Sizes(one=100, many=2000, submits=2000, shell=10),
            one=one,
            many=many,
            submit=submit,
            shell=lambda: command([sys.executable, "-c", _SUBMIT.format(str(server))]),
            others={"its own wait": (lambda: client.wait_for_jobs([client.submit(job())]), 3)},
        )
