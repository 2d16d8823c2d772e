"""An executor whose machine is short of something for a while: what it should start waits, and does not fail."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable
from itertools import count

from meeseeks.core.effects import Dropped, Exited, SetSlots, Started
from tests.support.wait import wait_until

WAITS = "Too many open files; it is tried again for 30 s"


def take_files(pid: int) -> Callable[[], object]:
    """From now on it can open no file; what is returned gives them back."""
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    used = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
    limit = next(number for number in count() if number not in used)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, limits[1]))
    return lambda: resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)


def test_tasks_wait_for_files_and_then_run_in_their_order(make_node, capfd):
    node = make_node()
    node.adopted()
    node.run("true")  # whatever is opened once is open
    give_back = take_files(node.executor_pid())
    node.events.clear()
    node.send(SetSlots("p", 1))
    keys = [node.start(f"j{i}", "echo", str(i)) for i in range(3)]
    wait_until(lambda: node.poll() or WAITS in capfd.readouterr().err)
    assert node.events == []
    give_back()
    assert [node.exited(key).stdout_data for key in keys] == [b"0\n", b"1\n", b"2\n"]
    assert [event.key for event in node.events if isinstance(event, Started)] == keys


def test_one_that_waits_for_files_can_be_killed_and_leaves_no_trace(make_node, capfd):
    node = make_node()
    node.adopted()
    node.run("true")
    give_back = take_files(node.executor_pid())
    key = node.start("j", "true")
    wait_until(lambda: WAITS in capfd.readouterr().err)
    node.kill(key)
    node.dropped(key)
    give_back()
    assert node.run("true").rc == 0
    signal.pidfd_send_signal(node.handle.pidfd, signal.SIGKILL)
    wait_until(node.handle.died)
    node.events.clear()
    node.handle.restart()
    node.adopted()
    assert not [event for event in node.events if isinstance(event, (Exited, Dropped)) and event.key == key]


def test_piped_input_leaves_files_for_the_rest(node):
    """With too many of them it could end no task."""
    node.adopted()
    pid = node.executor_pid()
    used = len(os.listdir(f"/proc/{pid}/fd"))
    _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + 40, hard))
    keys = [node.start(f"j{i}", "sh", "-c", "setsid sleep 60 & exec sleep 60", stdin="-") for i in range(40)]
    node.started(keys[0])
    wait_until(lambda: len([e for e in node.poll() if isinstance(e, Started)]) >= 5)
    for key in keys:
        node.kill(key, grace=0)
    for key in keys:
        wait_until(lambda key=key: any(isinstance(e, (Exited, Dropped)) and e.key == key for e in node.poll()))
    assert node.run("true").rc == 0
    assert node.executor_pid() == pid
