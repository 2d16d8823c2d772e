"""A submit node that never comes back: its jobs wait, say why, and go on once another node has adopted them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from meeseeks import Client
from meeseeks.errors import InvalidRequest
from tests.support.nodes import NodeProcess
from tests.support.wait import wait_until

MeshOf = Callable[..., list[NodeProcess]]


def adopted_by(client: Client, name: str) -> dict[str, Any]:
    """Nothing while the node may be alive."""
    try:
        return client.request({"adopt": name})["adopt"]
    except InvalidRequest as refused:
        assert "may be alive" in str(refused)
        return {}


def test_the_jobs_of_a_dead_node_wait_until_they_are_adopted(mesh_of: MeshOf) -> None:
    a, b, dead = mesh_of(3, **{"state.timeout": 2, "state.lost_after": 6, "heartbeat": 0.3})
    with dead.client() as client:
        client.submit(id="waits", pool="p", node="a", args=["sh", "-c", "sleep 1000"])
        client.submit(id="line", pool="later", args=["true"])
    with a.client() as client, b.client() as other:
        wait_until(lambda: other.query("line") and other.query("waits")["state"] == "running", 10, "both jobs heard of")
        with pytest.raises(InvalidRequest, match="may be alive"):
            client.request({"adopt": "c"})
        dead.kill()
        wait_until(lambda: not client.nodes()["c"]["online"], 10, "c is offline")
        client.request({"config": {"pools": {"p": {"slots": 2}, "later": {"slots": 1}}}})
        assert "submit node 'c'" in client.query("line")["reason"]
        adopted = wait_until(lambda: adopted_by(client, "c"), 20, "c to be adopted")
        assert set(adopted) == {"waits", "line"}
        assert {info["submit_node"] for info in adopted.values()} == {"a"}
        assert other.wait_for(["line"], timeout=15)["line"]["state"] == "done"
        assert other.query("waits")["state"] == "running"
        assert other.query("waits")["start_count"] == 1
