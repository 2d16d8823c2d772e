"""The file in which a node keeps the names of others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from meeseeks.core.names import Names
from meeseeks.node.identity import Identity, KnownNames, mark_of


def test_names_are_known_again_after_a_restart(tmp_path: Path) -> None:
    names = Names()
    kept = KnownNames(tmp_path, names)
    names.learn("b", "B.1")
    kept.tick()
    again = Names()
    KnownNames(tmp_path, again)
    assert again.known == {"b": "B"}
    names.forget("b")
    kept.tick()
    assert json.loads((tmp_path / "names.json").read_text()) == {}


@pytest.mark.parametrize("text", ["", "[]", '{"b": 3}', "\xff", "{"])
def test_a_file_that_is_none_is_told_and_written_anew(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "names.json").write_text(text, encoding="latin-1")
    names = Names()
    kept = KnownNames(tmp_path, names)
    assert names.known == {}
    assert "names.json can't be read" in caplog.text
    names.learn("b", "B.1")
    kept.tick()
    assert json.loads((tmp_path / "names.json").read_text()) == {"b": "B"}


def test_a_full_disk_is_told_and_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = Names()
    kept = KnownNames(tmp_path, names)
    (tmp_path / "names.part").mkdir()  # nothing can be written there
    names.learn("b", "B.1")
    kept.tick()
    assert "can't be written" in caplog.text
    (tmp_path / "names.part").rmdir()
    kept.tick()
    assert json.loads((tmp_path / "names.json").read_text()) == {"b": "B"}


def test_an_identity_stays_and_marks_what_its_node_says(tmp_path: Path) -> None:
    one, again = Identity(tmp_path, None), Identity(tmp_path, None)
    assert one.public == again.public
    assert one.incarnation("x") == f"{mark_of(one.public)}.x"
    assert "." not in mark_of(one.public)
