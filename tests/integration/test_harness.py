"""The tests' own nodes: meshes of each shape, and what a kill, a freeze and a restart do to them."""

from __future__ import annotations

import re

import pytest

from tests.support.nodes import NodeProcess, mesh, wait_linked
from tests.support.processes import is_running, marked
from tests.support.wait import wait_until


def links_of(node: NodeProcess) -> set[str]:
    return set(re.findall(r"linked to node (\w+) at", node.stderr))


@pytest.mark.parametrize("shape", ["full", "line", "cycle"])
def test_a_mesh_of_each_shape_sees_itself_whole(mesh_of, shape):
    nodes = mesh_of(3, shape=shape)
    assert [node.name for node in nodes] == ["a", "b", "c"]
    # Who is seen says nothing of the way; the log does.
    linked = {"a": "bc", "b": "ac", "c": "ab"} if shape != "line" else {"a": "b", "b": "ac", "c": "b"}
    for node in nodes:
        wait_until(lambda node=node: links_of(node) == set(linked[node.name]), describe=f"the links of {node.name}")
    for node in nodes:
        with node.client() as client:
            known = client.nodes()
            assert sorted(known) == ["a", "b", "c"]
            assert all(status["online"] for status in known.values())


def test_a_killed_node_leaves_its_executor_which_is_swept(tmp_path):
    with mesh(tmp_path, 1, **{"pools.p.slots": 1}) as (node,):
        executor = node.executor_pid()
        node.kill()
        assert not node.running
        assert is_running(executor) or marked(node.mark) == []
    assert marked(node.mark) == []


def test_a_restart_keeps_the_ports(mesh_of):
    a, b = mesh_of(2)
    ports = (b.port, b.pub_port)
    b.stop()
    with a.client() as client:
        wait_until(lambda: not client.nodes()["b"]["online"], describe="a to see that b is gone")
    b.restart()
    assert (b.port, b.pub_port) == ports
    wait_linked([a, b])


def test_a_frozen_node_goes_offline_and_comes_back(mesh_of):
    a, b = mesh_of(2)
    b.freeze()
    with a.client() as client:
        wait_until(lambda: not client.nodes()["b"]["online"], describe="a to see that b is mute")
    b.thaw()
    wait_linked([a, b])


def test_a_node_that_does_not_start_says_why(tmp_path):
    node = NodeProcess(tmp_path, "a", {"pools.p.slots": "many"})
    with pytest.raises(AssertionError) as failure:
        node.start()
    assert "ended with 2" in str(failure.value)
    assert "pools.p.slots must be a whole number" in str(failure.value)
