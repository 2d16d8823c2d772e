"""The mark that a process can't lose by chance: a limit that the kernel ignores."""

from __future__ import annotations

import resource
import sys
import uuid

import pytest

from meeseeks.executor.brands import brand
from meeseeks.executor.processes import lock_limit_of, mark_of
from tests.executor.test_ends import executor_of

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
