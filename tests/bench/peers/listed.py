"""All peers by name, and meeseeks beside them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

from tests.bench.latency import through_cache
from tests.bench.place import CALM_S, Place, true_job
from tests.support.nodes import NodeProcess

from .commands import gnu_parallel, task_spooler
from .slurm import slurm
from .way import Missing, Sizes, Way, command, measure, need

__all__ = ["OURS", "PEERS", "PYTHON", "peers"]

OURS = "meeseeks"
PYTHON = "BENCH_PEERS_PYTHON"
"""The variable that names a Python which has the peers from PyPI (`tools/bench --peers-python`)."""
_SCRIPT = Path(__file__).parent / "python.py"
_IN_PYTHON_WITHIN_S = 600.0


def peers(place: Place) -> None:
    """Latency, throughput, submits and shell submit of meeseeks and of those of its peers that are installed."""
    folder = place.folder / "peer"
    folder.mkdir()
    try:
        PEERS[place.peer or OURS](place, folder)
    except Missing as missing:
        place.figures.note(f"{place.peer} is left out: {missing}")


@contextmanager
def _ours(place: Place) -> Iterator[Way]:
    """One node with two slots as users have it, and a Client with a cache."""
    held = true_job(hold=True)
    with place.nodes() as (node,), place.push_client(node) as client:

        def submit(n: int) -> None:
            for _ in range(n):
                client.submit_job(**held)
            client.wait()

        yield Way(
            Sizes(one=300, many=3000, submits=5000, shell=15),
            one=lambda: through_cache(client),
            many=lambda n: client.wait_for(list(client.submit_many([true_job()] * n)), 10 * CALM_S),
            submit=submit,
            shell=_mks_sub(place, node),
        )


def _mks_sub(place: Place, node: NodeProcess) -> Callable[[], object]:
    args, env = [*place.mks(), "sub", "--hold", "p", "--", "/bin/true"], place.environment(node)
    return lambda: command(args, env)


def _measure_ours(place: Place, _: Path) -> None:
    with _ours(place) as way:
        measure(place.figures, way, quick=place.quick)


def _measure_command(way_in: Callable[[Path], AbstractContextManager[Way]], place: Place, folder: Path) -> None:
    with way_in(folder) as way:
        measure(place.figures, way, quick=place.quick)


def _measure_in_python(module: str, package: str, peer: str, place: Place, folder: Path) -> None:
    python = os.environ.get(PYTHON) or sys.executable
    has_it = subprocess.run([python, "-c", f"import {module}"], capture_output=True, check=False).returncode == 0
    need(has_it, f"pip install '{package}' in a venv, and --peers-python VENV/bin/python")
    quick = "quick" if place.quick else ""
    ended = subprocess.run(
        [python, str(_SCRIPT), peer, str(folder), quick], capture_output=True, text=True, timeout=_IN_PYTHON_WITHIN_S
    )
    assert ended.returncode == 0, ended.stderr
    for name, (value, unit) in json.loads(ended.stdout.splitlines()[-1]).items():
        place.figures.add(name, value, unit)


PEERS: Mapping[str, Callable[[Place, Path], None]] = {
    OURS: _measure_ours,
    "task-spooler": partial(_measure_command, task_spooler),
    "GNU parallel": partial(_measure_command, gnu_parallel),
    "HyperQueue": partial(_measure_in_python, "hyperqueue", "hyperqueue", "HyperQueue"),
    "dask": partial(_measure_in_python, "distributed", "dask[distributed]", "dask"),
    "Slurm": partial(_measure_command, slurm),
}
