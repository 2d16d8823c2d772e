"""How long a command takes, against a python that does nothing."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

from .place import Place
from .sample import percentile, timed

__all__ = ["startup"]


def startup(place: Place) -> None:
    """`mks --version`, `mks ls` and `mks sub`, as multiples of `python3 -c pass` and of its imports."""
    imports = [name for name in ("zmq", "msgpack") if importlib.util.find_spec(name)]
    if len(imports) < 2:
        place.figures.note("msgpack is not installed: the imports are those of zmq alone")
    bare, with_imports = "python -c pass", f"python -c 'import {', '.join(imports)}'"
    commands = {
        bare: [sys.executable, "-c", "pass"],
        with_imports: [sys.executable, "-c", f"import {', '.join(imports)}"],
        "mks --version": [*place.mks(), "--version"],
        "mks ls": [*place.mks(), "ls"],
        "mks sub": [*place.mks(), "sub", "--hold", "p", "--", "/bin/true"],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    with place.nodes() as (node,):
        env = place.environment(node)
        for i in range(place.many(21, 4)):
            for name, command in commands.items():
                spent = timed(
                    lambda command=command: subprocess.run(
                        command, env=env, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
                    )
                )
                if i:  # the first one compiles, and reads from the disk
                    times[name].append(spent)
    halves = {name: percentile(found, 50) for name, found in times.items()}
    for name, half in halves.items():
        place.figures.add(name, 1000 * half, "ms")
    for name in commands:
        if name.startswith("mks"):
            place.figures.add(f"{name} / python -c pass", halves[name] / halves[bare], "×")
            place.figures.add(f"{name} / imports", halves[name] / halves[with_imports], "×")
