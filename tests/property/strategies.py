"""Generated records and raw values. Few different numbers and names, so that ties and near ties are common."""

from __future__ import annotations

import datetime as dt

from hypothesis import strategies as st

from meeseeks.core.record import STATES, Record, Spec, Status

__all__ = ["any_values", "records", "specs", "statuses"]

_small = st.integers(0, 2)
_nodes = st.sampled_from(["a", "b"])
_epochs = st.tuples(_small, _nodes)
_keys = st.tuples(_small, _epochs, _small)

specs = st.builds(
    Spec,
    id=st.just("j"),
    pool=st.sampled_from(["p", "q"]),
    args=st.sampled_from([("x",), ("y", "z"), {"k": 1}]),
    node=st.none() | _nodes,
    runtime=st.none() | st.sampled_from([1.0, 2.0]),
    hold=st.booleans(),
    retries=_small,
    config=st.sampled_from([{}, {"env": {"A": "1", "B": "2"}}, {"env": {"B": "2", "A": "1"}}]),
    tags=st.sampled_from([(), ("t",)]),
    submit_node=_nodes,
    ts=st.sampled_from([0.0, 1.0]),
    lamport=_small,
    writer=_nodes,
    generation=_small,
    adoptions=_small,
    killed_generation=_small,
    lost=_keys,
)
"""Any two of them may be by the same writer with the same number: after a crash that happens."""

statuses = st.builds(
    Status,
    generation=_small,
    epoch=_epochs,
    rev=_small,
    node=st.none() | _nodes,
    active=st.booleans(),
    state=st.sampled_from(STATES),
    rc=st.none() | _small,
    stdout_data=st.none() | st.sampled_from([b"", b"x"]),
    ts=st.sampled_from([0.0, 1.0]),
)

records = st.builds(Record, specs, statuses)

_scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=()), max_size=20)
    | st.binary(max_size=5)
    | st.datetimes(timezones=st.just(dt.UTC))
)
_map_keys = _scalars.filter(lambda key: key == key)  # nan is the one that is not
any_values = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_map_keys, inner, max_size=4),
    max_leaves=10,
)
"""Whatever MessagePack may carry, and then some."""
