"""What a node costs that has nothing to do."""

from __future__ import annotations

import time
from collections.abc import Sequence

from tests.support.nodes import NodeProcess

from .place import Place
from .sample import cpu_s, pss_mb, rss_mb

__all__ = ["idle", "idle_cpu"]


def idle(place: Place) -> None:
    """CPU and memory of a node with its executor: alone, and in a mesh of three with a push client each."""
    span = place.many(15, 2)
    with place.nodes() as (node,):
        pids = [node.pid, node.executor_pid()]
        add = place.figures.add
        add("cpu of node and executor", idle_cpu([node], span), "% of a core")
        add("rss of node and executor", rss_mb(*pids), "MB")
        add("rss of node", rss_mb(pids[0]), "MB")
        add("rss of executor", rss_mb(pids[1]), "MB")
        add("pss of node and executor", pss_mb(*pids), "MB")
    with place.nodes(3) as nodes:
        clients = [place.push_client(node) for node in nodes]
        for client in clients:
            client.wait()
        place.figures.add("cpu of each of 3 in a mesh", idle_cpu(nodes, span) / len(nodes), "% of a core")
        for client in clients:
            client.close()


def idle_cpu(nodes: Sequence[NodeProcess], span_s: float) -> float:
    """The CPU that nodes and their executors use in so many seconds, in percent of a core, once at rest."""
    time.sleep(min(2.0, span_s))
    pids = [pid for node in nodes for pid in (node.pid, node.executor_pid())]
    before, begun_at = cpu_s(pids), time.perf_counter()
    time.sleep(span_s)
    return 100 * (cpu_s(pids) - before) / (time.perf_counter() - begun_at)
