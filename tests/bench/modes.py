"""What security and durability cost: each way that a node may be run, against the barest one, side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from meeseeks import Client
from tests.support.certificates import Authority
from tests.support.nodes import NodeProcess

from .latency import WARM_UP, through_cache
from .limit import Beside
from .place import Place, true_job
from .sample import Figures, percentile, timed

__all__ = ["security", "sync"]

BLOCK = 25
PLAIN = {"mode": "none"}
MEGABYTE_JOBS = 1200
"""So many jobinfos make an answer of about a megabyte."""

Way = tuple[dict[str, Any], dict[str, Any]]
"""How a node is run, and what its Clients need for it."""


def security(place: Place) -> None:
    """Round trips, large answers and jobs through CURVE and TLS, as ratios to plain ones."""
    authority = Authority(place.folder / "ca")
    server = {"cafile": authority.cafile, **authority.issue("node", "127.0.0.1", "localhost")}
    user = {"cafile": authority.cafile, **authority.issue("user")}
    tls = {f"listen.ssl.{key}": value for key, value in server.items()}
    none = {"security.mode": "none"}
    ways: dict[str, Way] = {
        "plain": (none, {"security": PLAIN}),
        "CURVE": ({}, {}),
        "TLS": ({**none, **tls}, {"security": PLAIN, "ssl": user}),
        "TLS and CURVE": (tls, {"ssl": user}),
    }
    with _side_by_side(place, ways) as clients:
        nothing = {"ls": {"id": "nobody"}}
        n = place.many(400, 25)
        _compare(place.figures, "round trip", n, _each(clients, lambda client: client.request(nothing)))
        for client in clients.values():
            client.submit_many([true_job(hold=True)] * place.many(MEGABYTE_JOBS, 50))
            client.wait()
        _compare(place.figures, "answer of 1 MB", n // 8, _each(clients, lambda client: client.query()), block=5)
        _compare(place.figures, "job", n, _each(clients, through_cache))


def sync(place: Place) -> None:
    """Jobs and acknowledged submits with each `state.sync`, as ratios to `memory`."""
    ways: dict[str, Way] = {mode: ({"state.sync": mode}, {}) for mode in ("memory", "os", "acks", "all")}
    with _side_by_side(place, ways) as clients:
        n = place.many(300, 25)
        _compare(place.figures, "job", n, _each(clients, through_cache))
        held = true_job(hold=True)
        _compare(place.figures, "submit", n, _each(clients, lambda client: client.submit(**held)))


@contextmanager
def _side_by_side(place: Place, ways: dict[str, Way]) -> Iterator[dict[str, Client]]:
    """A node for each way, and a warm Client of it."""
    with ExitStack() as stack:
        clients = {}
        for name, (config, options) in ways.items():
            nodes: list[NodeProcess] = stack.enter_context(place.nodes(client=options, **config))
            clients[name] = stack.enter_context(place.push_client(nodes[0]))
            for _ in range(WARM_UP):
                through_cache(clients[name])
        yield clients


def _each(clients: dict[str, Client], action: Callable[[Client], object]) -> dict[str, Callable[[], object]]:
    return {name: lambda client=client: action(client) for name, client in clients.items()}


def _compare(figures: Figures, what: str, n: int, actions: dict[str, Callable[[], object]], block: int = BLOCK) -> None:
    """The p50 of each action in ms, in blocks that take turns, and as a ratio to the first and to the bare process."""
    times: dict[str, list[float]] = {name: [] for name in actions}
    beside = Beside(block=20)
    while min(map(len, times.values())) < n:
        for name, action in actions.items():
            times[name] += [timed(action) for _ in range(block)]
        beside.times(lambda: None, 1)
    halves = {name: percentile(found, 50) for name, found in times.items()}
    first = next(iter(actions))
    for name, half in halves.items():
        figures.add(f"{what}, {name}", 1000 * half, "ms")
    for name, half in halves.items():
        if name != first:
            figures.add(f"{what}, {name} / {first}", half / halves[first], "×")
    for name, half in halves.items():
        figures.add(f"{what}, {name} / bare", half / beside.bare_s, "×")
