"""Exit code 4, and one line that says what to do: whoever is not let in, for whatever reason."""

from __future__ import annotations

from pathlib import Path

import pytest
import zmq

from meeseeks.wire.curve import make_client_key
from tests.cli.conftest import Answer, call
from tests.support.curve import mesh_key
from tests.support.nodes import NodeProcess, mesh


def is_told(answer: Answer, *words: str) -> None:
    assert (answer.code, answer.out, answer.err.count("\n")) == (4, "", 1), answer
    for word in words:
        assert word in answer.err


def ask(node: NodeProcess, options: str, *args: str) -> Answer:
    return call(node, *args, env={"MEESEEKS_CONF": f"address={node.address} port={node.port} {options}"})


@pytest.mark.parametrize("args", [["nodes"], ["run", "p", "--", "true"], ["wait", "x"], ["kill", "x"]], ids=" ".join)
def test_a_key_that_is_not_known(nodes: list[NodeProcess], tmp_path: Path, args: list[str]) -> None:
    make_client_key(tmp_path / "k", mesh_key().server, "admin")
    is_told(ask(nodes[0], f"security.key={tmp_path / 'k'}", *args), "is not authorized there", str(tmp_path / "k"))


def test_a_key_of_another_mesh_or_none(nodes: list[NodeProcess], tmp_path: Path) -> None:
    make_client_key(tmp_path / "k", zmq.curve_keypair()[0], "admin")
    is_told(ask(nodes[0], f"security.key={tmp_path / 'k'}", "ls"), "is that of another mesh")
    is_told(ask(nodes[0], f"security.key={tmp_path / 'none'}", "ls"), "there is no key at", "MEESEEKS_KEY")
    is_told(ask(nodes[0], "security.mode=none", "ls"), "it expects a key")


def test_a_key_at_a_plain_node(tmp_path: Path) -> None:
    with mesh(tmp_path, 1, client={"security": {"mode": "none"}}, **{"security.mode": "none"}) as (node,):
        is_told(ask(node, "", "ls"), "security.mode=none")
        assert ask(node, "security.mode=none", "ls").code == 0


def test_a_role_that_may_not(tmp_path: Path) -> None:
    folder = tmp_path / "authorized"
    folder.mkdir()
    with mesh(tmp_path, 1, **{"security.authorized": folder}) as (node,):
        for role, args in (
            ("read", ["sub", "p", "--", "true"]),
            ("read", ["kill", "x"]),
            ("submit", ["conf", "wait_in_pool=true"]),
            ("submit", ["adopt", "z"]),
            ("submit", ["forget", "z"]),
        ):
            key = tmp_path / role
            if not key.exists():
                card = make_client_key(key, mesh_key().server, role)
                card.rename(folder / card.name)
            is_told(ask(node, f"security.key={key}", *args), f"the role {role!r}")
