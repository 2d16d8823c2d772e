"""Whether it stays fast: the same measurements with ever more ended jobs in the table."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from tests.support.nodes import NodeProcess

from . import limit
from .filling import HOW, held_and_killed, inside, ran
from .idle import idle_cpu
from .latency import WARM_UP, through_cache
from .limit import Beside
from .place import Place
from .sample import Figures, cpu_s, percentile, rss_mb, timed
from .throughput import run_many

__all__ = ["growth"]

JOBS = 200_000
_SHORT = {"poll": 2, "expire": 3}
"""Of the Client that fills the table: its cache is not to grow with it."""
_WATCH_EXPIRY_S = 20
_PAUSE_S = 0.01


@dataclass(frozen=True)
class _Point:
    """What is compared between table sizes."""

    jobs: int
    rss_mb: float
    latency: float
    rate: float


def growth(place: Place) -> None:
    """Latency, throughput, memory, turns of the loop with 0, 20,000 and 200,000 ended jobs (--jobs: the last)."""
    total = place.jobs or place.many(JOBS, 1000)
    place.figures.note(HOW)
    with place.nodes() as (node,):
        empty = _measure(place, node, 0)
        with place.push_client(node, **_SHORT) as client:
            place.figures.add("filling by running", total // 10 / timed(lambda: ran(client, total // 10)), "1/s")
        tenth = _measure(place, node, total // 10)
        rest = total - tenth.jobs
        with place.push_client(node, **_SHORT) as client:
            place.figures.add("filling by kills", rest / timed(lambda: held_and_killed(client, rest)), "1/s")
        full = _measure(place, node, total)
        _compare(place.figures, empty, {total // 10: tenth, total: full})
        _expire(place, node)


def _measure(place: Place, node: NodeProcess, size: int) -> _Point:
    """Read the memory as it has grown, start the node again, and measure."""
    add, at = place.figures.add, f", {size:,}"
    with place.request_client(node) as client:
        jobs = int(inside(client, node, "jobs"))
    filled = rss_mb(node.pid)
    add("rss of node" + at, filled, "MB")
    node.stop()
    add("start-up" + at, timed(node.restart), "s")
    add("rss of node started again" + at, rss_mb(node.pid), "MB")
    add("cpu when idle" + at, idle_cpu([node], place.many(5, 1)), "% of a core")
    with place.push_client(node) as client:
        add("first sync of a client" + at, timed(client.wait), "s")
        for _ in range(WARM_UP):
            through_cache(client)
        beside, n = Beside(), place.many(200, 20)
        before = cpu_s([node.pid])
        times = beside.times(lambda: through_cache(client), n)
        add("cpu of node a job" + at, 1e6 * (cpu_s([node.pid]) - before) / n, "µs")
        add("push p50" + at, 1000 * percentile(times, 50), "ms")
        add("push p50 / bare" + at, percentile(times, 50) / beside.bare_s, "×")
        found, n = Figures(), place.many(1500, 60)
        run_many(client, n, found)
        rate = found.found["whole"].value / limit.rate(n)
        add("throughput / bare" + at, rate, "of")
        add("longest turn" + at, inside(client, node, "turn_ms_max"), "ms")
    return _Point(jobs, filled, percentile(times, 50) / beside.bare_s, rate)


def _compare(figures: Figures, empty: _Point, others: dict[int, _Point]) -> None:
    for size, point in others.items():
        figures.add(f"push p50, {size:,} / empty", point.latency / empty.latency, "×")
        figures.add(f"throughput, {size:,} / empty", point.rate / empty.rate, "of")
    tenth, full = others.values()
    figures.add("rss a finished job", _kb_a_job(empty, full), "KB")
    figures.add("rss a finished job that ran", _kb_a_job(empty, tenth), "KB")


def _kb_a_job(empty: _Point, point: _Point) -> float:
    return 1000 * (point.rss_mb - empty.rss_mb) / (point.jobs - empty.jobs)


def _expire(place: Place, node: NodeProcess) -> None:
    """Let all of them expire at once, and watch for a while how that goes on, while another client goes on asking."""
    times: list[float] = []
    with place.request_client(node) as client:
        before = left = inside(client, node, "jobs")
        expiry: dict[str, Any] = {"state": {"expire": 1}}
        client.request({"config": expiry})
        begun_at = time.monotonic()
        while left and time.monotonic() - begun_at < place.many(_WATCH_EXPIRY_S, 5):
            times.append(timed(lambda: client.ls(id="nobody")))
            left = client.nodes()[node.name]["info"]["jobs"]
            time.sleep(_PAUSE_S)
        place.figures.add("expiry", (before - left) / (time.monotonic() - begun_at), "jobs/s")
        place.figures.add("expiry, longest round trip of another client", 1000 * max(times), "ms")
        place.figures.add("longest turn, expiry included", inside(client, node, "turn_ms_max"), "ms")
