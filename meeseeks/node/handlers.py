"""One function a request type: what arrived becomes a call of the core, and its result the reply.

A handler returns the result, or LATER if it will be given to `asker.answer` when another node has answered.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from meeseeks.core.names import NameTaken
from meeseeks.errors import InvalidRequest
from meeseeks.wire import codec
from meeseeks.wire.messages import (
    SUBMITS_MAX,
    SYNC_BATCH,
    FollowWanted,
    Hello,
    InputPiece,
    OutputWanted,
    SyncRequest,
)

if TYPE_CHECKING:
    from .asker import Asker
    from .node import Node

__all__ = ["HANDLERS", "LATER"]

LATER = object()
"""The result is not known yet."""


def _submit(node: Node, data: Any, asker: Asker) -> Any:
    return node.state.requests.submit(data)


def _submit_many(node: Node, data: Any, asker: Asker) -> Any:
    if isinstance(data, list) and len(data) > SUBMITS_MAX:
        raise InvalidRequest(
            f"submit_many takes up to {SUBMITS_MAX} jobspecs a request, not {len(data)}: send them in parts"
        )
    return node.state.requests.submit_many(data)


def _query(node: Node, data: Any, asker: Asker) -> Any:
    found = node.state.requests.query(data)
    if isinstance(data, str) and found is not False and node.streams.output.complete(data, found, asker.answer):
        return LATER
    return found


def _kill(node: Node, data: Any, asker: Asker) -> Any:
    return node.state.requests.kill(data)


def _adopt(node: Node, data: Any, asker: Asker) -> Any:
    return node.state.requests.adopt(data)


def _forget(node: Node, data: Any, asker: Asker) -> Any:
    return node.forget(data)


def _ls(node: Node, data: Any, asker: Asker) -> Any:
    return node.state.requests.ls(data)


def _nodes(node: Node, data: Any, asker: Asker) -> Any:
    found = node.state.nodes()
    # A node that advertises no address does not know by which it is seen, but it knows where it listens.
    found[node.name]["address"] = found[node.name]["address"] or node.config.listen.address
    return found


def _pools(node: Node, data: Any, asker: Asker) -> Any:
    return node.state.requests.pools()


def _config(node: Node, data: Any, asker: Asker) -> Any:
    if data is not None and not isinstance(data, dict):
        raise InvalidRequest(f"config takes a map of settings, not {type(data).__name__}")
    return node.change_config(data or {})


def _output(node: Node, data: Any, asker: Asker) -> Any:
    node.streams.output.read(codec.convert(data, OutputWanted), asker.answer)
    return LATER


def _follow(node: Node, data: Any, asker: Asker) -> Any:
    node.streams.follows.ask(codec.convert(data, FollowWanted), asker.answer)
    return LATER


def _input(node: Node, data: Any, asker: Asker) -> Any:
    node.streams.input.write(codec.convert(data, InputPiece), asker.answer)
    return LATER


def _hello(node: Node, data: Any, asker: Asker) -> Any:
    hello = codec.convert(data, Hello)
    for key, port in (("port", hello.port), ("pub_port", hello.pub_port)):
        if not 1 <= port <= 65535:
            raise InvalidRequest(f"hello: {key} must be from 1 to 65535, not {port}")
    if any(char.isspace() or not char.isprintable() for char in hello.address + hello.node) or not hello.node:
        raise InvalidRequest("hello: node and address are names without white space")
    is_proved = node.access.proves(hello, asker.user)
    try:
        node.state.mesh.check_name(hello.node, hello.incarnation)
    except NameTaken as error:
        node.access.on_turned_away(asker.host, str(error))
        raise
    if is_proved:  # if not, it comes again by the key of its own
        node.state.on_met(hello.node, hello.incarnation, hello.address or asker.host, hello.port, hello.pub_port)
    return node.hello()


def _sync(node: Node, data: Any, asker: Asker) -> Any:
    wanted = codec.convert(data, SyncRequest)
    return node.state.sync(wanted.incarnation, wanted.since, wanted.origin, SYNC_BATCH)


HANDLERS: dict[str, Callable[[Node, Any, Asker], Any]] = {
    "submit": _submit,
    "submit_many": _submit_many,
    "query": _query,
    "kill": _kill,
    "adopt": _adopt,
    "forget": _forget,
    "ls": _ls,
    "nodes": _nodes,
    "pools": _pools,
    "config": _config,
    "output": _output,
    "follow": _follow,
    "input": _input,
    "hello": _hello,
    "sync": _sync,
}
