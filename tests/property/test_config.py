"""Configurations: every one that was accepted can be shown and given back; every other is refused with one sentence."""

from __future__ import annotations

import json

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from meeseeks import config
from meeseeks.errors import ConfigError

from .strategies import any_values

_names = st.sampled_from(["a", "b", "n1.example.org", "ü"])
_seconds = st.integers(1, 100) | st.floats(0.5, 100)
_pools = st.fixed_dictionaries(
    {},
    optional={
        "slots": st.integers(0, 9) | st.none(),
        "hold": st.booleans(),
        "drain": st.booleans(),
        "runtime": _seconds | st.none(),
        "grace": _seconds,
        "update": st.just(3),
    },
)
_valid = st.fixed_dictionaries(
    {"name": _names},
    optional={
        "defaults": st.fixed_dictionaries({}, optional={"grace": _seconds, "port": st.integers(1, 50000)}),
        "listen": st.fixed_dictionaries({}, optional={"port": st.integers(0, 50000)}),
        "nodes": st.dictionaries(_names, st.fixed_dictionaries({}, optional={"address": _names}), max_size=3),
        "pools": st.dictionaries(_names, _pools, max_size=3),
        "state": st.fixed_dictionaries({}, optional={"timeout": st.integers(3, 999), "expire": _seconds}),
        "discover": st.booleans(),
        "use_loadavg": st.booleans(),
    },
)
_keys = st.sampled_from([part for setting in config.explain() for part in setting.key.split(".")]) | st.text(max_size=5)
_leaves = st.dictionaries(_keys, any_values, max_size=2)
_nested = st.dictionaries(_keys, any_values | st.dictionaries(_keys, any_values | _leaves, max_size=3), max_size=3)
_loaded = config.load([], ["name=a", "state.dir=/s", "pools.p.slots=2", "nodes.b.port=5"])


def _load(tmp_path, values):
    file = tmp_path / "c.json"
    file.write_text(json.dumps(values))
    return config.load([file])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_valid)
def test_what_is_valid_is_shown_and_taken_back_as_it_was(tmp_path, values):
    loaded = _load(tmp_path, values)
    shown = config.to_dict(loaded)
    again = _load(tmp_path, shown)
    assert config.to_dict(again) == shown
    assert again.settings() == loaded.settings()
    assert config.to_dict(config.change(loaded, shown)) == shown


@settings(max_examples=300)
@example({"pools": {"\n": {}}})
@example({"nodes": {"x" * 1000: {"port": "y"}}})
@given(_nested | any_values)
def test_a_push_is_taken_or_refused_with_one_sentence(patch):
    try:
        changed = config.change(_loaded, patch)
    except ConfigError as refused:
        assert str(refused)
        assert "\n" not in str(refused)
        return
    assert changed.name == "a"
    assert json.loads(json.dumps(config.to_dict(changed))) == config.to_dict(changed)


@given(_keys, _keys, st.text(max_size=10))
@example("name", "name", '#"')
def test_an_argument_is_taken_or_refused(section, key, value):
    for pair in (f"{section}={value}", f"{section}.{key}={value}", f"pools.p.{key}={value}", value):
        try:
            config.load([], ["name=a", pair])
        except ConfigError as refused:
            assert str(refused).startswith("argument ")
