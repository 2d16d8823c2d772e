"""One task: how it is started, what it is given, what is told of its end."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from pathlib import Path

import pytest

import meeseeks
from meeseeks.core.effects import Exited, SetSlots
from tests.support.wait import wait_until


@pytest.mark.parametrize("rc", [0, 1, 77, 255])
def test_exit_code(node, rc):
    end = node.run("sh", "-c", f"exit {rc}")
    assert (end.rc, end.error) == (rc, None)
    assert end.start_ts <= end.end_ts


def test_started_comes_before_exited(node):
    key = node.start("a", "sh", "-c", "echo $$")
    end = node.exited(key)
    start = node.started(key)
    assert int(end.stdout_data) == start.pid
    assert end.start_ts == start.start_ts
    assert node.events.index(start) < node.events.index(end)


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGKILL", "SIGTERM"])
def test_a_signal_from_elsewhere_is_named(node, name):
    end = node.run("sh", "-c", f"kill -{name[3:]} $$")
    assert end.rc == -signal.Signals[name]
    assert end.error == f"ended by signal {name}"


def test_real_time_signals_have_no_name(node):
    assert node.run("sh", "-c", "kill -40 $$").error == "ended by signal 40"


@pytest.mark.parametrize(
    ("args", "rest", "error"),
    [
        (["/no/such"], {}, "can't start '/no/such': No such file or directory"),
        (["no-such-program"], {}, "can't start 'no-such-program': No such file or directory"),
        (["/etc/passwd"], {}, "can't start '/etc/passwd': Permission denied"),
        (["true"], {"config": {"cwd": "/no/dir"}}, "can't start 'true' in '/no/dir': No such file or directory"),
        (["true"], {"config": {"executable": "/no/such"}}, "can't start 'true': '/no/such': No such file or directory"),
        (["true"], {"stdin": "/no/file"}, "can't open '/no/file' as stdin: No such file or directory"),
        (["true"], {"stdout": "/no/dir/f"}, "can't open '/no/dir/f' as stdout: No such file or directory"),
        (["true"], {"stderr": "/tmp"}, "can't open '/tmp' as stderr: Is a directory"),
        (["true"], {"stdin": "/tmp"}, "can't open '/tmp' as stdin: Is a directory"),
        (["a\0b"], {}, "can't start 'a\\x00b': embedded null byte"),
        (["true"], {"config": {"nonsense": 1}}, "nonsense"),
        (["true"], {"config": {"stdin": 0}}, "can't start 'true': config.stdin is the executor's to set"),
        (["true"], {"config": {"user": "no-such-user"}}, "no-such-user"),
        (["true"], {"config": {"user": 2**40}}, "can't start 'true'"),
        (["true"], {"config": {"umask": "x"}}, "can't start 'true'"),
        (["true"], {"config": {"env": {"a": 1}}}, "can't start 'true'"),
        (["true"], {"config": {"env": {"a=b": "c"}}}, "can't start 'true'"),
        (["true", "x" * 3_000_000], {}, "can't start 'true': Argument list too long"),
        ([], {}, "can't start anything: args is empty"),
        ([""], {}, "can't start ''"),
    ],
)
def test_spawn_error(node, args, rest, error):
    end = node.run(*args, **rest)
    assert end.rc is None
    assert error in end.error
    assert "\n" not in end.error
    assert len(end.error) < 500
    assert end.start_ts is None
    assert node.run("true").rc == 0, "the executor goes on"


def test_a_pipe_without_another_end_does_not_stop_the_executor(node, tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    assert node.run("cat", stdin=str(fifo)).rc == 0
    assert "can't open" in node.run("true", stdout=str(fifo)).error


def test_output_comes_with_the_end(node):
    end = node.run("sh", "-c", "printf out; printf err >&2")
    assert (end.stdout_data, end.stderr_data) == (b"out", b"err")
    assert (end.stdout_size, end.stderr_size, end.spooled) == (3, 3, False)


def test_no_output_is_empty_and_not_none(node):
    end = node.run("true")
    assert (end.stdout_data, end.stderr_data, end.spooled) == (b"", b"", False)


def test_output_is_bytes(node):
    end = node.run(sys.executable, "-c", "import os; os.write(1, bytes(range(256)))")
    assert end.stdout_data == bytes(range(256))


@pytest.mark.parametrize(("size", "inline"), [(4096, True), (4097, False)])
def test_small_output_travels_and_large_stays(node, size, inline):
    key = node.start("big", "sh", "-c", f"head -c {size} /dev/zero; printf small >&2")
    end = node.exited(key)
    assert end.stdout_data == (bytes(size) if inline else None)
    assert end.stderr_data == b"small"
    assert (end.stdout_size, end.stderr_size, end.spooled) == (size, 5, not inline)
    spool = node.handle.spool
    assert spool.read(key, "stdout", size - 10, 100) == (bytes(10), size)
    node.ack(key)
    node.run("true")  # the ack was obeyed before
    if not inline:
        assert all(path.exists() for path in spool.paths(key))
    spool.forget("big")
    assert not any(path.exists() for path in spool.paths(key))


def test_a_file_that_is_used_again_has_nothing_of_its_first_job(node):
    for text in ("a long first text", "b"):
        key = node.start(text[0], "sh", "-c", f"echo {text}; echo {text} >&2")
        end = node.exited(key)
        assert (end.stdout_data, end.stderr_data) == (f"{text}\n".encode(),) * 2
        node.ack(key)
    kept = node.handle.spool.folder / "kept"
    key = node.start("c", "sh", "-c", f"chmod 0644 /proc/self/fd/1; ln $(readlink /proc/self/fd/2) {kept}")
    assert node.exited(key).rc == 0
    node.ack(key)
    assert node.run("echo", "d").stdout_data == b"d\n"
    assert kept.read_bytes() == b""


def test_both_streams_may_be_large(node):
    end = node.run("sh", "-c", "head -c 9999 /dev/zero; head -c 5000 /dev/zero >&2")
    assert (end.stdout_data, end.stderr_data) == (None, None)
    assert (end.stdout_size, end.stderr_size) == (9999, 5000)


def test_output_can_be_read_while_the_task_runs(node):
    key = node.start("a", "sh", "-c", "echo early; exec sleep 60")
    node.started(key)
    wait_until(lambda: node.handle.spool.read(key, "stdout") == (b"early\n", 6))
    node.kill(key)
    assert node.exited(key).stdout_data == b"early\n"


def test_reopening_ones_own_output_overwrites_nothing(node):
    end = node.run("sh", "-c", "echo a; echo b > /dev/stdout; echo c; echo d >> /dev/stdout")
    assert end.stdout_data.split() == [b"b", b"c", b"d"]  # what `>` does to a file; c comes after, not over


def test_a_new_run_of_a_job_replaces_the_output_of_the_last(node):
    first = node.start("a", "head", "-c", "5000", "/dev/zero")
    node.exited(first)
    node.ack(first)
    second = node.start("a", "head", "-c", "6000", "/dev/zero", run=2)
    node.exited(second)
    assert node.handle.spool.read(first, "stdout") == (b"", 0)
    assert node.handle.spool.size(second, "stdout") == 6000


def test_streams_to_files(node, tmp_path):
    (tmp_path / "in").write_text("hello")
    (tmp_path / "out").write_text("what was there before, and longer")
    end = node.run(
        "sh", "-c", "cat; echo no >&2", stdin=str(tmp_path / "in"), stdout=str(tmp_path / "out"),
        stderr=str(tmp_path / "err"),
    )  # fmt: skip
    assert (tmp_path / "out").read_text() == "hello"
    assert (tmp_path / "err").read_text() == "no\n"
    assert (end.stdout_data, end.stderr_data, end.spooled) == (None, None, False)


def test_relative_paths_start_at_cwd(node, tmp_path):
    (tmp_path / "in").write_text("x")
    node.run("sh", "-c", "cat; pwd", stdin="in", stdout="out", config={"cwd": str(tmp_path)})
    assert (tmp_path / "out").read_text() == f"x{tmp_path}\n"


@pytest.mark.parametrize("second", ["both", "./both", "link"])
def test_one_file_for_both_streams(node, tmp_path, second):
    (tmp_path / "link").symlink_to("both")
    node.run("sh", "-c", "echo 1; echo 2 >&2; echo 3", stdout="both", stderr=second, config={"cwd": str(tmp_path)})
    assert (tmp_path / "both").read_text() == "1\n2\n3\n"


def test_stdin_is_empty_without_a_path(node):
    assert node.run("cat").stdout_data == b""


CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 1, 2


def test_an_executor_in_a_folder_that_it_may_not_enter(make_node, lacking, tmp_path, monkeypatch):
    """As after `sudo -u somebody mks node` in root's own folder."""
    monkeypatch.setenv("PYTHONPATH", str(Path(meeseeks.__file__).parent.parent))
    folder = tmp_path / "private"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.chmod(0)
    lacking(CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH)
    node = make_node()
    assert node.run("echo", "out").stdout_data == b"out\n"
    assert node.run("pwd", config={"cwd": "/"}).stdout_data == b"/\n"
    assert node.run("echo", "again").stdout_data == b"again\n"


def test_config_is_for_popen(node, tmp_path):
    end = node.run("umask; echo $0 $1", "name", "arg", config={"shell": True, "umask": 0o27})
    assert end.stdout_data.split() == [b"0027", b"name", b"arg"]
    assert node.run("me", "-c", "echo $0", config={"executable": "/bin/sh"}).stdout_data == b"me\n"


def test_environment(node, monkeypatch):
    end = node.run("env")
    env = dict(line.split(b"=", 1) for line in end.stdout_data.splitlines())
    assert env[b"PATH"] == os.environb[b"PATH"]
    assert env[b"MEESEEKS_JOB_ID"].startswith(b"job")


def test_config_env_replaces_the_environment(node):
    end = node.run("env", config={"env": {"PATH": os.environ["PATH"], "X": "1"}})
    names = {line.split(b"=", 1)[0] for line in end.stdout_data.splitlines()}
    assert names == {b"PATH", b"X", b"MEESEEKS_JOB_ID", b"MEESEEKS_TASK"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may be somebody else")
def test_user_and_group(node):
    end = node.run("sh", "-c", "id -u; id -g; echo again > /dev/stderr", config={"user": 65534, "group": 65534})
    assert end.stdout_data.split() == [b"65534", b"65534"], end
    assert end.stderr_data == b"again\n"


def test_a_task_starts_with_a_clean_slate(node):
    script = """
import json, os, signal
print(json.dumps({
    "fds": sorted(int(fd) for fd in os.listdir("/proc/self/fd"))[:-1],
    "blocked": len(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
    "ignored": [s for s in (13, 15, 2, 17) if signal.getsignal(s) == signal.SIG_IGN and s != 13],
    "sid": os.getsid(0) == os.getpid(), "pgid": os.getpgid(0) == os.getpid(),
    "pipe": int(open("/proc/self/status").read().split("SigIgn:")[1].split()[0], 16) & 0x7fffffff,
}))
"""
    # Python itself ignores SIGPIPE and SIGXFSZ: bits 12 and 24. Two more are glibc's own.
    found = json.loads(node.run(sys.executable, "-c", script).stdout_data)
    assert found == {
        "fds": [0, 1, 2],
        "blocked": 0,
        "ignored": [],
        "sid": True,
        "pgid": True,
        "pipe": 1 << 12 | 1 << 24,
    }
    _, mask = node.run("grep", "SigIgn", "/proc/self/status").stdout_data.split()
    assert int(mask, 16) & 0x7FFFFFFF == 0


def test_signals_that_a_node_was_told_to_ignore_are_not_ignored_by_its_jobs(make_node):
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGHUP, signal.SIGQUIT)}
    try:
        node = make_node()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for config in ({}, {"umask": 0o22}):  # by posix_spawn, and by Popen
        _, mask = node.run("grep", "SigIgn", "/proc/self/status", config=config).stdout_data.split()
        assert int(mask, 16) & 0x7FFFFFFF == 0


def test_a_start_that_is_told_twice_runs_once(node, tmp_path):
    for _ in range(3):
        key = node.start("a", "sh", "-c", "echo run >> log", config={"cwd": str(tmp_path)})
    node.exited(key)
    node.start("a", "sh", "-c", "echo run >> log", config={"cwd": str(tmp_path)})
    node.run("true")
    assert (tmp_path / "log").read_text() == "run\n"
    assert sum(isinstance(event, Exited) and event.key == key for event in node.poll()) == 1


@pytest.mark.parametrize(
    "job", ["a/b", "..", ".", "ü" * 100, "x" * 255, "a b\nc", "%2E", "+", "a" * 119 + "/" + "b" * 100]
)
def test_any_job_id_has_an_output_of_its_own(node, job):
    key = node.start(job, "head", "-c", "5000", "/dev/zero")
    assert node.exited(key).spooled
    assert node.handle.spool.read(key, "stdout", 0, 3) == (b"\0\0\0", 5000)
    assert [path.name for path in Path(node.handle.spool.folder).parent.iterdir() if path.name == "spool"]
    path = node.handle.spool.paths(key)[0]
    assert path.parent.parent == node.handle.spool.folder
    node.handle.spool.prune([job])
    assert path.exists()
    node.handle.spool.prune(["x", "y" * 500, job + "1"])
    assert not path.exists()


def test_the_spool_is_private(node):
    key = node.start("a", "head", "-c", "5000", "/dev/zero")
    node.exited(key)
    path = node.handle.spool.paths(key)[0]
    assert path.stat().st_mode & 0o777 == 0o600
    assert node.handle.spool.folder.stat().st_mode & 0o777 == 0o700


def test_many_tasks_at_once_need_no_descriptors(make_node):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    try:
        node = make_node()
        node.adopted()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    keys = [node.start(f"s{i}", "sleep", "60") for i in range(100)]
    for key in keys:
        node.started(key)
    for key in keys:
        node.kill(key, 0)
    assert {node.exited(key).error for key in keys} == {"killed"}


def test_a_thousand_short_tasks(node):
    keys = [node.start(f"j{i}", "/bin/true") for i in range(1000)]
    for key in keys:
        assert node.exited(key, 60).rc == 0
        node.ack(key)
    spool = node.handle.spool.folder
    wait_until(lambda: len(list(spool.glob("*/*"))) <= 64, describe="a spool with no more than some spare files")
    node.handle.stop()
    assert not list(spool.glob("*/*"))


def test_an_id_that_is_forgotten_and_used_again_has_files_of_its_own(node):
    """Its files of the first time may be spare ones by then, under the very names that it gets the second time."""
    node.adopted()
    node.send(SetSlots("p", 1))
    for day in range(3):
        key = node.start("nightly", "sh", "-c", f"echo out {day}; echo err {day} >&2")
        end = node.exited(key)
        assert (end.stdout_data, end.stderr_data) == (f"out {day}\n".encode(), f"err {day}\n".encode())
        node.events.clear()
        node.handle.spool.forget("nightly")
        node.ack(key)


def test_a_job_does_not_feel_what_the_one_before_did_to_its_output(node):
    """Positions and flags are of an open file, and the files are used again."""
    node.adopted()
    node.send(SetSlots("p", 1))
    spoil = "import fcntl, os\nfor fd in 1, 2: os.write(fd, b'x' * 100); fcntl.fcntl(fd, fcntl.F_SETFL, os.O_NONBLOCK)"
    look = "import fcntl, os\nprint(os.lseek(1, 0, os.SEEK_CUR), fcntl.fcntl(1, fcntl.F_GETFL) & os.O_NONBLOCK)"
    for number in range(3):
        node.ack(node.exited(node.script(f"spoil{number}", spoil)).key)
        assert node.exited(node.script(f"look{number}", look)).stdout_data == b"0 0\n"


ESCAPED = """
import os, resource, time
if os.fork() == 0:
    os.setsid()
    resource.setrlimit(10, (1, 1))  # the executor knows its own by this one
    text = "echo $$ > tmp; mv tmp child; while [ ! -e go ]; do sleep 0.01; done; echo no; echo no >&2; touch gone"
    os.execve("/bin/sh", ["sh", "-c", text], {"PATH": os.environ["PATH"]})
while not os.path.exists("child"): time.sleep(0.001)
"""


def test_what_has_escaped_from_a_job_does_not_write_into_the_output_of_another(node, tmp_path, pid_file):
    """Nobody knows whose it is while others run; the files of the job that it came from are free to be used again."""
    here = {"cwd": str(tmp_path)}
    others = [node.start(name, "sleep", "60") for name in ("one", "two")]
    for other in others:
        node.started(other)
    end = node.exited(node.script("first", ESCAPED, config=here))
    assert end.rc == 0
    assert pid_file("child")
    node.ack(end.key)
    text = "touch go; while [ ! -e gone ]; do sleep 0.01; done; echo out; echo err >&2"
    end = node.run("sh", "-c", text, config=here)
    assert (end.stdout_data, end.stderr_data) == (b"out\n", b"err\n")
