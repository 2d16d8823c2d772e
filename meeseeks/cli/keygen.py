"""`mks keygen`: make the key of a mesh, or that of a user of it."""

from __future__ import annotations

from pathlib import Path

import click

from meeseeks.errors import ConfigError

from .exits import OK
from .invocation import debug_option

__all__ = ["keygen_command"]


@click.command("keygen")
@click.argument("file", metavar="[FILE]", type=click.Path(path_type=Path), required=False)
@click.option("--client", "is_client", is_flag=True, help="Make the key of a user, who may do what --role says.")
@click.option(
    "--role",
    type=click.Choice(["read", "submit", "admin"]),
    help="With --client: look on; also submit and kill (the default); also see and change the configuration of nodes.",
)
@click.option(
    "--mesh",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="With --client: the mesh's key; default: the one in use.",
)
@debug_option
def keygen_command(*, file: Path | None, is_client: bool, role: str | None, mesh: Path | None) -> int:
    """Make a key file. The first node does so by itself: this is for other machines, other users and other meshes.

    \b
      mks keygen new.key                           a mesh key; each machine of the mesh needs a copy
      mks keygen --client ann.key --role read      ann.key for Ann, ann.key.pub for the nodes' authorized folder

    Without FILE the mesh key is made where nodes and clients look for it. What is there is never overwritten.
    """  # noqa: D301 - click looks for the character itself
    from meeseeks.wire.curve import default_key_path, load_key, make_client_key, make_mesh_key

    if not is_client:
        if role or mesh:
            raise click.UsageError("--role and --mesh go with --client: a mesh key may do everything")
        path = file or default_key_path()
        if path.exists():
            raise ConfigError(f"{path} is there already: name another file, or remove it if no mesh uses it any more")
        make_mesh_key(path)
        click.echo(f"made {path}: whoever has it may do everything in the mesh")
        return OK
    if file is None:
        raise click.UsageError("--client needs the name of a FILE to make")
    found = load_key(mesh or default_key_path())
    if found is None:
        raise ConfigError(f"there is no key at {mesh or default_key_path()}: name the mesh's key with --mesh FILE")
    try:
        card = make_client_key(file, found.server, role or "submit")
    except FileExistsError as error:
        raise ConfigError(f"{file} or {file}.pub is there already: name another file") from error
    click.echo(f"made {file}: for the user alone, who names it in MEESEEKS_KEY or keeps it as {default_key_path()}")
    click.echo(f"made {card}: copy it to the folder of authorized keys of each node")
    return OK
