"""Output of another node that is read piece by piece, while its job goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from meeseeks.core.record import Record, Spec, Status
from meeseeks.executor.spool import Spool
from meeseeks.node.output import OutputReader, run_of
from meeseeks.wire.messages import Output, OutputWanted
from tests.unit.core.desk import Desk

PIECE = 1000


class Way:
    """The way to node b, which has 3,000 bytes of each run, and runs the job again after so many pieces."""

    def __init__(self, record: Record, pieces: int) -> None:
        self.run, self.left = run_of(record), pieces

    def pass_on(
        self, at: str, request: tuple[str, OutputWanted], hops: int, kind: type, done: Callable[[Any], None]
    ) -> None:
        wanted = request[1]
        if not self.left:
            self.run = (2, 1, 9.0)
        self.left -= 1
        done(
            Output(
                id="j",
                stream=wanted.stream,
                offset=wanted.offset,
                data=b"x" * PIECE,
                size=3 * PIECE,
                ended=True,
                run=self.run,
            )
        )


@pytest.mark.parametrize(
    ("pieces", "error"), [(9, None), (1, "the stdout of job 'j' is gone: it was run again meanwhile")]
)
def test_it_is_that_of_one_run_or_none(tmp_path: Path, pieces: int, error: str | None) -> None:
    desk = Desk(pools={})
    spec = Spec(id="j", pool="p", args=("true",), submit_node="b", lamport=1, writer="b")
    status = Status(epoch=(1, "b"), rev=3, node="b", state="done", start_count=1, stdout_size=3000, output_node="b")
    record = Record(spec, status)
    desk.meet("b")
    desk.hear("b", [record])
    told: list[dict[str, Any]] = []
    reader = OutputReader(desk.state, Way(record, pieces), Spool(tmp_path))  # type: ignore[arg-type]
    assert reader.complete("j", desk.info("j"), told.append)
    assert (told[0]["stdout_data"] is None, told[0].get("output_error")) == (error is not None, error)
