"""Nodes that die and come back under `mks run` and `mks logs -f`: no byte is lost, and none is shown twice."""

from __future__ import annotations

import os
import signal
import subprocess
import threading

import pytest

from tests.chaos.proxy import Ports, Proxy, host
from tests.cli.conftest import TIMEOUT, call
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


def test_a_link_that_is_cut_for_a_while_costs_no_byte(mesh_of):
    """Between mks and its node: first its connections break and none can be made, then it says nothing any more."""
    (a,) = mesh_of(1)
    data = os.urandom(9 * MIB)
    with Proxy([Ports(0, 0), Ports(a.port, a.pub_port)]) as proxy:
        address = ["--address", f"{host(0, 1)}:{a.port}"]
        with start(None, *address, "run", "p", "--", "cat", stdin=subprocess.PIPE) as process:
            for part in range(3):
                piece = data[3 * MIB * part : 3 * MIB * (part + 1)]
                writer = Writer(process.stdin, piece, keep=part < 2)
                if part == 0:
                    reader = Reader(process.stdout, MIB)
                    assert reader.has_enough.wait(TIMEOUT)
                    proxy.sever(0, 1)
                elif part == 1:
                    proxy.mute(1, 0)
                if part < 2:
                    # A new mks may read it as not let in: who takes connections and closes them may mean that.
                    assert call(None, *address, "--timeout", "1", "ls").code in (3, 4)
                    assert len(reader.data) < 3 * MIB * (part + 1)
                    proxy.heal(0, 1)
                writer.join(TIMEOUT)
            assert process.wait(2 * TIMEOUT) == 0
            reader.join(TIMEOUT)
            assert process.stderr.read() == b""
    assert bytes(reader.data) == data


def test_a_node_that_replaces_its_program_costs_no_byte(mesh_of):
    """SIGHUP, as after an upgrade."""
    (a,) = mesh_of(1)
    data = os.urandom(6 * MIB)
    with start(a, "run", "p", "--", "cat", stdin=subprocess.PIPE) as process:
        reader = Reader(process.stdout, MIB)
        first = Writer(process.stdin, data[: 3 * MIB], keep=True)
        assert reader.has_enough.wait(TIMEOUT)
        before = a.lives
        os.kill(a.pid, signal.SIGHUP)
        wait_until(lambda: a.lives != before, TIMEOUT)
        first.join(TIMEOUT)
        Writer(process.stdin, data[3 * MIB :])
        assert process.wait(2 * TIMEOUT) == 0
        reader.join(TIMEOUT)
        assert process.stderr.read() == b""
    assert bytes(reader.data) == data
