"""`mks` as its users call it: a process with pipes or a terminal, against real nodes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import pytest

import meeseeks
from tests.support import prefork
from tests.support.nodes import NodeProcess, mesh

ROOT = Path(meeseeks.__file__).parent.parent
COMMAND = [sys.executable, "-m", "meeseeks.cli"]
TIMEOUT = 30.0


class Answer(NamedTuple):
    """How a call of `mks` ended."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[list[str]]:
        return [line.split("\t") for line in self.out.splitlines()]

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def environment(node: NodeProcess | None = None) -> dict[str, str]:
    """Of a call: it imports this checkout, and finds the node."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    conf = {} if node is None else {"MEESEEKS_CONF": f"address={node.address} port={node.port}"}
    return {**os.environ, "PYTHONPATH": path, **conf}


def call(node: NodeProcess | None, *args: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> Answer:
    """Run `mks args` to its end, in a process of its own that has not to import everything first: see prefork.py."""
    environs = {**environment(node), **(env or {})}
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = prefork.start("meeseeks.cli", args, environs, cwd or Path.cwd(), out.fileno(), err.fileno())
        try:
            code = process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        return Answer(code, _all_of(out), _all_of(err))


def _all_of(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[NodeProcess]]:
    """Two linked nodes a and b with pool p; b alone has pool q."""
    only_b = {"b": {"pools.q.slots": 1}}
    with mesh(tmp_path_factory.mktemp("cli"), 2, per_node=only_b, **{"pools.p.grace": 1}) as started:
        yield started


@pytest.fixture
def mks(nodes: list[NodeProcess]) -> Callable[..., Answer]:
    """`mks("ls", "state=new")` asks node a."""

    def run(*args: str, **options: Any) -> Answer:
        return call(nodes[0], *args, **options)

    return run


@pytest.fixture
def good(mks: Callable[..., Answer]) -> Callable[..., Answer]:
    """The same for a call that must end with 0 and say nothing on stderr."""

    def run(*args: str, **options: Any) -> Answer:
        answer = mks(*args, **options)
        assert (answer.code, answer.err) == (0, ""), answer
        return answer

    return run
