"""A submit whose answer is swallowed on its way: tried again by the same Client, it is the same job, and runs once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from meeseeks import Client, NodeUnreachable, RequestTimeout
from tests.chaos.proxy import Ports, Proxy, host
from tests.support.nodes import NodeProcess, mesh
from tests.support.ports import free_ports
from tests.support.wait import wait_until

CLIENT, NODE = 0, 1
ROUNDS = 5


class Line(NamedTuple):
    node: NodeProcess
    proxy: Proxy
    client: Client
    marks: Path


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    """A node, and a Client that reaches it through a proxy only."""
    with mesh(tmp_path, 1, **{"pools.p.slots": 4}) as (node,):
        with Proxy([Ports(*free_ports(2)), Ports(node.port, node.pub_port)]) as proxy:
            with Client(host(CLIENT, NODE), node.port, timeout=20) as client:
                client.nodes()
                client._channel.timeout = 0.7
                yield Line(node, proxy, client, tmp_path / "marks")


def ran(line: Line, jobs: list[str]) -> Counter[str]:
    with line.node.client() as direct:
        ended = direct.wait_for(jobs, 60)
    assert {(info["state"], info["start_count"]) for info in ended.values()} == {("done", 1)}
    return Counter(line.marks.read_text().split())


@pytest.mark.parametrize("then", ["heard again", "cut", "killed"])
def test_a_submit_that_is_tried_again_after_a_timeout_runs_once(line: Line, then: str) -> None:
    args = ["sh", "-c", f"echo $MEESEEKS_JOB_ID >> {line.marks}"]
    jobs = [f"{number}" for number in range(ROUNDS)]
    with line.node.client() as direct:
        for job in jobs:
            line.proxy.mute(NODE, CLIENT)
            with pytest.raises(RequestTimeout):
                line.client.submit(id=job, pool="p", args=args)
            wait_until(lambda job=job: direct.query(job), 20, "the submit to arrive")
            if then == "cut":
                line.proxy.sever(NODE, CLIENT)
            elif then == "killed":
                line.node.kill()
                line.node.restart()
            line.proxy.heal(NODE, CLIENT)
            info = wait_until(lambda job=job: tried_again(line.client, job, args), 30)
            assert info["id"] == job
    assert ran(line, jobs) == Counter(jobs)


def tried_again(client: Client, job: str, args: list[str]) -> dict:
    try:
        return client.submit(id=job, pool="p", args=args)[job]
    except (NodeUnreachable, RequestTimeout):
        return {}


def test_a_cached_client_sends_what_was_swallowed_again_by_itself(line: Line) -> None:
    args = ["sh", "-c", f"echo $MEESEEKS_JOB_ID >> {line.marks}"]
    jobs: list[str] = []
    with (
        Client(host(CLIENT, NODE), line.node.port, timeout=20, refresh=0.1, poll=0.5) as cached,
        line.node.client() as direct,
    ):
        cached.wait()
        cached._channel.timeout = 0.7
        for _ in range(ROUNDS):
            line.proxy.mute(NODE, CLIENT)
            (job,) = cached.submit_job(pool="p", args=args)
            jobs.append(job)
            wait_until(lambda job=job: direct.query(job), 20, "the submit to arrive")
            line.proxy.sever(NODE, CLIENT)
            line.proxy.heal(NODE, CLIENT)
            assert cached.wait_for(job, 30)[job]["state"] == "done"
    assert ran(line, jobs) == Counter(jobs)
