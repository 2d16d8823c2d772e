"""What every command shares: the options of a call, the Client that it talks through, and the printer of its answer."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from meeseeks.errors import NodeUnreachable

if TYPE_CHECKING:
    from meeseeks import Client

    from .output import Printer

__all__ = ["Invocation", "address_option", "client_options", "debug_option", "json_option", "timeout_option"]

F = TypeVar("F", bound=Callable[..., Any])

_CLIENT_KEYS = ("address", "port", "timeout", "security", "ssl")
"""What of MEESEEKS_CONF concerns `mks`, which needs no cache."""

_DEFAULT_TIMEOUT_S = 10.0
_REFUSED_WITHIN_S = 1.0


class Invocation:
    """One call of `mks`. Click's options write into it before the command runs."""

    def __init__(self) -> None:
        self.address: str | None = None
        self.timeout: float | None = None
        self.at_most: float | None = None
        """Seconds that a command has for all of its questions, and so the most that one may take."""
        self.json = False
        self.debug = False

    def client(self, **more: Any) -> Client:
        """A Client of the node that the options, or else MEESEEKS_CONF, or else the defaults name.

        NodeUnreachable at once where nothing listens: a Client would wait for the node's restart until its timeout,
        which is right for a service and not for a person. `more` are options of the Client.
        """
        import logging

        from meeseeks import Client
        from meeseeks.client.settings import DEFAULT_PORT, parse_environment

        # What the Client logs is told by its errors as well: without a handler Python would print it besides.
        logging.getLogger("meeseeks").addHandler(logging.StreamHandler() if self.debug else logging.NullHandler())
        found = parse_environment(os.environ.get("MEESEEKS_CONF", ""))
        options = {key: found[key] for key in _CLIENT_KEYS if key in found}
        if self.address is not None:
            options["address"] = self.address
        if self.timeout is not None:
            options["timeout"] = self.timeout
        asked = options.get("timeout", _DEFAULT_TIMEOUT_S)
        if self.at_most is not None and isinstance(asked, (int, float)):  # else the Client says what is wrong with it
            options["timeout"] = min(asked, self.at_most)
        _check_reachable(options.get("address"), options.get("port", DEFAULT_PORT))
        return Client(**options, **more)

    def printer(self) -> Printer:
        """The one printer of this call: JSON if asked for, tables for a terminal, plain lines otherwise."""
        from .output import choose_printer

        return choose_printer(as_json=self.json)


def _check_reachable(address: Any, port: Any) -> None:
    """NodeUnreachable if no address takes a connection: each is refused, or is a name that stands for no host.

    Of anything else the Client knows more to say.
    """
    from meeseeks.client.settings import parse_addresses

    reasons: list[str] = []
    refusing: list[str] = []
    for each in parse_addresses(address, port):
        try:
            hosts = each.resolve()
        except NodeUnreachable as error:  # the next one may be there
            reasons.append(str(error))
            continue
        if not all(_refuses(host, each.port) for host in hosts):
            return
        refusing.append(str(each))
    if refusing:
        where = " or ".join(refusing)
        reasons.append(f"no node answers at {where}: connection refused; is it running? start it with 'mks node'")
    raise NodeUnreachable("; ".join(reasons))


def _refuses(host: str, port: int) -> bool:
    """Whether nothing listens there."""
    import socket

    # Not create_connection: it looks a literal up once more, for which Python loads the tables of IDNA.
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as trial:
        trial.settimeout(_REFUSED_WITHIN_S)
        try:
            trial.connect((host, port))
        except OSError as error:
            return isinstance(error, ConnectionRefusedError)
    return False


def _store(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    if value is not None:
        setattr(ctx.ensure_object(Invocation), str(param.name), value)


def address_option(command: F) -> F:
    """`--address`."""
    return click.option(
        "--address",
        metavar="HOST[:PORT][,...]",
        expose_value=False,
        callback=_store,
        help="The node to ask, or several, used in turn when one is gone; default: MEESEEKS_CONF, or localhost:13700.",
    )(command)


def timeout_option(command: F) -> F:
    """`--timeout` of a request."""
    return click.option(
        "--timeout",
        type=click.FloatRange(min=0, min_open=True),
        metavar="SECONDS",
        expose_value=False,
        callback=_store,
        help="How long to wait for the node's answer; default 10.",
    )(command)


def json_option(command: F) -> F:
    """`--json`."""
    return click.option(
        "--json", is_flag=True, default=None, expose_value=False, callback=_store, help="Print JSON, for programs."
    )(command)


def debug_option(command: F) -> F:
    """`--debug`."""
    return click.option(
        "--debug",
        is_flag=True,
        default=None,
        is_eager=True,
        expose_value=False,
        callback=_store,
        help="Show the traceback of an error.",
    )(command)


def client_options(command: F) -> F:
    """The options of every command that asks a node: `--address`, `--timeout`, `--debug`."""
    return address_option(timeout_option(debug_option(command)))
