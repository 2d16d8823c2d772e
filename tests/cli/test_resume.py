"""Nodes that die and come back under `mks run` and `mks logs -f`: no byte is lost, and none is shown twice."""

from __future__ import annotations

import os
import subprocess
import threading

import pytest

from tests.cli.conftest import TIMEOUT
from tests.cli.pipes import Writer, start
from tests.support.wait import wait_until

MIB = 1024 * 1024


class Reader(threading.Thread):
    """Reads a pipe to its end."""

    def __init__(self, pipe, enough: int) -> None:
        super().__init__(daemon=True)
        self._pipe, self._enough = pipe, enough
        self.data = bytearray()
        self.has_enough = threading.Event()
        self.start()

    def run(self) -> None:
        while piece := self._pipe.read1(65536):
            self.data += piece
            if len(self.data) >= self._enough:
                self.has_enough.set()


@pytest.mark.parametrize("victim", ["our own node", "the job's node"])
def test_a_node_that_is_killed_and_comes_back_costs_no_byte(mesh_of, victim):
    a, b = mesh_of(2)
    data = os.urandom(12 * MIB)
    with start(a, "run", "--id", "cat", "p@b", "--", "cat", stdin=subprocess.PIPE) as process:
        reader = Reader(process.stdout, 2 * MIB)
        first = Writer(process.stdin, data[: 6 * MIB], keep=True)
        assert reader.has_enough.wait(TIMEOUT)
        node = a if victim == "our own node" else b
        node.kill()
        node.restart()
        first.join(TIMEOUT)
        writer = Writer(process.stdin, data[6 * MIB :])
        assert process.wait(2 * TIMEOUT) == 0
        writer.join(TIMEOUT)
        reader.join(TIMEOUT)
        assert process.stderr.read() == b""
    assert bytes(reader.data) == data


def test_a_job_whose_node_is_frozen_for_a_while_goes_on(mesh_of, tmp_path):
    a, b = mesh_of(2, **{"state.lost_after": 60})
    go = tmp_path / "go"
    script = f"seq 1000; while ! [ -e {go} ]; do sleep 0.02; done; seq 100000; exit 5"
    expected = "".join(f"{n}\n" for n in [*range(1, 1001), *range(1, 100_001)]).encode()
    with start(a, "run", "--id", "job", "p@b", "--", "sh", "-c", script) as process:
        reader = Reader(process.stdout, 1000)
        assert reader.has_enough.wait(TIMEOUT)
        with start(a, "logs", "-f", "job") as logs, a.client() as client:
            of_logs = Reader(logs.stdout, 1000)
            assert of_logs.has_enough.wait(TIMEOUT)
            b.freeze()
            go.touch()
            wait_until(lambda: not client.nodes()["b"]["online"], TIMEOUT)
            b.thaw()
            assert logs.wait(2 * TIMEOUT) == 0
            of_logs.join(TIMEOUT)
            assert logs.stderr.read() == b""
        assert process.wait(2 * TIMEOUT) == 5
        reader.join(TIMEOUT)
        assert process.stderr.read() == b""
    assert bytes(reader.data) == bytes(of_logs.data) == expected
