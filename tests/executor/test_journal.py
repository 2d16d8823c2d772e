"""The journal of an executor names all that runs, so that nothing is left behind or forgotten when it is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from meeseeks.core.effects import Exited, Started, TaskKey
from meeseeks.executor.journal import JOURNAL_NAME, Journal, sweep
from tests.chaos.disk import Disk
from tests.support.processes import is_running
from tests.support.wait import wait_until


def test_what_was_started_and_not_told_before_all_were_killed_is_told_by_the_next_executor(make_node, tmp_path):
    first = make_node(outlive=True)
    first.adopted()
    runs = first.start("runs", "sh", "-c", f"echo out; echo up > {tmp_path}/runs; exec sleep 100")
    wait_until((tmp_path / "runs").exists)
    ended = first.start("ended", "sh", "-c", "echo said; exit 3")
    spooled = first.start("spooled", "head", "-c", "9999", "/dev/zero")
    for key in (ended, spooled):
        first.exited(key)
    os.kill(first.executor_pid(), signal.SIGKILL)  # and what it has told is forgotten: its node dies with it
    wait_until(first.handle.died)
    first.handle.detach()
    second = make_node(outlive=True)
    end = second.exited(runs)
    assert (end.rc, end.error, end.stdout_data) == (None, "executor lost", b"out\n")
    end = second.exited(ended)
    assert (end.rc, end.error, end.stdout_data) == (3, None, b"said\n")
    end = second.exited(spooled)
    assert (end.rc, end.spooled, end.stdout_data, end.stdout_size) == (0, True, None, 9999)
    for key in (runs, ended):
        second.ack(key)
    second.run("true")
    os.kill(second.executor_pid(), signal.SIGKILL)
    wait_until(second.handle.died)
    second.handle.detach()
    third = make_node(outlive=True)
    assert third.exited(spooled).rc == 0
    third.adopted()
    assert {event.key.job for event in third.events if isinstance(event, Exited)} & {"runs", "ended"} == set()


def test_the_journal_may_be_torn(node):
    key = node.start("a", "sleep", "60")
    task = node.started(key).pid
    os.kill(node.executor_pid(), signal.SIGKILL)
    wait_until(node.handle.died)
    journal = node.handle.spool.folder.parent / JOURNAL_NAME
    with journal.open("ab") as file:
        file.write(b'\n{"what": "start", "ma')
    assert sweep(journal) == 1
    assert not is_running(task)
    assert sweep(journal) == 0


@pytest.fixture
def disk(tmp_path):
    found = Disk.mounted(tmp_path / "disk", 1)
    if found is None:
        pytest.skip("no file system can be mounted here")
    yield found
    found.unmount()


def start_many_on_a_full_disk(node, disk, capfd, *args):
    """More than the journal has room for in its last page, whose line is torn then. Returns their keys."""
    node.adopted()
    disk.fill()
    keys = [node.start(f"{number}-{'j' * 200}", *args) for number in range(40)]
    said = []
    wait_until(lambda: said.append(capfd.readouterr().err) or "can't write" in "".join(said))
    node.kill(node.key("none"))
    node.dropped(node.key("none"))
    return keys


def test_nothing_runs_that_the_journal_does_not_name(make_node, disk, capfd):
    node = make_node(disk.folder / "state")
    start_many_on_a_full_disk(node, disk, capfd, "sleep", "60")
    os.kill(node.executor_pid(), signal.SIGKILL)
    wait_until(node.handle.died)
    tasks = [event.pid for event in node.poll() if isinstance(event, Started)]
    assert 5 < len(tasks) < 40
    sweep(disk.folder / "state" / JOURNAL_NAME)
    assert not [pid for pid in tasks if is_running(pid)]


def test_tasks_wait_for_room_in_the_journal_and_leave_it_whole(make_node, disk, capfd):
    node = make_node(disk.folder / "state")
    keys = start_many_on_a_full_disk(node, disk, capfd, "true")
    ended = [event.key for event in node.poll() if isinstance(event, Exited)]
    assert keys[-1] not in ended
    for key in ended:
        node.ack(key)
    disk.free()
    assert [node.exited(key).rc for key in keys] == [0] * len(keys)
    journal = (disk.folder / "state" / JOURNAL_NAME).read_text()
    assert "start" in {json.loads(line)["what"] for line in journal.splitlines()}, "each line is whole"


def test_a_sweep_leaves_strangers_alone(tmp_path):
    journal = tmp_path / "journal"
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    stranger = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        journal.write_text(
            f'{{"what": "boot", "boot": "{boot}"}}\n{{"what": "start", "mark": "m"}}\n'
            f'{{"what": "pid", "mark": "m", "pid": {stranger.pid}, "ticks": 12}}\n'
        )
        assert sweep(journal) == 0
        assert sweep(tmp_path / "none") == 0
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_journal_stays_small(tmp_path):
    journal = Journal(tmp_path / "journal")
    journal.starting("alive", TaskKey("alive", 1, (1, "n"), 1))
    for number in range(20_000):
        key = TaskKey("j" * 200, 1, (1, "n"), number)
        journal.starting(f"m{number}", key)
        journal.ended(f"m{number}", Exited(key=key, rc=0, end_ts=1.0))
        journal.acked(key)
    journal.close()
    assert (tmp_path / "journal").stat().st_size < 1_100_000
    assert (tmp_path / "journal").read_text().count('"alive"') == 2, "what lives is kept"
