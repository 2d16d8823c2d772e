"""How many jobs a second: those that run, and those that are only taken."""

from __future__ import annotations

import time
from typing import Any

from meeseeks import Client
from tests.support.nodes import NodeProcess

from . import limit
from .latency import LINE
from .place import Place, true_job
from .sample import Figures, cpu_s, percentile, timed

__all__ = ["line", "run_many", "submit", "throughput"]

_END_WITHIN_S = 600.0


def throughput(place: Place) -> None:
    """One node, two slots: from the call of `submit_many` until its client has seen the last end."""
    with place.nodes() as (node,), place.push_client(node) as client:
        _compare(place, client, [node])


def line(place: Place) -> None:
    """A line a–b–c: the client at a, two slots at c."""
    with place.nodes(3, **LINE) as nodes, place.push_client(nodes[0]) as client:
        _compare(place, client, nodes)


def _compare(place: Place, client: Client, nodes: list[NodeProcess]) -> None:
    n = place.many(4000, 100)
    run_many(client, n // 10, Figures())  # warm
    pids = {"node": [node.pid for node in nodes], "executor": [node.executor_pid() for node in nodes]}
    before = limit.rate(n // 4)
    used = {name: cpu_s(those) for name, those in pids.items()}
    run_many(client, n, place.figures)
    for name, those in pids.items():
        place.figures.add(f"cpu of {name} a job", 1e6 * (cpu_s(those) - used[name]) / n, "µs")
    bare = (before + limit.rate(n // 4)) / 2
    for name in ("whole", "steady"):
        place.figures.add(f"{name} / bare", place.figures.found[name].value / bare, "of")
    place.figures.add("bare", bare, "1/s")


def run_many(client: Client, n: int, figures: Figures) -> None:
    """Run `n` jobs that are submitted ahead.

    `whole` is from the call of submit_many until the client has seen the last end; `steady` is the rate of the ends
    in between, from the first tenth to the last.
    """
    begun_at = time.perf_counter()
    jids = list(client.submit_many([true_job()] * n))
    figures.add("submit_many while running", n / (time.perf_counter() - begun_at), "1/s")
    infos = client.wait_for(jids, _END_WITHIN_S)
    figures.add("whole", n / (time.perf_counter() - begun_at), "1/s")
    assert all(info["state"] == "done" for info in infos.values()), "a job did not end well"
    figures.add("steady", steady_rate([info["end_ts"] for info in infos.values()]), "1/s")


def steady_rate(ends: list[float]) -> float:
    """Ends a second between the first and the last tenth of them."""
    span = percentile(ends, 90) - percentile(ends, 10)
    return 0.8 * len(ends) / span if span else 0.0


def submit(place: Place) -> None:
    """Submits acknowledged a second, of held jobs, so that none runs meanwhile."""
    held = true_job(hold=True)
    with place.nodes() as (node,), place.push_client(node) as client:
        client.submit_many([held] * place.many(2000, 50))  # warm
        _rate(place, "submit_job", node, place.many(10_000, 100), lambda n: _one_by_one(client, n, held))
        _rate(place, "submit_many", node, place.many(20_000, 200), lambda n: client.submit_many([held] * n))
    with place.nodes() as (node,), place.request_client(node) as client:

        def requests(n: int) -> None:
            for _ in range(n):
                client.submit(**held)

        _rate(place, "submit (one request each)", node, place.many(1000, 50), requests)


def _one_by_one(client: Client, n: int, spec: dict[str, Any]) -> None:
    for _ in range(n):
        client.submit_job(**spec)
    client.wait()


def _rate(place: Place, name: str, node: NodeProcess, n: int, action: Any) -> None:
    before = cpu_s([node.pid])
    seconds = timed(lambda: action(n))
    place.figures.add(name, n / seconds, "1/s")
    place.figures.add(f"{name}, cpu of node", 1e6 * (cpu_s([node.pid]) - before) / n, "µs")
