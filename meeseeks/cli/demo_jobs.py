"""The work of `mks demo`: each job compresses a file of this package, and says the checksum of what it read."""

from __future__ import annotations

import bz2
import hashlib
import lzma
import shutil
import sys
import zlib
from base64 import b64decode
from collections.abc import Callable
from itertools import islice, product
from pathlib import Path
from typing import Any, NamedTuple

import meeseeks

__all__ = ["POOL", "TAG", "Work", "make_work", "problem_with"]

POOL, TAG = "demo", "mks-demo"
JOBS = 120

_DECOMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "lzma": lzma.decompress,
    "bz2": bz2.decompress,
    "zlib": zlib.decompress,
}
# The result gets its name when it is whole: a job that is killed half-way leaves none, and its next run makes it.
_PROGRAM = """
import hashlib, importlib, os, sys
source, result, method = sys.argv[1:]
data = open(source, "rb").read()
with open(result + ".part", "wb") as file:
    file.write(importlib.import_module(method).compress(data))
os.replace(result + ".part", result)
print(hashlib.sha256(data).hexdigest())
"""


class Work(NamedTuple):
    """One job of the demo: what it reads, where it writes, how it compresses."""

    jid: str
    source: Path
    result: Path
    method: str

    def jobspec(self) -> dict[str, Any]:
        """What is submitted. It may be retried: the demo takes a node away while it runs."""
        program = [sys.executable, "-I", "-c", _PROGRAM, str(self.source), str(self.result), self.method]
        return {"id": self.jid, "pool": POOL, "args": program, "tags": [TAG], "retries": 5}


def make_work(folder: Path, count: int = JOBS) -> list[Work]:
    """The demo's jobs: files of the installed package, largest first, each in every method until there are enough.

    They work on copies in `folder`: somebody may edit the package meanwhile.
    """
    package = Path(meeseeks.__file__).parent
    largest = sorted(package.rglob("*.py"), key=lambda path: -path.stat().st_size)
    names = islice(product(largest, _DECOMPRESS), count)
    work = []
    for at, (path, method) in enumerate(names, 1):
        name = "-".join(path.relative_to(package).with_suffix("").parts)
        source = folder / f"{name}.py"
        if not source.exists():
            shutil.copyfile(path, source)
        result = folder / f"{name}.{method}"
        work.append(Work(f"demo-{at:03}-{name}.{method}", source, result, method))
    return work


def problem_with(work: Work, info: dict[str, Any] | None) -> str | None:
    """What is wrong with a job's end, in words; None if its result was checked and is right."""
    if info is None:
        return f"{work.jid} is known no more"
    if info["state"] != "done":
        return f"{work.jid} is {info['state']}: {info['error'] or info.get('reason') or 'rc ' + str(info['rc'])}"
    data = work.source.read_bytes()
    said = b64decode(info["stdout_data"] or "").decode(errors="replace").strip()
    if said != hashlib.sha256(data).hexdigest():
        return f"{work.jid} says checksum {said!r}, which is not that of {work.source.name}"
    try:
        same = _DECOMPRESS[work.method](work.result.read_bytes()) == data
    except (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error) as error:
        return f"{work.jid} left no good result: {error}"
    return None if same else f"{work.jid} left a result that is not {work.source.name}"
