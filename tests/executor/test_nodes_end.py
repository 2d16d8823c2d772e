"""What becomes of an executor and its tasks when their node ends, and when the next one comes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import meeseeks
from meeseeks.core.effects import Ack, Adopted, Exited, SetSlots, Started
from meeseeks.executor.ends import ENDS_NAME
from tests.support.processes import children_of, is_running
from tests.support.wait import wait_until

NODE = """
import select, sys
from pathlib import Path
from meeseeks.core.effects import Start, TaskKey
from meeseeks.executor.ends import ENDS_NAME
from meeseeks.executor.handle import ExecutorHandle
handle = ExecutorHandle(Path(sys.argv[1]), "n", outlive="outlive" in sys.argv)
def start(job, *args):
    handle.send([Start(key=TaskKey(job, 1, (1, "n"), 1), pool="p", args=args, grace=0.3)])
start("long", "sleep", "60")
start("ends", "sh", "-c", "while [ ! -e go ]; do sleep 0.01; done; echo done")
start("stubborn", "sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.01; done")
seen = 0
while select.select([handle.line], [], []):
    for event in handle.receive():
        seen += type(event).__name__ == "Started"
        if seen == 3: print("up", flush=True)
"""


def node_process(folder, *options):
    root = str(Path(meeseeks.__file__).parent.parent)
    return subprocess.Popen(
        [sys.executable, "-c", NODE, str(folder / "state"), *options],
        stdout=subprocess.PIPE, cwd=folder, env={**os.environ, "PYTHONPATH": root},
    )  # fmt: skip


def tree_of(process):
    (executor,) = children_of(process.pid)
    return executor, children_of(executor)


def test_tasks_end_with_their_node(tmp_path):
    with node_process(tmp_path) as process:
        assert process.stdout.readline() == b"up\n"
        executor, tasks = tree_of(process)
        assert len(tasks) == 3
        process.kill()
        process.wait()
        wait_until(lambda: not is_running(executor))
        assert not [pid for pid in tasks if is_running(pid)]


def test_tasks_outlive_their_node_if_told_so(tmp_path, make_node):
    with node_process(tmp_path, "outlive") as process:
        assert process.stdout.readline() == b"up\n"
        executor, _ = tree_of(process)
        process.kill()
        process.wait()
        (tmp_path / "go").touch()
        wait_until(lambda: len(children_of(executor)) == 2)
        assert is_running(executor)
        node = make_node(outlive=True)
        adopted = node.adopted()
        assert node.executor_pid() == executor
        assert {started.key.job for started in adopted.running} == {"long", "stubborn"}
        assert all(isinstance(started, Started) and is_running(started.pid) for started in adopted.running)
        end = node.exited(node.key("ends"))
        assert (end.rc, end.stdout_data) == (0, b"done\n")
        assert node.exited(node.start("new", "true")).rc == 0
        for name in ("long", "stubborn"):
            node.kill(node.key(name), 0.1)
            assert node.exited(node.key(name)).error == "killed"


def test_an_idle_executor_does_not_outlive_its_node(make_node):
    node = make_node(outlive=True)
    node.ack(node.start("a", "true"))
    key = node.start("b", "true")
    node.exited(key)
    node.exited(node.key("a"))
    node.send(Ack(key), Ack(node.key("a")))
    node.kill(node.key("none"))
    node.dropped(node.key("none"))
    pid = node.executor_pid()
    process = node.handle._process
    node.handle.detach()
    wait_until(lambda: not is_running(pid))
    assert os.waitpid(process.pid, 0)[1] == 0


def test_an_executor_that_is_not_wanted_any_more_makes_way(make_node, tmp_path):
    first = make_node(outlive=True)
    key = first.start("a", "sleep", "60")
    task = first.started(key).pid
    process = first.handle._process
    first.handle.detach()
    second = make_node()
    assert second.adopted() == Adopted()
    assert not is_running(task)
    os.waitpid(process.pid, 0)


def test_nobody_lingers_after_a_start_without_a_node(tmp_path):
    """The node died before its executor was up."""
    command = [
        sys.executable,
        "-m",
        "meeseeks.executor",
        "--socket",
        str(tmp_path / "s"),
        "--spool",
        str(tmp_path / "spool"),
    ]
    root = str(Path(meeseeks.__file__).parent.parent)
    end = subprocess.run(
        [*command, "--node-name", "n", "--inline-output", "1", "--parent", "1"],
        capture_output=True, timeout=20, check=False, env={**os.environ, "PYTHONPATH": root},
    )  # fmt: skip
    assert end.returncode == 1
    assert b"has ended before its executor started" in end.stderr


def test_a_frozen_executor_tells_the_next_node_what_the_last_one_ordered(make_node):
    first = make_node(outlive=True)
    first.adopted()
    pid = first.executor_pid()
    running = first.start("running", "sleep", "1000")
    first.started(running)
    os.kill(pid, signal.SIGSTOP)
    late = first.start("late", "sleep", "1000")
    first.handle.detach()
    second = make_node(outlive=True)
    os.kill(pid, signal.SIGCONT)
    adopted = second.adopted()
    assert {started.key for started in adopted.running} | set(adopted.waiting) == {running, late}


SHORT_LIVED = """
import os, signal, sys
from pathlib import Path
from meeseeks.executor.ends import ENDS_NAME
from meeseeks.executor.handle import ExecutorHandle
handle = ExecutorHandle(Path(sys.argv[1]), "n", outlive=True)
if "freeze" in sys.argv: os.kill(handle._process.pid, signal.SIGSTOP)
print(handle._process.pid, flush=True)
os._exit(0)
"""


def executor_of_a_short_life(folder, *options):
    """Of a node that is gone before its executor is up."""
    root = str(Path(meeseeks.__file__).parent.parent)
    command = [sys.executable, "-c", SHORT_LIVED, str(folder), *options]
    said = subprocess.run(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": root}, check=True)
    return int(said.stdout)


def test_an_executor_whose_node_went_before_it_was_up_goes_as_well(tmp_path):
    pid = executor_of_a_short_life(tmp_path / "state")
    wait_until(lambda: not is_running(pid), 20)


def test_an_executor_that_comes_too_late_leaves_the_one_of_the_next_node_alone(tmp_path, make_node):
    late = executor_of_a_short_life(tmp_path / "state", "freeze")
    node = make_node(outlive=True)
    key = node.start("a", "sleep", "60")
    task = node.started(key).pid
    os.kill(late, signal.SIGCONT)
    wait_until(lambda: not is_running(late), 20)
    assert is_running(task)
    assert is_running(node.executor_pid())


def gone(node):
    """Detach, and wait until the executor has gone; its node's process is ours."""
    pid, process = node.executor_pid(), node.handle._process
    node.handle.detach()
    wait_until(lambda: not is_running(pid), 20)
    if process is not None:
        assert os.waitpid(process.pid, 0)[1] == 0


def test_ends_that_no_node_has_stored_are_kept_for_the_next_executor(make_node, tmp_path):
    first = make_node(outlive=True, linger_s=0.3)
    told, small, large = (first.start(job, "echo", text) for job, text in (("t", "x"), ("s", "y"), ("l", "z" * 9000)))
    ends = {key: first.exited(key) for key in (told, small, large)}
    first.ack(told)
    first.send(SetSlots("p", 3))
    assert first.handle.flush()
    gone(first)
    second = make_node(outlive=True, linger_s=0.3)
    second.adopted()
    assert {event.key: event for event in second.events if isinstance(event, Exited)} == {
        small: ends[small],
        large: ends[large],
    }
    gone(second)  # without a word
    third = make_node(outlive=True, linger_s=0.3)
    assert third.exited(small) == ends[small]
    assert second.handle.spool.read(large, "stdout")[0] == b"z" * 9000 + b"\n"
    for key in (small, large):
        third.ack(key)
    wait_until(lambda: not (tmp_path / "state" / ENDS_NAME).exists(), 20)
    gone(third)
    fourth = make_node(outlive=True)
    fourth.adopted()
    assert not [event for event in fourth.events if isinstance(event, Exited)]


def test_kept_ends_that_are_torn_are_left_alone(make_node, tmp_path, capfd):
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / ENDS_NAME).write_bytes(b"\x92torn")
    node = make_node(outlive=True)
    assert node.run("true").rc == 0
    assert "can't be read" in capfd.readouterr().err
