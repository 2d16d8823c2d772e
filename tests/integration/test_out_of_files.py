"""A node that can't open one file more: it lives, lets in who was let in, and goes on when there are files again."""

from __future__ import annotations

import os
import resource
import signal
import time
from itertools import count
from pathlib import Path

from meeseeks.wire.curve import make_client_key
from tests.support.curve import mesh_key
from tests.support.nodes import NodeProcess, mesh
from tests.support.wait import wait_until

LOOKS_S = 2.5
"""Some looks at the folder of keys, and attempts to start an executor, fall into this time."""


def test_a_node_lives_through_a_time_without_files(tmp_path: Path):
    authorized = tmp_path / "authorized"
    authorized.mkdir()
    with mesh(tmp_path, 1, **{"security.authorized": authorized}) as (node,):
        card = make_client_key(tmp_path / "key", mesh_key().server, "submit")
        card.rename(authorized / card.name)
        with node.client(security={"key": tmp_path / "key"}, timeout=20) as client:
            assert client.ls() == []
            limits = resource.prlimit(node.pid, resource.RLIMIT_NOFILE)
            take_files(node)
            os.kill(node.executor_pid(), signal.SIGKILL)
            wait_until(lambda: "the executor died" in node.stderr, 20, node.report)
            take_files(node)  # also what was its own
            (authorized / "other.pub").write_text("this has to be read again")
            wait_until(lambda: "can't start an executor now: Too many open files" in node.stderr, 20, node.report)
            until = time.monotonic() + LOOKS_S
            while time.monotonic() < until:
                assert client.nodes()["a"]["state"] == "online"
            client.submit(id="meanwhile", pool="p", args=["echo", "on"])
            resource.prlimit(node.pid, resource.RLIMIT_NOFILE, limits)
            assert client.wait_for("meanwhile", 20)["meanwhile"]["state"] == "done"
        assert node.stderr.count("can't start an executor") == 1


def test_a_folder_of_keys_that_cannot_be_read_lets_nobody_in_and_harms_nobody(tmp_path: Path):
    authorized = tmp_path / "authorized"
    authorized.write_text("this is no folder")
    with mesh(tmp_path, 1, **{"security.authorized": authorized}) as (node,), node.client() as client:
        assert client.ls() == []
        assert node.stderr.count(f"nobody is let in by {authorized}: Not a directory") == 1


def take_files(node: NodeProcess) -> None:
    """Let it have no more of them: the number that the next one would get becomes the limit."""
    used = {int(name) for name in os.listdir(f"/proc/{node.pid}/fd")}
    limit = next(number for number in count() if number not in used)
    resource.prlimit(node.pid, resource.RLIMIT_NOFILE, (limit, resource.prlimit(node.pid, resource.RLIMIT_NOFILE)[1]))
