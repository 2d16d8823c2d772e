"""What too much of something does to a node, and to its other users."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from meeseeks import Client
from tests.support.nodes import NodeProcess
from tests.support.wait import wait_until

from .filling import inside
from .latency import WARM_UP
from .place import CALM_S, Place, true_job
from .programs import running
from .sample import percentile, timed, times_of
from .sampler import Bystander, Memory

__all__ = ["chatty", "flood", "mute"]

JOBS = 100_000
_OTHER_POOL = {"pools.q.slots": 1}
"""Where the other users' jobs run: those of the flood stand before theirs in pool p, as they came first."""


def flood(place: Place) -> None:
    """A client submits 100,000 jobs (--jobs) at full speed, which two slots run; others use the node meanwhile."""
    n = place.jobs or place.many(JOBS, 1000)
    with place.nodes(**_OTHER_POOL) as (node,), running("requests", node) as (flooder,):
        with _watched(place, node):
            flooder.ask(do="flood", count=n, prefix="flood-", pool="p")
            told = flooder.answer()
        place.figures.add("acknowledged", told["acknowledged"] / told["seconds"], "1/s")
        with place.request_client(node) as client:
            # In slices: the ids of a million jobs are more than one message may have.
            present = sum(len(client.ls(id=f"flood-{first}*")) for first in _prefixes(n))
            place.figures.add("of the acknowledged, present", present / told["acknowledged"], "of")
            place.figures.add("longest turn", inside(client, node, "turn_ms_max"), "ms")


def _prefixes(n: int) -> list[str]:
    """The first digits of the numbers of `n` jobs, each of which has at most 100,000 of them."""
    return [f"{i:02d}" for i in range((n - 1) // 100_000 + 1)]


def mute(place: Place) -> None:
    """A subscriber is stopped (SIGSTOP) while 100,000 jobs (--jobs) are submitted, and goes on afterwards."""
    n = place.jobs or place.many(JOBS, 1000)
    with place.nodes(**_OTHER_POOL) as (node,), running("cached", node) as (subscriber,):
        with running("requests", node) as (flooder,), _watched(place, node):
            os.kill(subscriber.pid, signal.SIGSTOP)
            flooder.ask(do="flood", count=n, prefix="mute-", pool="nowhere")  # none of them runs
            told = flooder.answer()
        os.kill(subscriber.pid, signal.SIGCONT)

        def has_last() -> bool:
            subscriber.ask(do="has", jid=f"mute-{n - 1:07d}")
            return bool(subscriber.answer())

        caught_up_s = timed(lambda: wait_until(has_last, 10 * CALM_S, "the subscriber to have caught up"))
        place.figures.add("caught up within", caught_up_s, "s")
        subscriber.ask(do="count", prefix="mute-")
        place.figures.add("of the acknowledged, in its cache at last", subscriber.answer() / told["acknowledged"], "of")


def chatty(place: Place) -> None:
    """A job prints a gigabyte at full speed, while others use the node."""
    megabytes = place.many(1000, 20)
    script = f"head -c {megabytes}M /dev/zero | tr '\\0' x"
    with place.nodes(**_OTHER_POOL) as (node,), place.push_client(node) as client:
        with _watched(place, node):
            (jid,) = client.submit_job(pool="p", args=["sh", "-c", script])
            info = client.wait_for(jid, 10 * CALM_S)[jid]
        assert info["state"] == "done", info
        place.figures.add("printed", megabytes * 1.048576 / (info["end_ts"] - info["start_ts"]), "MB/s")


@contextmanager
def _watched(place: Place, node: NodeProcess) -> Iterator[None]:
    """The memory of the node and its executor, and a user's round trips and jobs meanwhile, against those before."""
    with ExitStack() as stack:
        asker = stack.enter_context(place.request_client(node))
        runner = stack.enter_context(place.push_client(node))
        actions = {
            "round trip": lambda: asker.ls(id="nobody"),
            "job in another pool": lambda: _job_in_q(runner),
        }
        for name, action in actions.items():
            _report_calm(place, f"{name}, before", action)
        memories = {"node": Memory(node.pid), "executor": Memory(node.executor_pid())}
        bystanders = {name: Bystander(action) for name, action in actions.items()}
        with ExitStack() as meanwhile:
            for repeating in (*memories.values(), *bystanders.values()):
                meanwhile.enter_context(repeating)
            yield
        for name, memory in memories.items():
            memory.report(place.figures, name)
        for name, bystander in bystanders.items():
            bystander.report(place.figures, f"{name}, meanwhile")


def _report_calm(place: Place, what: str, action: Callable[[], object]) -> None:
    for _ in range(WARM_UP):
        action()
    times = times_of(action, place.many(50, 5))
    place.figures.add(f"{what} p50", 1000 * percentile(times, 50), "ms")


def _job_in_q(client: Client) -> None:
    (jid,) = client.submit_job(**true_job(pool="q"))
    client.wait_for(jid, CALM_S)
