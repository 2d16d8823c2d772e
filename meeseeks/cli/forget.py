"""`mks forget`: a name that another machine may have, since the node that had it is gone for good."""

from __future__ import annotations

import click

from .exits import OK
from .invocation import Invocation, client_options, json_option
from .output import Listing

__all__ = ["forget_command"]


@click.command("forget")
@click.argument("node", metavar="NODE")
@client_options
@json_option
@click.pass_obj
def forget_command(call: Invocation, /, node: str) -> int:
    """Let another machine have the name of NODE, which is gone for good, or was set up anew without its state folder.

    \b
      mks forget b                    and then start the new b

    A name belongs to the node that came with it first; a node is told by identity.key in its state folder. This makes
    the node that is asked forget it, and all that it is linked to. Refused while NODE is online. Its jobs are judged as
    before: this is no `mks adopt`. --json: an object {node, known}.
    """  # noqa: D301 - click looks for the character itself
    with call.client() as client:
        answer = client.request({"forget": node})["forget"]
    if call.json:
        call.printer().show(Listing(answer, (), ()))
    else:
        click.echo(f"forgot node {node}" if answer["known"] else f"no node {node} was known; others were told as well")
    return OK
