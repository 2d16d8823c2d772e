"""How tasks are ended: whatever a task has become, nothing of it is left when its end is told."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from meeseeks.clock import monotonic
from meeseeks.core.effects import Dropped, Exited, Renew
from meeseeks.executor.journal import JOURNAL_NAME
from meeseeks.executor.processes import mark_of, snapshot
from tests.chaos.clock import Clock, build
from tests.support.processes import is_running
from tests.support.wait import wait_until

IGNORES_TERM = """
import os, signal, time, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    open("child", "w").write(str(os.getpid()))
while True: time.sleep(60)
"""

LEFT_THE_GROUP = """
import os, time
if os.fork() == 0:
    os.setpgid(0, 0)
    open("child", "w").write(str(os.getpid()))
    while True: time.sleep(60)
while True: time.sleep(60)
"""

DAEMON = """
import os, resource, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        if "unbranded" in sys.argv: resource.setrlimit(10, (1, 1))
        if "clean" in sys.argv:
            text = "echo $$ > tmp; mv tmp child; sleep 60; true"
            os.execve("/bin/sh", ["sh", "-c", text], {"PATH": os.environ["PATH"]})
        with open("tmp", "w") as file: file.write(str(os.getpid()))
        os.rename("tmp", "child")  # who sees it sees all of it
        while True: time.sleep(60)
    os._exit(0)
os.wait()
if "exit" in sys.argv:
    while not os.path.exists("child"): time.sleep(0.001)
    sys.exit(7)
while True: time.sleep(60)
"""

STOPPED = """
import os, signal, time
if os.fork() == 0:
    open("child", "w").write(str(os.getpid()))
    os.kill(os.getpid(), signal.SIGSTOP)
    while True: time.sleep(60)
os.kill(os.getpid(), signal.SIGSTOP)
while True: time.sleep(60)
"""


def test_kill_says_why(node):
    key = node.start("a", "sleep", "60")
    node.started(key)
    node.kill(key, why="because")
    end = node.exited(key)
    assert (end.rc, end.error) == (-15, "because")


def test_a_task_may_clean_up_within_its_grace(node):
    key = node.start("a", "sh", "-c", "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.01; done")
    wait_until(lambda: node.poll() and node.handle.spool.size(key, "stdout"))
    node.kill(key, 10)
    end = node.exited(key)
    assert (end.rc, end.error, end.stdout_data) == (3, "killed", b"ready\nbye\n")


def test_no_grace_is_sigkill(node):
    key = node.start("a", "sleep", "60")
    node.started(key)
    node.kill(key, 0)
    assert node.exited(key).rc == -9


@pytest.mark.parametrize(
    ("script", "how", "rc"),
    [
        (IGNORES_TERM, [], -9),
        (LEFT_THE_GROUP, [], -15),
        (DAEMON, [], -15),
        (DAEMON, ["unbranded"], -15),
        (DAEMON, ["clean"], -15),
        (STOPPED, [], -15),
    ],
    ids=["ignores", "group", "daemon", "daemon without a brand", "daemon with a wiped environment", "stopped"],
)
def test_a_kill_reaches_the_whole_tree(node, tmp_path, pid_file, script, how, rc):
    other = node.start("other", "sleep", "60")
    key = node.script("a", script, *how, config={"cwd": str(tmp_path)})
    leader = node.started(key).pid
    child = pid_file("child")
    node.kill(key, 0.3)
    end = node.exited(key)
    assert (end.rc, end.error) == (rc, "killed")
    assert not is_running(leader)
    assert not is_running(child)
    assert is_running(node.started(other).pid)


TRACED = """
import ctypes, os, sys, time
ctypes.CDLL(None).ptrace(0, 0, None, None)  # PTRACE_TRACEME
if sys.argv[1:]: os.execvp(sys.argv[1], sys.argv[1:])
print("up", flush=True)
while True: time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGTRAP])
def test_a_task_that_asks_to_be_traced_is_not(node, number):
    other = node.start("other", "sleep", "60")
    key = node.script("a", TRACED)
    wait_until(lambda: node.poll() and node.handle.spool.size(key, "stdout"))
    os.kill(node.started(key).pid, number)
    if number == signal.SIGTRAP:  # which is as good as lost
        node.kill(key)
    end = node.exited(key)
    assert end.rc == (-signal.SIGTERM if number == signal.SIGTRAP else -number)
    assert node.exited(node.script("b", TRACED, "echo", "hello")).stdout_data == b"hello\n"
    assert is_running(node.started(other).pid)


def test_a_second_kill_may_hurry_but_not_delay(node, tmp_path, pid_file):
    key = node.script("a", IGNORES_TERM, config={"cwd": str(tmp_path)})
    node.started(key)
    pid_file("child")
    node.kill(key, 1000, "first")
    node.kill(key, 0.1, "second")
    node.kill(key, 1000, "third")
    end = node.exited(key)
    assert (end.rc, end.error) == (-9, "first")


def test_whoever_forks_all_the_time_is_caught(node, tmp_path):
    script = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open("up", "w").close()
while True:
    if os.fork():  # the parent ends, its child goes on in a session of its own
        os._exit(0)
    os.setsid()
"""
    other = node.start("other", "sleep", "60")
    key = node.script("a", script, grace=0.3, config={"cwd": str(tmp_path)})
    node.started(key)
    wait_until((tmp_path / "up").exists)
    end = node.exited(key, 20)  # its leader has ended by itself: what it left is ended after the grace
    assert end.rc == 0
    assert end.end_ts - end.start_ts >= 0.3
    mark = mark_of(node.started(other).pid)
    ours = {found for pid in snapshot() if (found := mark_of(pid) or "").startswith(mark.partition(".")[0])}
    assert ours == {mark}, "nothing is left of the first"
    node.kill(other)
    assert node.exited(other, 3).rc == -15, "the other task had nothing to do with it"


@pytest.mark.parametrize(
    "how",
    [["exit"], ["exit", "clean"], ["exit", "clean", "unbranded"]],
    ids=["marked", "wiped environment", "nothing to tell it by"],
)
def test_a_daemon_ends_with_the_leader(node, tmp_path, pid_file, how):
    key = node.script("a", DAEMON, *how, config={"cwd": str(tmp_path)})
    end = node.exited(key)
    assert (end.rc, end.error) == (7, None)
    assert not is_running(pid_file("child"))


@pytest.mark.parametrize("how", [["unbranded"], ["clean"]])
def test_a_daemon_ends_with_the_executor(node, tmp_path, pid_file, how):
    key = node.script("a", DAEMON, *how, config={"cwd": str(tmp_path)})
    node.started(key)
    child = pid_file("child")
    signal.pidfd_send_signal(node.handle.pidfd, signal.SIGKILL)
    wait_until(node.handle.died)
    node.handle.restart()
    assert node.exited(key).error == "executor lost"
    assert not is_running(child)


def test_a_daemon_without_a_mark_is_ended_with_the_tree_that_it_was_seen_in(node, tmp_path, pid_file):
    other = node.start("other", "sleep", "60")
    script = """
import os, resource, signal, time
if os.fork() == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.setsid()
    resource.setrlimit(10, (1, 1))
    text = "echo $$ > tmp; mv tmp child; while :; do sleep 1; done"
    os.execve("/bin/sh", ["sh", "-c", text], {"PATH": os.environ["PATH"]})
while True: time.sleep(60)
"""
    key = node.script("a", script, config={"cwd": str(tmp_path)})
    node.started(key)
    child = pid_file("child")
    node.kill(key, 0.2)
    node.exited(key)
    assert not is_running(child)
    assert is_running(node.started(other).pid)


def test_what_the_leader_leaves_in_its_group_is_ended(node, tmp_path, pid_file):
    key = node.start("a", "sh", "-c", "sleep 60 & echo $! > child; exit 4", config={"cwd": str(tmp_path)})
    end = node.exited(key)
    assert (end.rc, end.error) == (4, None)
    assert not is_running(pid_file("child"))


def test_the_leaders_exit_stands_when_its_children_have_to_be_killed(node, tmp_path, pid_file):
    text = (
        "sh -c \"trap '' TERM; echo up > up; while :; do sleep 1; done\" & "
        "echo $! > child; while [ ! -e up ]; do :; done"
    )
    key = node.start("a", "sh", "-c", text, grace=0.2, config={"cwd": str(tmp_path)})
    end = node.exited(key)
    assert (end.rc, end.error) == (0, None)
    assert not is_running(pid_file("child"))


def test_a_task_with_a_living_main_thread_only_in_name(node, tmp_path, pid_file):
    """The main thread of an orphan has ended, another goes on: /proc calls it a zombie."""
    script = """
import ctypes, os, threading, time
if os.fork() == 0:
    open("child", "w").write(str(os.getpid()))
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    ctypes.CDLL(None).pthread_exit(None)
"""
    key = node.script(
        "a", script + "\nwhile not os.path.exists('child'): time.sleep(0.001)", config={"cwd": str(tmp_path)}
    )
    node.started(key)
    child = pid_file("child")
    assert node.exited(key).rc == 0
    assert not Path(f"/proc/{child}").exists()


def test_runtime(node):
    key = node.start("a", "sleep", "60", runtime=0.1)
    end = node.exited(key)
    assert (end.rc, end.error) == (-15, "runtime of 0.1 s exceeded")
    assert end.end_ts - end.start_ts >= 0.1


def test_runtime_leaves_the_grace_to_clean_up(node):
    end = node.run("sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.01; done", runtime=0.2)
    assert (end.rc, end.error) == (0, "runtime of 0.2 s exceeded")


def test_a_task_that_ends_in_time_has_no_error(node):
    assert node.run("true", runtime=60).error is None


def test_a_lease_ends_without_grace(node):
    node.adopted()
    key = node.start("a", "sh", "-c", "trap '' TERM; while :; do sleep 0.01; done",
                     lessor="s", kill_at=time.monotonic() + 1, grace=100)  # fmt: skip
    end = node.exited(key)
    assert (end.rc, end.error) == (-9, "lease expired: submit node s is silent")


def test_a_lease_is_renewed_for_all_tasks_of_its_lessor(node):
    node.adopted()
    at = time.monotonic() + 1
    keys = [node.start(name, "sleep", "60", lessor=lessor, kill_at=at) for name, lessor in ("as", "bs", "ct")]
    for key in keys:
        node.started(key)
    node.send(Renew("s", at + 1000, at + 1000), Renew("s", at, at))
    assert node.exited(keys[2]).error == "lease expired: submit node t is silent"
    assert time.monotonic() >= at
    assert not [event for event in node.poll() if isinstance(event, Exited) and event.key in keys[:2]]
    node.send(Renew("s", at, at))
    for key in keys[:2]:
        node.kill(key)
        assert node.exited(key).error == "killed"


def test_a_lease_that_ran_out_while_the_machine_slept_ends_soon_after(make_node, tmp_path, monkeypatch):
    """A wait counts only the time that the machine is awake."""
    library = build(tmp_path)
    if library is None:
        pytest.skip("no C compiler to build a clock that can jump with")
    clock = Clock(library, tmp_path / "clock")
    for name, value in clock.environment.items():
        monkeypatch.setenv(name, value)
    node = make_node()
    key = node.start("a", "sleep", "60", lessor="m", kill_at=monotonic() + 240)
    node.started(key)
    # Its process id is noted a moment later: the last thing that there is to do before the lease ends.
    wait_until(lambda: '"pid"' in (node.handle.spool.folder.parent / JOURNAL_NAME).read_text())
    clock.sleep(300)
    assert node.exited(key, 5).error == "lease expired: submit node m is silent"


def executor_of(task):
    return int(Path(f"/proc/{task}/stat").read_text().split()[3])


def test_killing_an_ended_task_repeats_its_end(node):
    key = node.start("a", "true")
    end = node.exited(key)
    node.events.clear()
    node.kill(key)
    assert node.exited(key) == end


def test_killing_an_unknown_task_drops_it(node):
    node.kill(node.key("never"))
    node.dropped(node.key("never"))


def test_killing_an_acknowledged_task_drops_it(node):
    key = node.start("a", "true")
    node.exited(key)
    node.ack(key)
    node.kill(key)
    node.dropped(key)


def test_a_kill_right_after_the_start(node):
    keys = [node.start(f"j{i}", sys.executable, "-c", "import time; time.sleep(60)") for i in range(20)]
    for key in keys:
        node.kill(key)
    ends = Exited | Dropped
    wait_until(lambda: {event.key for event in node.poll() if isinstance(event, ends)} == set(keys))


OF_ANOTHER_USER = """
import os, sys, time
if os.fork() == 0:
    if "daemon" in sys.argv: os.setsid()
    file = open("child", "w")
    os.setuid(65534)
    print(os.getpid(), file=file, flush=True)
    while True: time.sleep(60)
while not os.path.exists("child") or not open("child").read().endswith("\\n"): time.sleep(0.001)
if "stay" in sys.argv: time.sleep(60)
sys.exit(7)
"""
CAP_KILL = 5


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may be somebody else")
@pytest.mark.parametrize("how", [[], ["daemon"]], ids=["in its session", "in its own"])
def test_what_runs_as_another_user_outlives_its_job_and_is_told(make_node, lacking, tmp_path, pid_file, capfd, how):
    lacking(CAP_KILL)
    node = make_node()
    key = node.script("a", OF_ANOTHER_USER, *how, grace=0.1, config={"cwd": str(tmp_path)})
    end = node.exited(key)
    assert (end.rc, end.error) == (7, None)
    child = pid_file("child")
    assert is_running(child)
    assert node.run("true", grace=1000).rc == 0, "no later job has to do with it"
    said = capfd.readouterr().err
    assert f"process {child} of job 'a' runs as another user: it can't be killed, and goes on" in said
    assert said.count(f"process {child} ") < 5


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may be somebody else")
def test_a_sweep_does_not_wait_for_what_runs_as_another_user(make_node, lacking, tmp_path, pid_file, capfd):
    lacking(CAP_KILL)
    node = make_node()
    key = node.script("a", OF_ANOTHER_USER, "stay", config={"cwd": str(tmp_path)})
    leader = node.started(key).pid
    child = pid_file("child")
    os.kill(executor_of(leader), signal.SIGKILL)
    wait_until(node.handle.died)
    node.handle.restart()
    assert node.exited(key, 8).error == "executor lost"
    assert not is_running(leader)
    assert is_running(child)
    assert capfd.readouterr().err.count(f"process {child} ") < 20
