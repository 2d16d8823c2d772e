"""Measures a peer that is a Python package, with the Python that has it: `python.py PEER FOLDER QUICK` prints JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent.parent.parent


def main(peer: str, folder: str, quick: str) -> None:
    """Print the figures as the last line."""
    sys.path[:1] = [str(HERE)]  # in place of the folder of this script
    from tests.bench.peers.dasks import dask
    from tests.bench.peers.hq import hyperqueue
    from tests.bench.peers.way import measure
    from tests.bench.sample import Figures

    figures = Figures()
    with {"HyperQueue": hyperqueue, "dask": dask}[peer](Path(folder)) as way:
        measure(figures, way, quick=quick == "quick")
    print(json.dumps({name: [figure.value, figure.unit] for name, figure in figures.found.items()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
