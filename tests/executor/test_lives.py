"""What becomes of tasks when their executor stops, dies or is told nonsense, and another one comes."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from meeseeks.core.effects import Adopted, Exited, SetSlots
from meeseeks.executor.handle import ExecutorHandle
from tests.support.processes import is_running
from tests.support.wait import wait_until

IGNORES_TERM = "trap '' TERM; echo up; while :; do sleep 0.01; done"


def up(node, key):
    """The task has set up its trap."""
    return wait_until(lambda: node.poll() and node.handle.spool.size(key, "stdout"))


def test_a_new_executor_has_nothing(node):
    assert node.adopted() == Adopted()


def test_there_is_one_adopted(node):
    node.adopted()
    node.exited(node.start("a", "true"))
    assert sum(isinstance(event, Adopted) for event in node.poll()) == 1


def test_the_executor_has_a_session_of_its_own(node):
    node.adopted()
    pid = node.executor_pid()
    assert os.getsid(pid) == pid


def test_stop_ends_all_tasks(node):
    node.send(SetSlots("p", 2))
    gentle = node.start("gentle", "sh", "-c", "trap 'exit 3' TERM; echo up; while :; do sleep 0.01; done")
    stubborn = node.start("stubborn", "sh", "-c", IGNORES_TERM, grace=0.3)
    waiting = node.start("waiting", "true")
    up(node, gentle)
    up(node, stubborn)
    pid = node.executor_pid()
    node.events += node.handle.stop()
    ends = {event.key: event for event in node.events if isinstance(event, Exited)}
    assert (ends[gentle].rc, ends[gentle].error) == (3, "executor stopped")
    assert ends[stubborn].rc == -9
    node_dropped = [event.key for event in node.events if type(event).__name__ == "Dropped"]
    assert node_dropped == [waiting]
    assert not is_running(pid)
    assert not list(node.handle.spool.folder.parent.glob("*.sock"))


def test_stop_kills_an_executor_that_does_not_answer(node):
    key = node.start("a", "sleep", "60")
    task = node.started(key).pid
    pid = node.executor_pid()
    os.kill(pid, signal.SIGSTOP)
    node.handle.stop(timeout=0.2)
    assert not is_running(pid)
    assert not is_running(task)


def test_an_executor_ends_with_exit_code_0(node):
    node.adopted()
    process = node.handle._process
    node.handle.stop()
    assert process.returncode == 0


def test_a_killed_executor_is_noticed_and_replaced(node, tmp_path):
    script = """
import os, time
if os.fork() == 0:
    os.setsid()
    open("child", "w").write(str(os.getpid()))
while True: time.sleep(60)
"""
    key = node.script("a", script, config={"cwd": str(tmp_path)})
    task = node.started(key).pid
    child = int(wait_until(lambda: (tmp_path / "child").exists() and (tmp_path / "child").read_text()))
    done = node.start("done", "true")
    node.exited(done)
    assert not node.handle.died()
    os.kill(node.executor_pid(), signal.SIGKILL)
    wait_until(node.handle.died)
    node.events.clear()
    node.handle.restart()
    assert not node.handle.died()
    assert node.adopted() == Adopted()
    assert node.exited(key).error == "executor lost"
    assert node.exited(done).rc == 0  # not acked: it is told once more
    assert not is_running(task)
    assert not is_running(child)
    assert node.exited(node.start("a", "true", run=2)).rc == 0


def test_a_state_folder_with_a_long_path(make_node, tmp_path):
    folder = tmp_path / ("d" * 120) / "state"
    node = make_node(folder)
    assert node.exited(node.start("a", "true")).rc == 0
    own = node.handle._path.parent
    assert not own.is_relative_to(tmp_path)
    assert own.stat().st_mode & 0o777 == 0o700
    node.handle.stop()
    assert not own.exists()


def test_unreadable_orders_are_dropped(node):
    node.adopted()
    node.handle.line.send(b"\xc1nonsense")
    node.handle.line.send(b"")
    assert node.exited(node.start("a", "true")).rc == 0


def test_a_greeting_is_answered(node):
    key = node.start("a", "sleep", "60")
    node.started(key)
    ended = node.start("b", "true")
    node.exited(ended)
    node.events.clear()
    node.handle._is_adopted = False  # as if this were a new node
    node.handle.line.send(b"\x90")
    assert [started.key for started in node.adopted().running] == [key]
    assert node.exited(ended).rc == 0


@pytest.mark.parametrize("stops", [1, 2])
def test_signals_to_the_executor(node, stops):
    key = node.start("a", "sh", "-c", IGNORES_TERM, grace=1.0 if stops == 1 else 100)
    up(node, key)
    pid = node.executor_pid()
    before = time.monotonic()
    os.kill(pid, signal.SIGTERM)
    if stops == 2:
        wait_until(lambda: Path(f"/proc/{pid}/status").exists())
        os.kill(pid, signal.SIGINT)
    assert node.exited(key).rc == -9
    wait_until(node.handle.died)
    assert time.monotonic() - before < 9
    node.handle._reap()
    node.handle._close()


def test_sighup_is_for_nodes(node):
    key = node.start("a", "sleep", "60")
    task = node.started(key).pid
    signal.pidfd_send_signal(node.handle.pidfd, signal.SIGHUP)
    for config in ({}, {"umask": 0o22}):  # by posix_spawn, and by Popen
        end = node.run("sh", "-c", "kill -HUP $$", config=config)
        assert end.error == "ended by signal SIGHUP", "jobs start with the default action"
    assert is_running(task)


def test_a_handle_needs_no_events_loop_to_start(tmp_path):
    """Orders wait until the executor has said what it has."""
    handle = ExecutorHandle(tmp_path / "state", "n")
    try:
        handle.send([SetSlots("p", 1)])
        assert not handle.is_ready
        assert not handle.flush()
        wait_until(lambda: handle.receive() and handle.is_ready)
        assert handle.flush()
    finally:
        handle.stop()
