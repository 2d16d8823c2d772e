"""One executor a state folder: what the one that comes second says while it waits."""

from __future__ import annotations

import fcntl

from tests.support.wait import wait_until


def test_an_executor_that_waits_for_its_lock_says_so(make_node, tmp_path, capfd):
    (tmp_path / "state").mkdir()
    with (tmp_path / "state" / "executor.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        node = make_node()
        key = node.start("a", "true")
        said = []
        wait_until(lambda: said.append(capfd.readouterr().err) or "".join(said))
        assert f"{file.name} is locked by a process that does not say which" in "".join(said)
    assert node.exited(key).rc == 0
    assert "is locked" not in capfd.readouterr().err, "it says so once"
