"""Nodes that a command starts for itself, and the folder in which that was called."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from meeseeks.cli.local_mesh import LocalMesh


@pytest.mark.parametrize("name", ["logging.py", "zmq.py"])
def test_a_local_mesh_takes_no_modules_from_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / name).write_text("raise SystemExit('this is of the working folder')")
    monkeypatch.chdir(folder)
    with LocalMesh(tmp_path, ["a"], ["pools.p.slots=1"]) as mesh, mesh.client() as client:
        (jid,) = client.submit(pool="p", args=["pwd"])
        client.wait_for([jid], timeout=20)
        assert base64.b64decode(client.query(jid)["stdout_data"]) == f"{folder}\n".encode()
