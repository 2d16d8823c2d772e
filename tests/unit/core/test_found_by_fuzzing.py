"""What tools/fuzz found: records that no honest node writes."""

from __future__ import annotations

import msgspec
import pytest

from meeseeks.core.record import Record, jobinfo
from tests.unit.core.desk import Desk


@pytest.mark.parametrize("lost", [(1, (2**40, "x"), 2**40), (2**40, (0, ""), 0), (2**40, (2**40, "x"), 0)])
@pytest.mark.parametrize("state", ["new", "running"])
def test_a_loss_of_an_assignment_that_never_was_is_not_refuted_for_ever(lost, state) -> None:
    """Its refutation is never later than it, and was written again and again in one turn that did not end."""
    desk = Desk()
    desk.meet("b")
    desk.submit(id="j")
    honest = desk.record("j")
    spec = msgspec.structs.replace(honest.spec, submit_node="b", lost=lost, lamport=2**20, writer="b")
    status = msgspec.structs.replace(honest.status, epoch=(9, "b"), node="a", state=state, active=state == "running")
    desk.hear("b", [Record(spec, status)])
    desk.wait(3)
    assert desk.info("j")["state"] == "failed"


@pytest.mark.parametrize("runtime", [1e308, -1e308, 1e18, 3.0, 0.5])
def test_a_jobinfo_can_be_sent_whatever_the_runtime(runtime) -> None:
    """A whole number as large as this was no integer that MessagePack has: the answer ended the node."""
    desk = Desk()
    desk.submit(id="j")
    honest = desk.record("j")
    info = jobinfo(Record(msgspec.structs.replace(honest.spec, runtime=runtime), honest.status), 1)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(info))["runtime"] == runtime
