"""The public names: what `meeseeks` promises, that type checkers see it, and that importing it is cheap."""

from __future__ import annotations

import subprocess
import sys

import pytest

import meeseeks
from meeseeks import errors

PUBLIC = {
    "Client",
    "Job",
    "__version__",
    "MeeseeksError",
    "InvalidRequest",
    "ConfigError",
    "NodeUnreachable",
    "AuthenticationFailed",
    "RequestTimeout",
    "RequestFailed",
    "ClientClosed",
    "ProtocolError",
}


def test_the_package_promises_these_names_and_has_them():
    assert set(meeseeks.__all__) == PUBLIC
    assert sorted(meeseeks.__all__, key=str.lower) == sorted(dir(meeseeks), key=str.lower)
    for name in PUBLIC:
        assert getattr(meeseeks, name) is not None


def test_every_error_is_exported():
    kinds = {name for name in errors.__all__ if isinstance(getattr(errors, name), type)}
    assert kinds <= PUBLIC


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="module 'meeseeks' has no attribute 'Cilent'"):
        meeseeks.Cilent  # noqa: B018 (reading it is the test)


def _run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package_loads_nothing_heavy():
    heavy = ("zmq", "msgspec", "asyncio", "click", "rich", "meeseeks.client")
    code = f"import sys, meeseeks; print([name for name in {heavy!r} if name in sys.modules])"
    assert _run(code).strip() == "[]"


def test_the_client_library_loads_no_node_and_no_shell():
    heavy = ("asyncio", "click", "rich", "meeseeks.node", "meeseeks.executor", "meeseeks.cli", "sqlite3")
    code = f"import sys, meeseeks; meeseeks.Client, meeseeks.Job; print([n for n in {heavy!r} if n in sys.modules])"
    assert _run(code).strip() == "[]"


def test_type_checkers_see_the_lazy_names(tmp_path):
    file = tmp_path / "service.py"
    file.write_text(
        "from meeseeks import Client, Job, NodeUnreachable\n"
        "reveal_type(Client)\nreveal_type(Job)\n"
        "def f() -> Client:\n    return 3\n"
    )
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--cache-dir", str(tmp_path / "c")]
    said = subprocess.run([*command, str(file)], capture_output=True, text=True, timeout=60).stdout
    assert "meeseeks.client.client.Client" in said
    assert "meeseeks.client.job.Job" in said
    assert 'expected "Client"' in said
    assert said.count("error:") == 1, said


def test_the_changelog_knows_this_version():
    from pathlib import Path

    changelog = (Path(__file__).parents[2] / "CHANGELOG.md").read_text()
    assert f"\n## {meeseeks.__version__}" in changelog
