"""`mks stat`: the mesh at one moment."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from . import views
from .exits import OK
from .invocation import Invocation, client_options, json_option
from .output import Listing
from .overview import STATES, PoolTotal, nodes_linked, pool_totals
from .pick import infos_of
from .words import Selection

if TYPE_CHECKING:
    from meeseeks import Client

__all__ = ["stat_command"]

_ENDED_SHOWN = 10
_RUNNING_SHOWN = 20
"""How many jobs a terminal shows; --json has all that run."""

Info = Mapping[str, Any]


@click.command("stat")
@click.option("--tree", is_flag=True, help="Show who hears whom, node by node.")
@client_options
@json_option
@click.pass_obj
def stat_command(call: Invocation, /, tree: bool) -> int:
    """Show the mesh once: nodes, pools, how many jobs, those that run, and those that ended last. 'mks top' is live.

    In a pipe: lines with tabs that begin with what they are about: node, pool, jobs, running, ended; with --tree a line
    for two nodes, the first of which hears the second, and 'both' or 'one way'.

    --json: an object {node, nodes, pools, jobs, running, ended}; with --tree {node, nodes: {name: [names heard]}}.
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
    """Who hears whom: the node that was asked first, and below it each of the others with those that it hears."""
    links = nodes_linked(nodes)
    asked = next(iter(nodes))
    data = {"node": asked, "nodes": {name: [other for other, _ in heard] for name, heard in links.items()}}
    if not sys.stdout.isatty():
        rows = [
            (name, other, "both" if mutual else "one way") for name, heard in links.items() for other, mutual in heard
        ]
        return Listing(data, (), rows)
    lines: list[str] = []
    for name in [asked, *(other for other in links if other != asked)]:
        heard = links[name]
        lines.append(f"{name}{' (asked)' if name == asked else ''}{'' if heard else ' hears nobody'}")
        for at, (other, mutual) in enumerate(heard, 1):
            branch = "└──" if at == len(heard) else "├──"
            lines.append(f"{branch} {other}{'' if mutual else ' (does not hear it)'}")
    silent = [f"{name} is {status['state']}" for name, status in sorted(nodes.items()) if not status["online"]]
    return Listing(data, (), [(line,) for line in (*lines, *silent)])
