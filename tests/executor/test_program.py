"""Which Python modules an executor runs: those of its node, and none of the folder in which that was started."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import meeseeks

NODE = """
import select, sys, time
from pathlib import Path
from meeseeks.core.effects import Exited, Start, TaskKey
from meeseeks.executor.handle import ExecutorHandle
handle = ExecutorHandle(Path(sys.argv[1]), "n")
args = ("sh", "-c", "echo $READ_BY $PPID ${PYTHONPATH-unset}")
handle.send([Start(key=TaskKey("a", 1, (1, "n"), 1), pool="p", args=args)])
deadline, ends = time.monotonic() + 15, []
while not ends and time.monotonic() < deadline:
    select.select([handle.line], [], [], 0.1)
    ends = [event for event in handle.receive() if isinstance(event, Exited)]
handle.stop()
print(ends[0].stdout_data.decode(), end="")
"""


@pytest.mark.parametrize("name", ["logging.py", "msgspec.py", "meeseeks/__init__.py"])
def test_modules_of_the_working_folder_are_not_the_executors(make_node, tmp_path, monkeypatch, name):
    module = tmp_path / "folder" / name
    module.parent.mkdir(parents=True)
    module.write_text("raise SystemExit('this is of the working folder')")
    monkeypatch.chdir(tmp_path / "folder")
    assert make_node().run("pwd").stdout_data == f"{tmp_path}/folder\n".encode()


def test_a_checkout_that_is_not_installed_starts_an_executor_of_its_own(tmp_path):
    """Another one may be installed: here is."""
    copy = tmp_path / "checkout" / "meeseeks"
    shutil.copytree(Path(meeseeks.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    with (copy / "executor" / "__init__.py").open("a") as file:
        file.write('\nimport os\nos.environ["READ_BY"] = str(os.getpid())\n')
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    said = subprocess.run(
        [sys.executable, "-c", NODE, str(tmp_path / "state")],
        cwd=copy.parent, env=env, stdout=subprocess.PIPE, timeout=30, check=True,
    ).stdout.split()  # fmt: skip
    assert said[0] == said[1], "the executor has read the copy"
    assert said[2] == b"unset"
