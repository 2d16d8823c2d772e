"""Peers are called by their hosts' names: whoever answers for those may be away, and the node goes on."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.nodes import NodeProcess, wait_linked
from tests.support.wait import wait_until


def with_own(*paths: Path) -> list[str]:
    """A command that lets another one find these files in /etc, in place of those of the system."""
    mounts = "".join(f"mount --bind {path} /etc/{path.name} && " for path in paths)
    within = ["unshare", "-m", "sh", "-c", f'{mounts}exec "$@"', "sh"]
    if not shutil.which("unshare") or subprocess.run([*within, "true"], capture_output=True).returncode:
        pytest.skip("no file of the system can be replaced for one process here")
    return within


@pytest.fixture
def mute_dns(tmp_path: Path) -> Iterator[tuple[list[str], socket.socket]]:
    """A command that lets another one find a name server that never answers, and the socket where it asks."""
    (tmp_path / "resolv.conf").write_text("nameserver 127.53.53.53\noptions timeout:30 attempts:2\n")
    within = with_own(tmp_path / "resolv.conf")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        server.bind(("127.53.53.53", 53))
        server.settimeout(10)
        yield within, server


def test_a_name_that_nobody_answers_for_holds_nothing_up(mute_dns: tuple[list[str], socket.socket], tmp_path: Path):
    within, server = mute_dns
    b = NodeProcess(tmp_path, "b")
    names = {"nodes.x.address": "x.example", "nodes.b.address": "localhost", "nodes.b.port": b.config["listen.port"]}
    a = NodeProcess(tmp_path, "a", names, within=within)
    with ExitStack() as stack:
        for node in (b, a):
            stack.callback(node.stop)
            node.start()
        assert b"\x01x\x07example" in server.recv(1000)
        began = time.monotonic()
        with a.client() as client:
            (jid,) = client.submit(pool="p", args=["true"])
            assert client.wait_for([jid], timeout=20)[jid]["state"] == "done"
        wait_linked([a, b])
        assert time.monotonic() - began < 20


def test_a_peer_is_found_at_the_address_that_its_name_gets_later(tmp_path: Path):
    hosts, resolver = tmp_path / "hosts", tmp_path / "resolv.conf"
    hosts.write_text("127.9.9.9 b.example\n")
    resolver.write_text("nameserver 127.53.53.54\n")  # nobody is there, which is told at once
    b = NodeProcess(tmp_path, "b")
    names = {"nodes.b.address": "b.example", "nodes.b.port": b.config["listen.port"]}
    a = NodeProcess(tmp_path, "a", {**names, "nodes.x.address": "no host"}, within=with_own(hosts, resolver))
    with ExitStack() as stack:
        for node in (b, a):
            stack.callback(node.stop)
            node.start()
        wait_until(lambda: "the address of host no host is not known: " in a.stderr, describe=a.report)
        with hosts.open("r+") as file:  # it is never empty, and stays the same file
            file.write("127.0.0.1 b.example\n")
        wait_linked([a, b])
