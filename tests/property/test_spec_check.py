"""check is total: whatever comes off the wire ends as a Spec or as one sentence."""

from __future__ import annotations

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from meeseeks.core.record import Spec
from meeseeks.core.spec import JOB_KEYS, check
from meeseeks.errors import InvalidRequest

from .strategies import any_values

_POPEN_KEYS = ["cwd", "env", "shell", "umask", "user", "group", "extra_groups", "executable", "stdout"]
_texts = st.text(max_size=10)
_nearly = st.fixed_dictionaries(
    {},
    optional={
        "id": _texts,
        "pool": _texts | st.just("__config"),
        "args": st.lists(_texts, max_size=3) | st.dictionaries(_texts, any_values, max_size=2),
        "node": _texts | st.lists(_texts, max_size=3) | st.none(),
        "stdout": _texts | st.none(),
        "runtime": st.floats() | st.integers(),
        "hold": st.booleans(),
        "retries": st.integers(-1, 5),
        "tags": st.lists(_texts, max_size=3),
        "config": st.dictionaries(st.sampled_from(_POPEN_KEYS), any_values, max_size=3),
        "state": st.sampled_from(["new", "killed", "done"]),
    },
)
_requests = (
    any_values
    | st.dictionaries(st.sampled_from(JOB_KEYS) | _texts, any_values, max_size=4)
    | _nearly
    | _nearly.map(lambda request: {"pool": "p", "args": ["x"], **request})
)
_words = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=8)
_valid = st.fixed_dictionaries(
    {"pool": _words, "args": st.lists(_words, min_size=1, max_size=3)},
    optional={
        "node": st.none() | _words,
        "runtime": st.integers(1, 10**9) | st.floats(0.001, 1e9) | st.none(),
        "hold": st.booleans() | st.none(),
        "retries": st.integers(0, 10**6),
        "tags": st.lists(_words, max_size=3),
        "config": st.fixed_dictionaries({}, optional={"cwd": _words, "umask": st.integers(0, 0o777), "user": _words}),
    },
)


@settings(max_examples=600)
@given(_requests, st.booleans())
def test_check_returns_or_refuses_with_one_sentence(request, new):
    try:
        found = check(request, new=new)
    except InvalidRequest as refused:
        assert str(refused)
        assert "\n" not in str(refused)
        return
    assert set(found) <= set(request) <= set(JOB_KEYS)
    assert not new or {"pool", "args"} <= set(found)
    msgspec.msgpack.encode(found)


@given(_requests)
def test_what_check_returns_it_accepts_again_unchanged(request):
    try:
        found = check(request, new=True)
    except InvalidRequest:
        return
    assert check(found, new=True) == found


@given(_valid)
def test_what_check_returns_is_the_same_on_every_node(request):
    """A spec travels as MessagePack: a field that came back in another form would make tables differ for ever."""
    spec = Spec(id="j", **check(request, new=True), submit_node="a")
    once = msgspec.msgpack.encode(spec)
    assert msgspec.msgpack.encode(msgspec.msgpack.decode(once, type=Spec)) == once
