"""`mks adopt`: the jobs of a submit node that is gone."""

from __future__ import annotations

from tests.cli.conftest import Answer, call
from tests.support.nodes import NodeProcess
from tests.support.wait import wait_until


def adopted_by(node: NodeProcess, name: str) -> Answer | None:
    """None while the other node may be alive."""
    answer = call(node, "adopt", name)
    if answer.code:
        assert "may be alive" in answer.err
        return None
    return answer


def test_adopt_takes_over_the_jobs_of_a_dead_node_and_says_which(mesh_of):
    a, dead = mesh_of(2, **{"state.timeout": 2, "state.lost_after": 6, "heartbeat": 0.3})
    assert call(dead, "sub", "--id", "line", "later", "--", "true").code == 0
    wait_until(lambda: call(a, "ls", "id=line").out, 20, "a to hear of the job")
    refused = call(a, "adopt", "b")
    assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
    assert "may be alive" in refused.err
    dead.kill()
    wait_until(lambda: not call(a, "nodes", "--json").json["b"]["online"], 20, "b is offline")
    adopted = wait_until(lambda: adopted_by(a, "b"), 20, "b to be adopted")
    assert adopted.err == ""
    assert adopted.out == "adopted 1 job of node b\nline\n"
    assert call(a, "conf", "pools.later.slots=1").code == 0
    assert call(a, "wait", "line", "--timeout", "20").code == 0
    again = call(a, "adopt", "--json", "b")
    assert (again.code, again.err) == (0, "")
    assert again.json == {}


def test_adopt_of_a_node_that_nobody_knows_is_told(mks):
    answer = mks("adopt", "nosuch")
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
    assert "nosuch" in answer.err
