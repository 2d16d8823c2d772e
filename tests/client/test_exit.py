"""A script that ends without closing its Client."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support.ports import free_port

SCRIPT = "from meeseeks import Job; print(Job('true', pool='p', id='gone').start())"


def test_a_script_that_ends_says_which_of_its_jobs_no_node_took():
    environment = {**os.environ, "MEESEEKS_CONF": f"port={free_port()} timeout=0.5"}
    command = [sys.executable, "-c", SCRIPT]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert (ended.returncode, ended.stdout) == (0, "gone\n")
    (line,) = ended.stderr.splitlines()
    assert line.startswith("closed with 1 jobs whose submits or kills ")
    assert line.endswith("did not acknowledge within 0.5 s: gone")


@pytest.mark.parametrize("refresh", [0, 1])
def test_a_script_that_ends_before_its_jobs_says_that_nobody_is_notified(mesh_of, refresh):
    (node,) = mesh_of(1)
    script = (
        "from meeseeks import Client, Job\n"
        f"client = Client('127.0.0.1', {node.port}, refresh={refresh})\n"
        "Job('sleep', '60', pool='p', id='long', client=client, notify=print).start()\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False)
    assert (ended.returncode, ended.stdout) == (0, "")
    assert ended.stderr == "this process ends before job long is over: nobody is notified\n"
