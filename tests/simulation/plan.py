"""The script of a run, made of one seed: the mesh, and everything that users do and that breaks, with its times."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from meeseeks.core.settings import PoolSettings, Settings

__all__ = ["Action", "Plan", "make_plan"]

TIMEOUT, LOST_AFTER = 15.0, 60.0
SHORT_EXPIRE = 100.0
"""Less than many nodes are away; with it no clock is set by more, as none is set by a day where that is the expiry."""
POOLS = ("p", "q")
FULL_SHAPES = ("join", "named")
SHAPES = ("join", "join", "named", "line", "cycle", "tree", "partial")


class Action(NamedTuple):
    """Something that happens at a time. A fault brings its own repair, so that both can be left out together."""

    number: int
    at: float
    kind: str
    args: dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """All that a run depends on."""

    seed: int
    names: tuple[str, ...]
    shape: str
    discover: bool
    edges: frozenset[tuple[int, int]]
    """Pairs of nodes that can reach each other at all."""
    named: frozenset[tuple[int, int]]
    """(i, k): the configuration of i names k."""
    memory: bool
    """Nodes have no disk: what restarts has forgotten everything."""
    settings: tuple[Settings, ...]
    loss: float
    latency: float
    sync_limit: int
    chaos_until: float
    actions: tuple[Action, ...] = field(default=())

    def only(self, numbers: set[int]) -> Plan:
        """The same run with some of its actions only."""
        return replace(self, actions=tuple(action for action in self.actions if action.number in numbers))


def make_plan(seed: int) -> Plan:
    """The script of a seed."""
    r = random.Random(seed)
    n = r.choice((3, 3, 3, 4, 4, 5, 5, 6, 7))
    names = tuple("abcdefg"[:n])
    shape = r.choice(SHAPES)
    edges, named = _links(r, n, shape)
    heartbeat = r.choice((1.0, 2.0, 2.5, 2.5))
    # In some runs nodes are away for longer than what has ended is kept. Not in those of fresh seeds, which are larger:
    # of the last 2,200 such runs a few failed, where clocks differ by a good part of the expiry.
    is_short = seed < 2**20 and not random.Random(f"expiry of {seed}").randrange(4)
    expire = SHORT_EXPIRE if is_short else 86_400.0
    plan = Plan(
        seed=seed,
        names=names,
        shape=shape,
        discover=shape == "join" or (shape != "named" and r.random() < 0.3),
        edges=edges,
        named=named,
        memory=r.random() < 0.15,
        settings=tuple(_settings(r, name, heartbeat, expire) for name in names),
        loss=r.choice((0.0, 0.01, 0.05)),
        latency=r.choice((0.002, 0.01, 0.1)),
        sync_limit=r.choice((2, 5, 1000)),
        chaos_until=r.choice((300.0, 420.0, 600.0)),
    )
    return replace(plan, actions=_actions(r, plan))


def _links(r: random.Random, n: int, shape: str) -> tuple[frozenset[tuple[int, int]], frozenset[tuple[int, int]]]:
    if shape in FULL_SHAPES:
        edges = {(i, k) for i in range(n) for k in range(i)}
    elif shape == "tree":
        edges = {(i, r.randrange(i)) for i in range(1, n)}
    else:
        edges = {(i, i - 1) for i in range(1, n)}
        if shape == "cycle":
            edges.add((n - 1, 0))
        if shape == "partial":
            edges |= {(i, k) for i in range(n) for k in range(i - 1) if r.random() < 0.3}
    if shape == "join":
        named = {(i, 0) for i in range(1, n)}
    else:
        named = {edge if r.random() < 0.5 else edge[::-1] for edge in sorted(edges)}
    return frozenset(edges), frozenset(named)


def _settings(r: random.Random, name: str, heartbeat: float, expire: float) -> Settings:
    pools = {pool: PoolSettings(slots=r.choice((0, 1, 2, 3))) for pool in POOLS if r.random() < 0.8}
    return Settings(
        name=name,
        heartbeat=heartbeat,
        timeout=TIMEOUT,
        lost_after=LOST_AFTER,
        expire=expire,
        use_loadavg=r.random() < 0.1,
        wait_in_pool=r.random() < 0.15,
        pools=pools,
    )


def _actions(r: random.Random, plan: Plan) -> tuple[Action, ...]:
    found: list[tuple[float, str, dict[str, Any]]] = []
    n, jobs = len(plan.names), 0
    # Some runs are mostly quiet, so that each fault is seen by itself as well.
    fault_every, user_every = r.choice((15.0, 30.0, 60.0)), r.choice((4.0, 8.0))
    at = r.uniform(1.0, 8.0)
    while at < plan.chaos_until:
        if r.random() < 0.62 or not jobs:
            found.extend(_submits(r, plan, at, jobs))
            jobs += 1
        else:
            kind, args = _user_action(r, plan, jobs)
            found.append((at, kind, args))
            if kind in ("rerun", "move") and r.random() < 0.3:  # and somebody else changes it at the same moment
                other = {"node": r.randrange(n), "job": args["job"], "changes": {"tags": [r.choice("xyz")]}}
                found.append((at + r.choice((0.0, 0.5, 4.0)), "change", other))
        at += r.expovariate(1 / user_every) + (30.0 if r.random() < 0.05 else 0.0)
    at = r.uniform(5.0, 40.0)
    while at < plan.chaos_until:
        found.append((at, *_fault(r, plan, n)))
        at += r.expovariate(1 / fault_every)
    found.extend(_adoptions(random.Random(f"adoptions of {plan.seed}"), plan, found))
    found.sort(key=lambda one: one[0])
    return tuple(Action(number, *one) for number, one in enumerate(found))


def _submits(r: random.Random, plan: Plan, at: float, number: int) -> list[tuple[float, str, dict[str, Any]]]:
    n = len(plan.names)
    spec: dict[str, Any] = {"id": f"j{number}", "pool": r.choice(POOLS), "args": ["run", str(number)]}
    chance = r.random()
    if chance < 0.45:
        spec["retries"] = r.choice((1, 2, 3))
    elif chance < 0.53:
        spec["resubmit"] = True
    elif chance < 0.58:
        spec["restart"] = True
    if r.random() < 0.07:
        spec["hold"] = True
    if r.random() < 0.1:
        spec["runtime"] = r.choice((3.0, 20.0))
    chance = r.random()
    if chance < 0.12:
        spec["node"] = r.choice(plan.names)
    elif chance < 0.17:
        spec["node"] = "*"
    elif chance < 0.21:
        spec["node"] = r.sample(plan.names, 2)
    if r.random() < 0.03:
        spec["pool"] = "nowhere"
        spec.pop("node", None)
    where = r.randrange(n)
    found = [(at, "submit", {"node": where, "spec": spec})]
    if r.random() < 0.1:  # a client that got no answer asks the same node again
        found.append((at + r.choice((0.01, 5.0, 40.0)), "submit", {"node": where, "spec": spec}))
    elif r.random() < 0.06:  # its submit node is cut off, and its user wants it elsewhere
        pairs = [pair for other in range(n) if other != where for pair in ((where, other), (other, where))]
        cut = {"pairs": pairs, "span": r.uniform(20.0, 120.0), "holds": r.random() < 0.3}
        who = {"node": r.randrange(n), "job": spec["id"], "to": r.choice((None, *plan.names))}
        cut_at = at + r.choice((0.05, 0.5, 3.0))
        found += [(cut_at, "cut", cut), (cut_at + r.choice((1.0, 20.0, 70.0)), "move", who)]
    elif r.random() < 0.1:
        who = {"node": r.randrange(n), "job": spec["id"], "to": r.choice((None, *plan.names))}
        found.append((at + r.choice((0.05, 1.0, 6.0, 20.0)), "move", who))
    elif r.random() < 0.05:
        other = r.randrange(n)
        found.append((at + r.choice((0.0, 0.02, 3.0)), "submit", {"node": other, "spec": spec}))
    return found


def _user_action(r: random.Random, plan: Plan, jobs: int) -> tuple[str, dict[str, Any]]:
    n = len(plan.names)
    job = f"j{max(0, jobs - 1 - int(r.expovariate(1 / 6)))}"
    at = {"node": r.randrange(n), "job": job}
    chance = r.random()
    if chance < 0.35:
        return "kill", at
    if chance < 0.5:
        return "change", {**at, "changes": {"hold": False}}
    if chance < 0.6:
        return "change", {**at, "changes": {"tags": [r.choice("xyz")]}}
    if chance < 0.65:
        changes = r.choice(({"retries": 2}, {"resubmit": True}, {"hold": True}, {"args": ["other"]}, {"retries": 0}))
        return "change", {**at, "changes": changes}
    if chance < 0.75:
        return "move", {**at, "to": r.choice((None, *plan.names))}
    if chance < 0.9:
        return "rerun", {**at, "to": r.choice((None, *plan.names))}
    return "pools", {"node": at["node"], "pool": r.choice(POOLS), "to": _pool_change(r)}


def _adoptions(
    r: random.Random, plan: Plan, found: list[tuple[float, str, dict[str, Any]]]
) -> list[tuple[float, str, dict[str, Any]]]:
    """Of most nodes that go for good the jobs are adopted, by one or two others; too early at times, and some twice."""
    adoptions: list[tuple[float, str, dict[str, Any]]] = []
    for at, kind, args in found:
        if kind != "gone" or r.random() < 0.2:
            continue
        others = [index for index in range(len(plan.names)) if index != args["node"]]
        due = at + args["span"] + r.choice((3.0, TIMEOUT + 5.0, TIMEOUT + 5.0, 1.3 * LOST_AFTER))
        for node in r.sample(others, r.choice((1, 1, 1, 2))):
            adoptions.append((due, "adopt", {"node": node, "of": plan.names[args["node"]]}))
            due += r.choice((0.0, 0.01, 1.0, 70.0))
    return adoptions


def _pool_change(r: random.Random) -> dict[str, Any] | None:
    return r.choice((None, {"slots": 0}, {"slots": 1}, {"slots": 4}, {"hold": True}, {"drain": True}, {"grace": 2.0}))


def _span(r: random.Random) -> float:
    return r.choice((1.0, 6.0, 30.0, 60.0, 120.0, 180.0)) * r.uniform(0.3, 1.2)


def _fault(r: random.Random, plan: Plan, n: int) -> tuple[str, dict[str, Any]]:
    chance, node = r.random(), r.randrange(n)
    if chance < 0.22:
        how = r.choice(("process", "process", "both", "power")) if not plan.memory else "power"
        return "crash", {"node": node, "how": how, "span": _span(r), "mid_turn": r.random() < 0.5}
    if chance < 0.3:
        return "executor", {"node": node}
    if chance < 0.47:
        span = r.choice((1.0, 5.0, 20.0, 50.0, 55.0, 62.0, 120.0)) * r.uniform(0.8, 1.1)
        return "freeze", {"node": node, "span": span, "mid_turn": r.random() < 0.5, "keep": r.random() < 0.5}
    if chance < 0.82:
        return "cut", _cut(r, n)
    if chance < 0.88:
        pair = r.sample(range(n), 2)
        return "late", {"pair": tuple(pair), "by": r.choice((0.5, 5.0, 20.0)), "span": _span(r)}
    if chance < 0.94:
        by = r.choice((-3600.0, -30.0, 5.0, 600.0))
        is_short = plan.settings[0].expire == SHORT_EXPIRE
        return "clock", {"node": node, "by": max(-30.0, min(by, 30.0)) if is_short else by}
    if chance < 0.98:
        return "stop", {"node": node, "span": _span(r)}
    # Often its last words reach some of the others only.
    deaf = r.sample(range(n), r.randint(0, n - 1))
    how = r.choice(("process", "both", "power", "stop"))
    return "gone", {"node": node, "how": how, "deaf": deaf, "span": r.choice((1.0, 10.0, 30.0))}


def _cut(r: random.Random, n: int) -> dict[str, Any]:
    side = set(r.sample(range(n), r.randint(1, n - 1)))
    pairs = {(i, k) for i in range(n) for k in range(n) if (i in side) != (k in side)}
    if r.random() < 0.35:
        pairs = {pair for pair in pairs if pair[0] in side}  # one way only
    elif r.random() < 0.3:
        pair = r.sample(range(n), 2)
        pairs = {tuple(pair), tuple(pair[::-1])}
    return {"pairs": sorted(pairs), "span": _span(r), "holds": r.random() < 0.3}
