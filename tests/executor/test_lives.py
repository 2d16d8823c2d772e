"""What becomes of tasks when the executor or its node dies, stops, or comes back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import meeseeks
from meeseeks.core.effects import Ack, Adopted, Exited, SetSlots, Started, TaskKey
from meeseeks.executor.ends import ENDS_NAME
from meeseeks.executor.handle import ExecutorHandle
from meeseeks.executor.journal import JOURNAL_NAME, Journal, sweep
from tests.chaos.disk import Disk
from tests.support.processes import children_of, is_running
from tests.support.wait import wait_until

IGNORES_TERM = "trap '' TERM; echo up; while :; do sleep 0.01; done"


def executor_pid(node):
    """The handle does not tell; its process is the one with the pidfd."""
    text = Path(f"/proc/self/fdinfo/{node.handle.pidfd}").read_text()
    return int(next(line.split()[1] for line in text.splitlines() if line.startswith("Pid:")))


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
    pid = executor_pid(node)
    assert os.getsid(pid) == pid


def test_stop_ends_all_tasks(node):
    node.send(SetSlots("p", 2))
    gentle = node.start("gentle", "sh", "-c", "trap 'exit 3' TERM; echo up; while :; do sleep 0.01; done")
    stubborn = node.start("stubborn", "sh", "-c", IGNORES_TERM, grace=0.3)
    waiting = node.start("waiting", "true")
    up(node, gentle)
    up(node, stubborn)
    pid = executor_pid(node)
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
    pid = executor_pid(node)
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
    os.kill(executor_pid(node), signal.SIGKILL)
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


def test_what_was_started_and_not_told_before_all_were_killed_is_told_by_the_next_executor(make_node, tmp_path):
    first = make_node(outlive=True)
    first.adopted()
    runs = first.start("runs", "sh", "-c", f"echo out; echo up > {tmp_path}/runs; exec sleep 100")
    wait_until((tmp_path / "runs").exists)
    ended = first.start("ended", "sh", "-c", "echo said; exit 3")
    spooled = first.start("spooled", "head", "-c", "9999", "/dev/zero")
    for key in (ended, spooled):
        first.exited(key)
    os.kill(executor_pid(first), signal.SIGKILL)  # and what it has told is forgotten: its node dies with it
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
    os.kill(executor_pid(second), signal.SIGKILL)
    wait_until(second.handle.died)
    second.handle.detach()
    third = make_node(outlive=True)
    assert third.exited(spooled).rc == 0
    third.adopted()
    assert {event.key.job for event in third.events if isinstance(event, Exited)} & {"runs", "ended"} == set()


def test_the_journal_may_be_torn(node):
    key = node.start("a", "sleep", "60")
    task = node.started(key).pid
    os.kill(executor_pid(node), signal.SIGKILL)
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
    os.kill(executor_pid(node), signal.SIGKILL)
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


NODE = """
import sys, time
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
while True:
    for event in handle.receive():
        seen += type(event).__name__ == "Started"
        if seen == 3: print("up", flush=True)
    time.sleep(0.005)
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
        assert executor_pid(node) == executor
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
    pid = executor_pid(node)
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


@pytest.mark.parametrize("stops", [1, 2])
def test_signals_to_the_executor(node, stops):
    key = node.start("a", "sh", "-c", IGNORES_TERM, grace=1.0 if stops == 1 else 100)
    up(node, key)
    pid = executor_pid(node)
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


def test_a_frozen_executor_tells_the_next_node_what_the_last_one_ordered(make_node):
    first = make_node(outlive=True)
    first.adopted()
    pid = executor_pid(first)
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
    assert is_running(executor_pid(node))


def gone(node):
    """Detach, and wait until the executor has gone; its node's process is ours."""
    pid, process = executor_pid(node), node.handle._process
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
