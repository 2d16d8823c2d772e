"""How long one job takes, from the call that submits it until its caller knows that it has ended."""

from __future__ import annotations

import subprocess
from threading import Event
from typing import Any

from meeseeks import Client, Job
from tests.support.nodes import NodeProcess

from .limit import Beside
from .place import CALM_S, Place, true_job

__all__ = ["latency", "line", "through_cache", "through_requests"]

WARM_UP = 20


def through_cache(client: Client) -> None:
    """One job by `submit_job`, waited for in the cache."""
    (jid,) = client.submit_job(**true_job())
    client.wait_for(jid, CALM_S)


def through_requests(client: Client) -> None:
    """One job by `submit`, waited for by queries."""
    (jid,) = client.submit(**true_job())
    client.wait_for(jid, CALM_S)


def _notified(client: Client) -> None:
    ended = Event()

    def on_end(_job: Job) -> None:
        ended.set()

    Job(client=client, notify=on_end, **true_job()).start()
    assert ended.wait(CALM_S), "nobody was notified"


def latency(place: Place) -> None:
    """One node with two slots, one job at a time: by the cache, by notify, by requests, by `mks run`."""
    n = place.many(400, 20)
    beside = Beside()
    with place.nodes() as (node,):
        with place.push_client(node) as client:
            for name, action in (("push", through_cache), ("notify", _notified)):
                for _ in range(WARM_UP):
                    action(client)
                place.figures.add_times(name, beside.times(lambda action=action: action(client), n), beside.bare_s)
        with place.request_client(node) as client:
            times = beside.times(lambda: through_requests(client), n // 4)
            place.figures.add_times("request", times, beside.bare_s)
        times = beside.times(_mks_run(place, node), place.many(20, 3))
        place.figures.add_times("mks run", times, beside.bare_s)
    place.figures.add("bare p50", 1000 * beside.bare_s, "ms")


def _mks_run(place: Place, node: NodeProcess) -> Any:
    command, env = [*place.mks(), "run", "p", "--", "/bin/true"], place.environment(node)
    return lambda: subprocess.run(command, env=env, check=True, stdin=subprocess.DEVNULL)


LINE: dict[str, Any] = {"shape": "line", "per_node": {name: {"pools.p.slots": None} for name in "ab"}}
"""a–b–c, where only c has the pool."""


def line(place: Place) -> None:
    """The same through a line of nodes a–b–c: the client at a, the pool at c, and back."""
    beside = Beside()
    with place.nodes(3, **LINE) as (a, _, _), place.push_client(a) as client:
        for _ in range(WARM_UP):
            through_cache(client)
        times = beside.times(lambda: through_cache(client), place.many(300, 20))
        place.figures.add_times("push", times, beside.bare_s)
