"""The store's file: what it refuses, what it moves aside, and how long it takes to come back to many jobs."""

from __future__ import annotations

import logging
import os
import resource
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from meeseeks import config
from meeseeks.core.node_state import NodeState
from meeseeks.core.record import Record, Spec, Status
from meeseeks.errors import ConfigError
from meeseeks.node.durability import Durability
from meeseeks.node.folder import StateFolder
from meeseeks.node.store import FORMAT, STORE_NAME, Store
from meeseeks.wire.messages import Reply
from tests.support.nodes import mesh


def a_job(number: int) -> tuple[int, Record]:
    spec = Spec(id=f"j{number}", pool="p", args=("true",), submit_node="a", tags=("x",))
    return number, Record(spec, Status(epoch=(1, "a"), state="done", node="a", rc=0))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / STORE_NAME


@pytest.mark.parametrize("sync", ["acks", "all", "os"])
def test_what_was_stored_is_there_again(path, sync):
    store = Store(path, sync)
    assert (store.boot, store.rows) == (0, [])
    store.begin(0)
    rows = [a_job(number) for number in range(1, 6)]
    assert store.save_asked(rows[:3], 3, 0.0)
    store.save(rows[3:], ["j1"], 7, 0.0)
    store.close()
    again = Store(path, sync)
    assert (again.incarnation, again.boot, again.seq, again.rows) == (store.incarnation, 1, 7, rows[1:])
    again.begin(1007)
    again.close()
    third = Store(path, sync)
    assert (third.boot, third.seq) == (2, 1007)  # although it wrote nothing: its numbers are not used again
    third.close()


def test_a_store_forces_to_the_disk_although_no_file_can_be_opened_any_more(path):
    store = Store(path, "acks")
    store.begin(0)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        assert store.save_asked([a_job(1)], 1, 0.0)
        assert store.settle(0.0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert store.trouble is None
    store.close()


def test_a_file_of_somebody_else_is_refused_and_stays(path):
    path.write_text("my shopping list, which nobody may overwrite")
    with pytest.raises(ConfigError, match="is no store of jobs: move it away"):
        Store(path, "acks")
    assert path.read_text().startswith("my shopping list")


def test_a_database_of_another_program_is_refused_and_stays(path):
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE recipes (name TEXT)")
    db.close()
    with pytest.raises(ConfigError, match="database of another program"):
        Store(path, "acks")


def test_a_later_format_is_refused(path):
    Store(path, "acks").close()
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version = {FORMAT + 1}")
    db.close()
    with pytest.raises(ConfigError, match=f"has format {FORMAT + 1} of a later meeseeks"):
        Store(path, "acks")


def test_a_damaged_store_is_moved_aside_and_told(path, caplog):
    store = Store(path, "acks")
    store.begin(0)
    assert store.save_asked([a_job(number) for number in range(1, 500)], 500, 0.0)
    store.close()
    damaged = bytearray(path.read_bytes())
    damaged[4096:-4096] = b"\xff" * (len(damaged) - 8192)
    path.write_bytes(damaged)
    with caplog.at_level(logging.ERROR):
        again = Store(path, "acks")
    assert (again.rows, again.boot) == ([], 0)
    assert again.incarnation != store.incarnation
    again.close()
    (aside,) = path.parent.glob("*.corrupt-*")
    assert aside.read_bytes() == bytes(damaged)
    assert "is damaged" in caplog.text
    assert aside.name in caplog.text


def test_the_output_of_jobs_that_a_damaged_store_lost_is_kept(tmp_path):
    with mesh(tmp_path, 1) as (node,):
        with node.client() as client:
            client.submit(id="j", pool="p", args=["seq", "9999"])
            client.wait_for("j", 20)
        node.stop()
        state = node.folder / "state"
        kept = {path: path.read_bytes() for path in state.rglob("*") if path.is_file()}
        kept = {path: data for path, data in kept.items() if data.endswith(b"\n9999\n")}
        assert kept
        path = state / STORE_NAME
        path.write_bytes(path.read_bytes()[:4096] + b"\xff" * 8192)
        node.restart()
        assert "is damaged" in node.stderr
        assert {path: path.read_bytes() for path in kept} == kept


def test_a_folder_that_is_none_or_a_second_node_on_it_is_one_sentence(tmp_path):
    def start(folder: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "meeseeks.node", "name=z", "listen.port=0", f"state.dir={folder}"]
        return subprocess.run(command, capture_output=True, text=True, timeout=30)

    (tmp_path / "file").write_text("")
    refused = start(tmp_path / "file" / "state")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "can't be used" in refused.stderr.splitlines()[-1]
    with mesh(tmp_path, 1) as (node,):
        second = start(node.folder / "state")
        assert second.returncode == 1
        assert "is in use by another node" in second.stderr.splitlines()[-1]


def test_what_could_not_be_stored_is_told_to_nobody(full_disk):
    """Of a turn whose commit fails no answer may leave that knows of its jobs: a peer would merge them."""
    settings = config.load(pairs=["name=a", f"state.dir={full_disk / 'state'}", "pools.p.slots=1"])
    durability = Durability(settings, StateFolder(settings.state_dir, settings.name, keep_output=True))
    state = NodeState(settings.settings(), durability.incarnation, 0.0, 0.0)
    state.requests.submit({"id": "old", "pool": "p", "args": ["true"]})
    before = state.table.get("old")
    with (full_disk / "filler").open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(b"x" * 4096)
    durability.watch(state)
    large = ["x" * 200_000]
    answers = {
        "submit": state.requests.submit({"id": "new", "pool": "p", "args": large}),
        "kill": state.requests.kill("old"),
        "query": state.requests.query({}),
        "ls": state.requests.ls({}),
        "sync": state.sync("", 0, None, 100),
        "config": {},
    }
    replies = [([b"asker"], Reply(id=1, node="a", response={kind: answer})) for kind, answer in answers.items()]
    durability.save_asked(state, replies, 0)
    told = {next(iter(reply.response)) for _, reply in replies if reply.response is not None}
    assert told == {"config"}  # it says nothing of jobs, and was carried out
    assert {reply.error.message for _, reply in replies if reply.error is not None} >= {durability._refusal()}
    assert "new" not in state.table
    assert state.table.get("old") == before
    assert state.requests.ls({"state": "new"}) == ["old"]
    durability.close()


def test_the_name_in_a_state_folder_is_the_same_in_every_locale(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib, meeseeks.node.folder as folder\n"
        "folder.StateFolder(pathlib.Path(sys.argv[1]), 'n\\u0153ud', keep_output=True)"
    )
    for locale in ("C", "C.UTF-8"):  # without Python's UTF-8 mode, the first of them knows ASCII only
        environment = {**os.environ, "LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
        subprocess.run([sys.executable, "-c", script, str(tmp_path)], env=environment, check=True, timeout=30)
    assert (tmp_path / "name").read_bytes() == "nœud".encode()
