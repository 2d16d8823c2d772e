"""Configurations that are pushed to a running node: what it takes, and what it refuses with which words."""

from __future__ import annotations

import json

import pytest

from meeseeks import config
from meeseeks.errors import ConfigError


@pytest.fixture
def running():
    pairs = ["name=a", "pools.p.slots=2", "pools.q.grace=1", "nodes.b.port=5", "state.dir=/s", "listen.port=1000"]
    return config.load([], pairs, ["h"])


def test_a_push_changes_what_it_names_and_nothing_else(running):
    pools = {"p": {"hold": True}, "q": None, "r": {"slots": 1}}
    changed = config.change(running, {"pools": pools, "nodes": {"b": None, "c": {}}, "heartbeat": 2})
    assert list(changed.pools) == ["p", "r"]
    assert (changed.pools["p"].slots, changed.pools["p"].hold) == (2, True)
    assert changed.peers() == [("c", 13700), ("h", 13700)]
    assert changed.heartbeat == 2
    assert changed.state == config.change(running, {}).state
    assert running.pools["p"].hold is False


def test_none_sets_the_default(running):
    assert config.change(running, {"pools": {"p": {"slots": None}}}).pools["p"].slots == 0


def test_changed_defaults_are_for_all_that_was_not_given_itself():
    running = config.load([], ["name=a", "pools.p.drain=false", "pools.q.grace=5", "nodes.b.port=5", "nodes.c={}"])
    changed = config.change(running, {"defaults": {"drain": True, "grace": 7, "timeout": 20}})
    assert [(pool.drain, pool.grace) for pool in changed.pools.values()] == [(False, 7), (True, 5)]
    assert changed.state.timeout == 20
    again = config.change(changed, {"defaults": {"drain": None}, "pools": {"q": {"grace": None}}})
    assert [(pool.drain, pool.grace) for pool in again.pools.values()] == [(False, 7), (False, 7)]
    with pytest.raises(ConfigError, match="listen.port can't change from 13700 to 5 while the node runs"):
        config.change(running, {"defaults": {"port": 5}})
    fixed = config.load([], ["name=a", "listen.port=13700", "nodes.c={}"])
    assert config.change(fixed, {"defaults": {"port": 5}}).nodes["c"].port == 5


def test_a_changed_timeout_takes_what_follows_from_it_along(running):
    changed = config.change(running, {"state": {"timeout": 200}})
    assert changed.settings().lost_after == 400
    assert config.change(changed, {"state": {"timeout": 15}}).settings().lost_after == 300


def test_the_whole_configuration_pushed_back_changes_nothing(running):
    shown = config.to_dict(running)
    assert config.to_dict(config.change(running, shown)) == shown
    assert json.loads(json.dumps(shown)) == shown


@pytest.mark.parametrize(
    ("patch", "said"),
    [
        ({"name": "b"}, "name can't change from 'a' to 'b' while the node runs"),
        ({"name": None}, "name can't change from 'a' to "),
        ({"listen": {"port": 1}}, "listen.port can't change from 1000 to 1 while the node runs"),
        ({"listen": None}, "listen.port can't change from 1000 to 13700"),
        ({"security": {"insecure": True}}, "security.insecure can't change from False to True"),
        ({"state": {"dir": "/x"}}, "state.dir can't change from '/s' to '/x'"),
        ({"state": {"inline_output": 1}}, "state.inline_output can't change from 4096 to 1"),
        ({"state": {"history": "/h"}}, "state.history can't change from None to '/h'"),
        ({"logging": {"level": 10}}, "logging.level can't change from 'INFO' to 10"),
        ({"poolz": {}}, "unknown key 'poolz'; did you mean 'pools'?"),
        ({"pools": {"p": {"slots": "x"}}}, "pools.p.slots must be a whole number from 0 to 1000000, not 'x'"),
        ({"pools": {3: {}}}, "3 can't be used: a name has"),
        ({"pools": {"p": {3: 4}}}, "unknown pools.p key 3"),
        ({"pools": 3}, "pools must be a table of settings, not 3"),
        ({3: 4}, "unknown key 3"),
        ({"state": {"timeout": 200, "lost_after": 300}}, "must be at least twice state.timeout (200), not 300"),
    ],
)
def test_a_wrong_push_is_refused_by_name(running, patch, said):
    with pytest.raises(ConfigError) as refused:
        config.change(running, patch)
    assert said in str(refused.value)


def test_a_push_must_be_a_table(running):
    with pytest.raises(ConfigError, match="must be a table of settings"):
        config.change(running, [1])
