"""`mks adopt`: what becomes of the jobs of a submit node that never comes back (DESIGN section 3)."""

from __future__ import annotations

import click

from . import views
from .exits import OK
from .invocation import Invocation, client_options, json_option
from .output import Listing

__all__ = ["adopt_command"]


@click.command("adopt")
@click.argument("node", metavar="NODE")
@client_options
@json_option
@click.pass_obj
def adopt_command(call: Invocation, /, node: str) -> int:
    """Make the node that is asked the submit node of NODE's jobs, which wait for it otherwise. For a NODE that is gone.

    \b
      mks adopt b                     the jobs that b had taken and given to nobody are given to nodes now
      mks --address head adopt b      by the node at head

    Prints how many, and their ids, a line each. Refused while NODE is heard of: stop it first, and be sure that it
    does not come back. --json: an object {id: jobinfo}.
    """  # noqa: D301 - click looks for the character itself
    with call.client() as client:
        adopted = client.request({"adopt": node})["adopt"]
    shown = {jid: views.masked(info) for jid, info in adopted.items()}
    if call.json:
        call.printer().show(Listing(shown, (), ()))
        return OK
    click.echo(f"adopted {len(adopted)} job{'' if len(adopted) == 1 else 's'} of node {node}")
    for jid in adopted:
        click.echo(jid)
    return OK
