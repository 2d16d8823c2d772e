"""Submit, be answered, `kill -9`, start again: is it there? As often as is wished, on one real node with a store.

Or a power cut instead (`power`): then what was not forced to the disk is gone as well.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

from meeseeks import Client
from tests.support.nodes import NodeProcess

from .power import Power

__all__ = ["answered_and_killed"]

_SAY_EVERY = 100


def answered_and_killed(
    folder: Path, count: int, seed: int, say: Callable[[str], None], *, sync: str = "acks", library: Path | None = None
) -> list[str]:
    """Do it so many times; what is wrong with what was answered, in words.

    Most rounds submit a job; some submit several at once, change one of an earlier round, or kill it. The node is
    killed as soon as the answer is there. The seed decides what is asked for. With a `library` of `power` it is not
    only the node that ends.
    """
    dice = random.Random(seed)
    wanted: dict[str, tuple[str, list[str]]] = {}
    """What was answered: state and tags of each job."""
    wrong: list[str] = []
    power = Power(library, folder / "a" / "state") if library is not None else None
    environment = power.environment if power is not None else None
    node = NodeProcess(folder, "a", {"pools.p.hold": True, "state.sync": sync}, environment=environment).start()
    slowest_s = 0.0
    try:
        for number in range(1, count + 1):
            with node.client() as client:
                wanted.update(_ask(client, dice, number, wanted))
                os.kill(node.pid, signal.SIGKILL)
            node.kill()  # and reaped
            if power is not None:
                node.sweep()
                power.cut()
            began = time.monotonic()
            node.restart()
            slowest_s = max(slowest_s, time.monotonic() - began)
            with node.client() as client:
                found = {jid: (info["state"], list(info["tags"])) for jid, info in client.query().items()}
            for jid in found.keys() | wanted.keys():
                if found.get(jid) != wanted.get(jid):
                    wrong.append(f"round {number}: {jid} was answered as {wanted.get(jid)} and is {found.get(jid)}")
            if wrong:
                break
            if number % _SAY_EVERY == 0:
                say(f"{number} times answered and killed: {len(wanted)} jobs, all there")
    finally:
        node.kill()
        node.sweep()
    say(f"{number} times: {len(wanted)} jobs answered, {len(wrong)} not as answered; slowest start {slowest_s:.2f} s")
    return wrong


def _ask(
    client: Client, dice: random.Random, number: int, known: dict[str, tuple[str, list[str]]]
) -> dict[str, tuple[str, list[str]]]:
    """One request, and what its answer says."""
    what = dice.choices(["one", "many", "change", "kill"], [14, 2, 2, 2])[0] if known else "one"
    if what == "kill":
        jid = dice.choice(list(known))
        info = client.kill(jid)
        assert isinstance(info, dict)
        answer = {jid: info}
    elif what == "change":
        answer = client.submit(id=dice.choice(list(known)), tags=[f"changed-{number}"])
    elif what == "many":
        specs = [{"id": f"j{number}-{i}", "pool": "p", "args": ["true"], "tags": ["first"]} for i in range(20)]
        answer = client.submit_many(specs)
    else:
        answer = client.submit(id=f"j{number}", pool="p", args=["true"], tags=["first"])
    return {jid: (info["state"], list(info["tags"])) for jid, info in answer.items()}
