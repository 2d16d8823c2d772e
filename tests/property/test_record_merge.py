"""merge makes all tables equal: in whatever order, however often, and through whomever records arrive."""

from __future__ import annotations

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from meeseeks.core.record import Record, merge
from meeseeks.core.table import Table

from .strategies import records, specs, statuses

_encode = msgspec.msgpack.Encoder(order="sorted").encode


@given(records, records)
def test_merge_is_commutative(a, b):
    assert merge(a, b) == merge(b, a)
    assert _encode(merge(a, b)) == _encode(merge(b, a))


@settings(max_examples=300)
@given(records, records, records)
def test_merge_is_associative(a, b, c):
    assert merge(a, merge(b, c)) == merge(merge(a, b), c)


@given(records, records)
def test_merge_is_idempotent_and_says_so(a, b):
    both = merge(a, b)
    assert merge(a, a) is a
    assert merge(both, a) is both
    assert merge(both, b) is both
    assert merge(both, Record(msgspec.structs.replace(b.spec), msgspec.structs.replace(b.status))) is both


@settings(max_examples=300)
@given(specs, specs, specs, statuses)
def test_one_writer_and_number_with_three_contents_still_end_as_one(a, b, c, status):
    a, b, c = (Record(msgspec.structs.replace(spec, lamport=1, writer="a"), status) for spec in (a, b, c))
    assert merge(a, merge(b, c)) == merge(merge(a, b), c) == merge(merge(c, a), b)


@given(specs, statuses, statuses, statuses)
def test_one_status_key_with_three_contents_still_ends_as_one(spec, a, b, c):
    a, b, c = (Record(spec, msgspec.structs.replace(s, generation=1, epoch=(1, "a"), rev=1)) for s in (a, b, c))
    assert merge(a, merge(b, c)) == merge(merge(a, b), c) == merge(merge(c, a), b)


@given(records, records)
def test_a_kill_a_generation_and_a_loss_are_never_lost(a, b):
    spec = merge(a, b).spec
    for field in ("generation", "killed_generation", "lost", "lamport"):
        assert getattr(spec, field) == max(getattr(a.spec, field), getattr(b.spec, field))


@given(records, records)
def test_the_later_status_wins_whole(a, b):
    status = merge(a, b).status
    assert status in (a.status, b.status)
    assert status.key == max(a.status.key, b.status.key)


@given(records)
def test_a_record_is_the_same_after_the_wire(record):
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(record), type=Record)
    assert again == record
    assert merge(record, again) is record


@given(st.lists(records, min_size=1, max_size=6), st.randoms())
def test_tables_that_heard_the_same_are_equal(heard, random):
    one, other = Table(), Table()
    for record in heard:
        one.apply(record, 0.0)
    again = heard * 2
    random.shuffle(again)
    for record in again:
        other.apply(record, 0.0)
    assert one.get("j") == other.get("j")
    seq = one.seq
    for record in heard:
        assert one.apply(record, 0.0) is None
    assert one.seq == seq
