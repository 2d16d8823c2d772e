"""The mark that a process can't lose by chance: a limit that the kernel ignores."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import uuid

import pytest

from meeseeks.core.effects import Exited
from meeseeks.executor.brands import brand
from meeseeks.executor.processes import inspect, lock_limit_of, mark_of
from tests.executor.test_ends import executor_of
from tests.support.processes import children_of
from tests.support.wait import wait_until

LOCKS = 10
LIMITED = """#!{python}
import os, resource, sys
resource.setrlimit(10, (4, 5))
os.execv("{python}", ["{python}", *sys.argv[1:]])
"""


def test_no_two_tasks_share_a_brand():
    families = [uuid.uuid4().hex for _ in range(100)]
    brands = {brand(f"{family}.{number}") for family in families for number in range(1, 101)}
    assert len(brands) == 10_000
    assert all(1 << 60 < one < 1 << 61 for one in brands)
    assert brand("of an older version") == brand("of an older version.x"), "any text will do"


@pytest.mark.parametrize("config", [{}, {"umask": 0o22}], ids=["posix_spawn", "Popen"])
def test_a_task_has_the_brand_of_its_mark_and_the_executor_none(node, config):
    task = node.started(node.start("a", "sleep", "60", config=config)).pid
    assert lock_limit_of(task) == brand(mark_of(task))
    assert lock_limit_of(executor_of(task)) is None


def test_a_node_that_a_job_has_started_hands_down_no_brand(make_node):
    before, hard = resource.getrlimit(LOCKS)
    if hard != resource.RLIM_INFINITY:
        pytest.skip("the hard limit is low here")
    resource.setrlimit(LOCKS, (brand("x.1"), hard))
    try:
        node = make_node()
    finally:
        resource.setrlimit(LOCKS, (before, hard))
    task = node.started(node.start("a", "sleep", "60")).pid
    assert lock_limit_of(executor_of(task)) is None


@pytest.mark.parametrize("config", [{}, {"umask": 0o22}], ids=["posix_spawn", "Popen"])
def test_where_the_hard_limit_is_low_tasks_run_without(make_node, tmp_path, monkeypatch, config):
    program = tmp_path / "python"
    program.write_text(LIMITED.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    node = make_node()
    task = node.started(node.start("a", "sleep", "60", config=config)).pid
    assert lock_limit_of(task) == 4
    assert node.run("true").rc == 0


CONTAINED = """
import ctypes, os, sys, time
if os.fork() == 0:
    os.setsid()
    if ctypes.CDLL(None).unshare(0x20000000): os._exit(1)  # CLONE_NEWPID
    if os.fork() == 0:
        os.execve("/bin/sleep", ["sleep", "60"], {})
    os._exit(0)
os.wait()
while not os.path.exists("go"): time.sleep(0.001)
"""


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("nsenter") is None, reason="root makes namespaces, by nsenter")
def test_what_hangs_in_its_exit_holds_up_no_other_job(node, tmp_path):
    """The first process of a pid namespace ends only when all in it are reaped: also those that came from outside."""
    other = node.start("other", "sleep", "60")
    key = node.script("a", CONTAINED, config={"cwd": str(tmp_path)})
    executor, leader = executor_of(node.started(other).pid), node.started(key).pid

    def orphan():
        others = {leader, node.started(other).pid}
        return next((pid for pid in children_of(executor) if pid not in others), None)

    first = wait_until(orphan)
    visitor = subprocess.Popen(["nsenter", f"--pid=/proc/{first}/ns/pid", "sleep", "60"])
    try:
        wait_until(lambda: children_of(visitor.pid))
        visitor.send_signal(signal.SIGSTOP)
        wait_until(lambda: inspect(visitor.pid).state == "T")
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: inspect(first).is_exiting)
        assert not inspect(first).is_dead
        assert node.run("true").rc == 0
        (tmp_path / "go").touch()
        assert node.run("true").rc == 0
        node.kill(other, 0)
        assert node.exited(other).rc == -signal.SIGKILL
        assert key not in {event.key for event in node.poll() if isinstance(event, Exited)}
    finally:
        visitor.send_signal(signal.SIGCONT)
        visitor.wait()
    assert node.exited(key).rc == 0
