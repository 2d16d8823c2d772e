"""`mks` starts fast. tools/startup measures it; here is what must not come back, and how it ends."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import COMMAND, TIMEOUT, environment

CALLS = [["ls"], ["sub", "--hold", "p", "--", "true"], ["--version"], ["nodes", "--json"]]
SLOW = {"rich", "platformdirs", "asyncio", "dataclasses", "hashlib", "ssl", "tomllib", "encodings.idna"}
SLOW |= {"meeseeks.node", "meeseeks.config", "meeseeks.executor", "meeseeks.cli.demo"}
SLOW |= {"meeseeks.client.cache", "meeseeks.client.replica", "meeseeks.core.table", "meeseeks.core.spec"}


@pytest.mark.parametrize("args", CALLS, ids=[" ".join(args) for args in CALLS])
def test_a_call_imports_no_more_than_it_needs(nodes, args):
    done = subprocess.run(
        [COMMAND[0], "-X", "importtime", *COMMAND[1:], *args],
        env=environment(nodes[0]),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "meeseeks.cli.main" in loaded
    assert sorted(loaded & SLOW) == []


@pytest.mark.parametrize("args", [["ls"], ["conf", "--explain"], ["--help"]], ids=" ".join)
def test_a_full_disk_under_the_output_is_told(nodes, args):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*COMMAND, *args, "--json"] if args != ["--help"] else [*COMMAND, *args],
            env=environment(nodes[0]),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert os.strerror(28) in done.stderr
