"""`mks stat`: the mesh at one moment."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from . import views
from .exits import OK
from .invocation import Invocation, client_options, json_option
from .output import Listing
from .overview import STATES, Branch, PoolTotal, branches, nodes_linked, pool_totals
from .pick import infos_of
from .words import Selection

if TYPE_CHECKING:
    from meeseeks import Client

__all__ = ["stat_command"]

_ENDED_SHOWN = 10
_NAMED = 6
"""So many names beside a node are still read."""
_RUNNING_SHOWN = 20
"""How many jobs a terminal shows; --json has all that run."""

Info = Mapping[str, Any]


@click.command("stat")
@click.option("--tree", is_flag=True, help="Show which nodes are linked with each other.")
@client_options
@json_option
@click.pass_obj
def stat_command(call: Invocation, /, tree: bool) -> int:
    """Show the mesh once: nodes, pools, how many jobs, those that run, and those that ended last. 'mks top' is live.

    In a pipe: lines with tabs that begin with what they are about: node, pool, jobs, running, ended; with --tree a line
    for a node and another that it is linked with, and 'both' or 'one way'.

    --json: an object {node, nodes, pools, jobs, running, ended}; with --tree {node, nodes: {name: [names linked]}}.
    """
    with call.client() as client:
        nodes = client.nodes()
        if tree:
            call.printer().show(_tree(nodes))
            return OK
        found = _look(client, nodes)
    if sys.stdout.isatty() and not call.json:
        for title, listing in _tables(found):
            click.secho(title, bold=True)
            if listing is not None:
                call.printer().show(listing)
            click.echo()
    else:
        call.printer().show(_plain(found))
    return OK


def _look(client: Client, nodes: Mapping[str, Info]) -> dict[str, Any]:
    """All of it, as --json has it."""
    ids = {state: client.ls(state=state) for state in STATES}
    running = list(infos_of(client, Selection(ids["running"], {})).values()) if ids["running"] else []
    last = [jid for state in ("done", "failed", "killed") for jid in ids[state][-_ENDED_SHOWN:]]
    ended = [info for info in client.query(last).values() if info["state"] in ("done", "failed", "killed")]
    ended.sort(key=lambda info: info["end_ts"] or info["ts"], reverse=True)
    by_pool = Counter(info["pool"] for info in running)
    pools = {pool for status in nodes.values() for pool in status["pools"]}
    waiting = {pool: len(client.ls(state="new", pool=pool)) for pool in sorted(pools)} if ids["new"] else {}
    return {
        "node": next(iter(nodes)),
        "nodes": nodes,
        "pools": {pool: total._asdict() for pool, total in pool_totals(nodes, by_pool, waiting).items()},
        "jobs": {state: len(found) for state, found in ids.items()},
        "running": sorted(map(views.masked, running), key=lambda info: info["start_ts"] or 0),
        "ended": list(map(views.masked, ended[:_ENDED_SHOWN])),
    }


def _tables(found: dict[str, Any]) -> list[tuple[str, Listing | None]]:
    counts = ", ".join(f"{count} {state}" for state, count in found["jobs"].items() if count) or "none"
    running, ended = found["running"][:_RUNNING_SHOWN], found["ended"]
    more = len(found["running"]) - len(running)
    tables: list[tuple[str, Listing | None]] = [
        (f"Jobs: {counts}", None),
        (f"Nodes, as {found['node']} sees them", views.nodes(found["nodes"])),
        ("Pools", views.pool_totals(_pools(found))),
    ]
    if running:
        tables.append((f"Running{f' (and {more} more)' if more else ''}", views.jobs(running)))
    if ended:
        tables.append(("Ended last", views.ended(ended, time.time())))
    return tables


def _plain(found: dict[str, Any]) -> Listing:
    rows = [("node", *row) for row in views.nodes(found["nodes"]).rows]
    rows += [("pool", *row) for row in views.pool_totals(_pools(found)).rows]
    rows += [("jobs", state, str(count)) for state, count in found["jobs"].items()]
    for about in ("running", "ended"):
        rows += [(about, *row) for row in views.jobs(found[about]).rows]
    return Listing(found, (), rows)


def _pools(found: dict[str, Any]) -> dict[str, PoolTotal]:
    return {pool: PoolTotal(**total) for pool, total in found["pools"].items()}


def _tree(nodes: Mapping[str, Info]) -> Listing:
    """Who is linked with whom: from the node that was asked to each of the others, on the shortest way."""
    links = nodes_linked(nodes)
    asked = next(iter(nodes))
    data = {"node": asked, "nodes": {name: [other for other, _ in linked] for name, linked in links.items()}}
    if not sys.stdout.isatty():
        rows = [
            (name, other, "both" if mutual else "one way") for name, linked in links.items() for other, mutual in linked
        ]
        return Listing(data, (), rows)
    count = sum(map(len, links.values())) // 2
    is_full = count == len(links) * (len(links) - 1) // 2
    lines: list[str] = []
    for root in branches(links, asked):
        note = " (asked)" if root.name == asked else " (no way leads there)"
        lines += [f"{root.name}{note}", *_below(root, "", with_also=not is_full)]
    lines += [f"{name} is {status['state']}" for name, status in sorted(nodes.items()) if not status["online"]]
    how = ": each with every other" if is_full and len(links) > 2 else ""
    lines.append(f"{_count(len(links), 'node')}, {_count(count, 'link')}{how}")
    return Listing(data, (), [(line,) for line in lines])


def _below(branch: Branch, indent: str, *, with_also: bool) -> Iterator[str]:
    for at, child in enumerate(branch.below, 1):
        is_last = at == len(branch.below)
        notes = ["one way"] if child.one_way else []
        others = ", ".join(child.also) if len(child.also) <= _NAMED else f"{len(child.also)} others"
        notes += [f"also linked with {others}"] if child.also and with_also else []
        text = f" ({'; '.join(notes)})" if notes else ""
        yield f"{indent}{'└──' if is_last else '├──'} {child.name}{text}"
        yield from _below(child, f"{indent}{'    ' if is_last else '│   '}", with_also=with_also)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
