"""How soon everybody knows: many caches that follow one node."""

from __future__ import annotations

import time

from meeseeks import Client

from .place import CALM_S, Place, true_job
from .programs import running
from .sample import cpu_s, percentile

__all__ = ["fanout"]

WATCHERS = 20


def fanout(place: Place) -> None:
    """Time until 20 push-cached clients, a process each, have seen a change; what each costs the node."""
    count = place.many(WATCHERS, 3)
    first, last = [], []
    with place.nodes() as (node,), place.push_client(node) as client:
        alone = _cpu_a_job(place, node.pid, client)
        with running("cached", node, count) as watchers:
            for i in range(place.many(30, 3)):
                jid = f"fan-{i}"
                client.submit(**true_job(id=jid, hold=True))
                for watcher in watchers:
                    watcher.ask(do="know", jid=jid)
                for watcher in watchers:
                    watcher.answer()
                    watcher.ask(do="watch", jid=jid)
                begun_at = time.monotonic()
                client.kill(jid)
                seen = [watcher.answer() - begun_at for watcher in watchers]
                first.append(min(seen))
                last.append(max(seen))
            watched = _cpu_a_job(place, node.pid, client)
    add = place.figures.add
    add("first has seen it, p50", 1000 * percentile(first, 50), "ms")
    add("all have seen it, p50", 1000 * percentile(last, 50), "ms")
    add("all have seen it, p90", 1000 * percentile(last, 90), "ms")
    add("cpu of node a job", alone, "µs")
    add("cpu of node a job, watched", watched, "µs")
    add("cpu of node a job and watcher", (watched - alone) / count, "µs")
    place.figures.note(f"{count} clients on the cores of this machine: most of the time is theirs")


def _cpu_a_job(place: Place, pid: int, client: Client) -> float:
    n = place.many(1000, 50)
    before = cpu_s([pid])
    client.wait_for(list(client.submit_many([true_job()] * n)), 10 * CALM_S)
    return 1e6 * (cpu_s([pid]) - before) / n
