"""`mks` starts fast. tools/startup measures it; here is what must not come back, and how it ends."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import COMMAND, TIMEOUT, environment

CALLS = [["ls"], ["sub", "--hold", "p", "--", "true"], ["--version"], ["nodes", "--json"]]
SLOW = {"rich", "platformdirs", "asyncio", "dataclasses", "hashlib", "ssl", "tomllib", "encodings.idna"}
SLOW |= {"meeseeks.node", "meeseeks.config", "meeseeks.executor", "meeseeks.cli.demo"}
SLOW |= {"meeseeks.client.cache", "meeseeks.client.replica", "meeseeks.core.table", "meeseeks.core.spec"}
LIMIT = 2.5
ROUNDS, MOST_ROUNDS = 6, 20


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


def test_a_call_takes_at_most_two_and_a_half_times_the_import_of_zmq_and_msgpack(nodes, tmp_path):
    env = {**environment(nodes[0]), "PYTHONPYCACHEPREFIX": str(tmp_path)}  # compiled modules, as after an installation
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    commands = {"import": [sys.executable, "-c", "import zmq, msgpack"]}
    commands |= {" ".join(args): [*COMMAND, *args] for args in CALLS[:3]}
    best = dict.fromkeys(commands, float("inf"))
    ratios: dict[str, float] = {}
    for number in range(MOST_ROUNDS):  # in turn, and the best of each: a loaded machine makes any call long
        for name, command in commands.items():
            before = processor_time()
            subprocess.run(command, env=env, stdout=subprocess.DEVNULL, timeout=TIMEOUT, check=True)
            best[name] = min(best[name], processor_time() - before)
        ratios = {name: took / best["import"] for name, took in best.items()}
        if number + 1 >= ROUNDS and max(ratios.values()) <= LIMIT:
            return
    raise AssertionError(ratios)


def processor_time():
    """Seconds of all children so far. Wall time, which tools/startup measures, says more of who else is at work."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


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
