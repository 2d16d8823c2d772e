"""What is measured: this checkout as it stands, or another revision in a folder and a venv of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

__all__ = ["HERE", "Revision", "other", "this"]

HERE = Path(__file__).resolve().parent.parent.parent


class Revision(NamedTuple):
    """A version of the package: where it is, and the Python that has what it needs."""

    label: str
    commit: str
    root: Path
    python: str


def this() -> Revision:
    """This checkout, whatever was changed in it, with the Python that runs this."""
    commit = _git("rev-parse", "HEAD")
    if commit and _git("status", "--porcelain", "--", "meeseeks"):
        commit += " and changes that are not committed"
    return Revision("this", commit or "no git", HERE, sys.executable)


def other(name: str) -> Revision:
    """A copy of the revision that git knows by this name. It is kept, by its commit, for the next time."""
    commit = _git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
    if not commit:
        raise SystemExit(f"tools/bench: git knows no revision {name!r} here")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    root = cache / "meeseeks-bench" / commit
    python = root / ".venv" / "bin" / "python"
    ready = root / ".ready"
    if not ready.exists():
        print(f"making a venv for {name} in {root}", file=sys.stderr, flush=True)
        root.mkdir(parents=True, exist_ok=True)
        archive = subprocess.run(["git", "-C", HERE, "archive", commit], check=True, stdout=subprocess.PIPE).stdout
        subprocess.run(["tar", "-x", "-C", root], check=True, input=archive)
        subprocess.run([sys.executable, "-m", "venv", root / ".venv"], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "-e", ".", "msgpack"], check=True, cwd=root)
        ready.touch()
    return Revision(name, commit, root, str(python))


def _git(*args: str) -> str:
    try:
        found = subprocess.run(["git", "-C", HERE, *args], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return found.stdout.strip() if found.returncode == 0 else ""
