"""What a mesh of ten costs each of its nodes: at rest, and for jobs that are none of its business."""

from __future__ import annotations

from meeseeks import Client

from .idle import idle_cpu
from .place import CALM_S, Place, true_job
from .sample import cpu_s, percentile, rss_mb

__all__ = ["ten"]

NODES = 10


def ten(place: Place) -> None:
    """Ten nodes, one that jobs are submitted to, one that runs them: what a job costs each of the eight others."""
    count = place.many(NODES, 4)
    names = [chr(ord("a") + i) for i in range(count)]
    without = {name: {"pools.p.slots": None} for name in names if name != "b"}
    with place.nodes(count, per_node=without) as nodes, place.push_client(nodes[0]) as client:
        _run(client, place.many(200, 20))
        place.figures.add("cpu of each when idle", idle_cpu(nodes, place.many(10, 1)) / count, "% of a core")
        n = place.many(3000, 50)
        before = [cpu_s([node.pid]) for node in nodes]
        _run(client, n)
        spent = [1e6 * (cpu_s([node.pid]) - was) / n for node, was in zip(nodes, before, strict=True)]
        others = spent[2:]
        place.figures.add("cpu of the node that takes the jobs, a job", spent[0], "µs")
        place.figures.add("cpu of the node that runs them, a job", spent[1], "µs")
        place.figures.add("cpu of each other node, a job, p50", percentile(others, 50), "µs")
        place.figures.add("cpu of each other node, a job, at most", max(others), "µs")
        place.figures.add("rss of a node, p50", percentile([rss_mb(node.pid) for node in nodes], 50), "MB")


def _run(client: Client, n: int) -> None:
    client.wait_for(list(client.submit_many([true_job()] * n)), 10 * CALM_S)
