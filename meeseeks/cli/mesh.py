"""`mks nodes`, `mks pools`, `mks conf`: the mesh as one of its nodes sees it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import click

from meeseeks.errors import InvalidRequest, NodeUnreachable, RequestFailed

from . import views
from .exits import OK
from .invocation import Invocation, client_options, json_option
from .words import name_value

__all__ = ["conf_command", "nodes_command", "pools_command"]


@click.command("nodes")
@client_options
@json_option
@click.pass_obj
def nodes_command(call: Invocation) -> int:
    """List the nodes of the mesh.

    In a pipe: a line a node with name, state, address, load, version and pools, separated by tabs.

    --json: an object {node: status}.
    """
    with call.client() as client:
        found = client.nodes()
    call.printer().show(views.nodes(found))
    return OK


@click.command("pools")
@client_options
@json_option
@click.pass_obj
def pools_command(call: Invocation) -> int:
    """List the pools of the nodes that are online, with their free slots.

    In a pipe: a line a pool and node with pool, node and free slots, separated by tabs.

    --json: an object {pool: {node: free slots}}; null is no limit.
    """
    with call.client() as client:
        found = client.pools()
    call.printer().show(views.pools(found))
    return OK


@click.command("conf")
@click.argument("pairs", metavar="[NODE] [KEY=VALUE]...", nargs=-1)
@click.option("--explain", is_flag=True, help="Say of every setting what it means, without asking a node.")
@client_options
@json_option
@click.pass_obj
def conf_command(call: Invocation, /, pairs: tuple[str, ...], explain: bool) -> int:
    """Show the configuration of a running node, after changing it if KEY=VALUE are given. Lasts until it restarts.

    Without NODE it is the node that is asked. Another one is asked itself, at its address as `mks nodes` shows it.

    \b
      mks conf pools.p.slots=4 pools.q.hold=true
      mks conf b pools.p.slots=4
      mks conf pools.q=null                     remove pool q

    --json: the configuration as an object; with --explain an array of {key, allowed, default, description}.
    """  # noqa: D301 - click looks for the character itself
    if explain:
        if pairs:
            raise click.UsageError("--explain changes nothing: leave out KEY=VALUE")
        from meeseeks.config import explain as explain_settings

        call.printer().show(views.explanations(explain_settings()))
        return OK
    change: dict[str, Any] = {}
    node, settings = (pairs[0], pairs[1:]) if pairs and "=" not in pairs[0] else (None, pairs)
    for pair in settings:
        _put(change, pair)
    if change:
        from meeseeks.core.tls_options import refuse_secret

        refuse_secret(change)
    with call.client() as client:
        found = client.request({"config": {} if node else change})["config"]
        if node == found["name"]:
            found = client.request({"config": change})["config"]
        elif node is not None:
            call.address = _address_of(node, client.nodes())
    if node not in (None, found["name"]):
        found = _of_another(call, node, change)
    call.printer().show(views.settings(found))
    return OK


def _of_another(call: Invocation, node: str, change: dict[str, Any]) -> dict[str, Any]:
    """The configuration of the node at `call.address`, changed if it is the one that is meant."""
    with call.client() as client:
        found: dict[str, Any] = client.request({"config": {}})["config"]
        if found["name"] != node:
            raise RequestFailed(
                f"{call.address} is where the asked node sees node {node!r}, but from here it is {found['name']!r}: "
                f"nothing was changed; name an address of {node!r} by --address"
            )
        if change:
            found = client.request({"config": change})["config"]
    return found


def _address_of(node: str, nodes: Mapping[str, Any]) -> str:
    """Where a node listens, as the asked one knows it."""
    if node not in nodes:
        known = ", ".join(sorted(nodes))
        raise InvalidRequest(f"no node {node!r} is known (nodes are: {known}); a setting has the form NAME=VALUE")
    if not nodes[node]["online"]:
        raise NodeUnreachable(f"node {node!r} is {nodes[node]['state']}: its configuration can't be asked for")
    from meeseeks.client.settings import Address

    return str(Address(nodes[node]["address"], nodes[node]["port"]))


def _put(change: dict[str, Any], pair: str) -> None:
    """`a.b=value` into nested maps. A value that is JSON (number, true, null, list) is that, any other is text."""
    key, text = name_value(pair)
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    *outer, last = key.split(".")
    place = change
    for name in outer:
        place = place.setdefault(name, {})
        if not isinstance(place, dict):
            raise InvalidRequest(f"{pair!r} goes into {name!r}, which is given a value as well")
    place[last] = value
