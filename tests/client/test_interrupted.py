"""A signal handler that raises in the midst of a write (Ctrl-C): the write is whole, or it was not made."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from meeseeks.client.cache import Cache
from meeseeks.client.settings import Address, Place
from meeseeks.core.lifecycle import may_expire
from meeseeks.core.record import Record, Spec, Status
from meeseeks.core.table import Table, _index_values

HERE = Place(Address("a", 1), "10.0.0.1")
RAW = msgspec.Raw(msgspec.msgpack.encode({}))


class Interrupt(BaseException):
    """What a handler of SIGINT or SIGALRM raises."""


def interrupted(call: Callable[[], Any], at: int) -> bool:
    """Make a call in which an exception comes before the line number `at`, of all that it runs. False: it had less."""
    left = at

    def trace(_frame: Any, event: str, _arg: Any) -> Any:
        nonlocal left
        if event == "line":
            left -= 1
            if left == 0:
                sys.settrace(None)
                raise Interrupt
        return trace

    sys.settrace(trace)
    try:
        call()
    except Interrupt:
        return True
    finally:
        sys.settrace(None)
    return False


def check_table(table: Table) -> None:
    """Every index of a table equals a recount."""
    records = {record.spec.id: record for record in table}
    assert [jid for _, jid in table._log.after(-1)] == sorted(records, key=table.seq_of)
    for number, index in enumerate(table._index.values()):
        counted: dict[str, set[str]] = {}
        for jid, record in records.items():
            for value in _index_values(record)[number]:
                counted.setdefault(value, set()).add(jid)
        assert counted == {value: set(jids) for value, jids in index.items()}
    over = {jid for jid, record in records.items() if may_expire(record)}
    assert (set(table.ages.ended), set(table.ages.live_since(math.inf))) == (over, set(records) - over)


def a_record(jid: str, rev: int, state: str = "running") -> Record:
    status = Status(epoch=(1, "a"), node="a", rev=rev, state=state, active=state == "running")
    return Record(Spec(id=jid, pool="p", args=("x",), submit_node="a", lamport=1, writer="a"), status)


def submit(cache: Cache, jid: str, **changes: Any) -> None:
    cache.submit(jid, RAW, {"id": jid, **changes}, "a")


WRITES: dict[str, Callable[[Cache], object]] = {
    "new": lambda cache: submit(cache, "new", pool="p", args=("x",)),
    "change": lambda cache: submit(cache, "runs", tags=("t",)),
    "rerun": lambda cache: submit(cache, "ended", state="new"),
    "kill": lambda cache: cache.kill(["runs", "ended", "other"]),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_an_exception_at_any_line_of_a_write_leaves_all_of_it_or_nothing(write):
    at, found = 0, set()
    while True:
        at += 1
        cache = Cache(expire=60)
        cache.apply([a_record("runs", 1), a_record("other", 1), a_record("ended", 1, "done")], 1)
        submit(cache, "other", tags=("before",))
        was_interrupted = interrupted(lambda cache=cache: write(cache), at)
        check_table(cache._table)
        queued = {item.jid for item in cache._outbox}
        assert set(cache.select({})) <= {"runs", "other", "ended"} | queued, "what is shown has been queued"
        found.add(frozenset(queued))
        while batch := cache.next_batch(HERE, 100, 1000):
            cache.acknowledge(batch, {item.jid: {"seq": 2} for item in batch})
        cache.apply([a_record(jid, 9, "done") for jid in ("runs", "other", "ended", "new")], 2)
        cache.stand_at(2)
        check_table(cache._table)
        assert (cache.last_serial(), cache._truth) == (0, {})
        assert {cache.info(jid)["state"] for jid in ("runs", "other", "ended", "new")} == {"done"}
        if not was_interrupted:
            break
    assert len(found) > 1, "some came before the write was made, and some after"
    assert at > 20
