"""One case, once, in a process of its own, with the meeseeks of any revision: `worker.py ROOT OPTIONS` prints JSON.

Or, for a case, one of the programs that it needs beside it.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent.parent.parent
"""The checkout of this file: its cases measure the package of ROOT, which may be another one."""


def main(root: str, options: str) -> None:
    """Import the package from `root` and all else from here, measure, and print the figures."""
    sys.path[:1] = [root]  # in place of the folder of this script
    import meeseeks

    assert Path(meeseeks.__file__).parent.parent == Path(root).resolve(), f"meeseeks came from {meeseeks.__file__}"
    sys.path.insert(0, str(HERE))
    given = json.loads(options)
    if "program" in given:
        from tests.bench import programs

        programs.main(**given)
    else:
        print(json.dumps(_measure(**given)))


def _measure(case: str, quick: bool, jobs: int | None, peer: str = "") -> dict[str, Any]:
    for name in [name for name in os.environ if name.startswith("MEESEEKS_")]:
        del os.environ[name]
    from tests.bench.cases import CASES  # which marks the processes of this one in its environment
    from tests.bench.place import Place

    with tempfile.TemporaryDirectory(prefix="meeseeks-bench-") as folder:
        os.environ["XDG_CONFIG_HOME"] = os.environ["XDG_STATE_HOME"] = folder  # a mesh key of its own
        work = Path(folder) / "work"
        work.mkdir()
        place = Place(work, quick, peer, jobs)
        CASES[case](place)
    figures = {name: [figure.value, figure.unit] for name, figure in place.figures.found.items()}
    return {"figures": figures, "notes": place.figures.notes, "series": place.figures.series}


if __name__ == "__main__":
    main(*sys.argv[1:])
