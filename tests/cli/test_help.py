"""`mks help`, and `mks conf --explain`: what there is to know, without a node."""

from __future__ import annotations

import re

import pytest

from meeseeks.cli.help import topics
from meeseeks.cli.main import _COMMANDS
from meeseeks.config import explain
from tests.cli.conftest import COMMAND, call, environment
from tests.cli.terminal import Terminal

CONCEPTS = {"mesh", "pools", "security", "config", "jobs", "output", "exit"}


def test_help_lists_the_topics():
    answer = call(None, "help")
    assert (answer.code, answer.err) == (0, "")
    assert dict(answer.lines) == topics()
    assert set(topics()) >= CONCEPTS
    assert call(None, "help", "--json").json == topics()


@pytest.mark.parametrize("topic", sorted(topics()))
def test_a_topic_is_a_page_that_names_only_what_is_there(topic):
    answer = call(None, "help", topic)
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith(f"# {topic}: ")
    assert max(map(len, answer.out.splitlines())) <= 130
    assert set(re.findall(r"`mks ([a-z]+)", answer.out)) <= set(_COMMANDS)
    for other in re.findall(r"`mks help ([a-z]+)", answer.out):
        assert other in topics()


@pytest.mark.parametrize("topic", ["jobs", "json"])
def test_it_is_said_what_counts_from_the_next_start_only(topic):
    (said,) = re.findall(r"[^.;]*next start", call(None, "help", topic).out)
    assert set(re.findall(r"`(\w+)`", said)) == {"runtime", "args", "config", "stdin", "stdout", "stderr"}


def test_a_topic_in_a_terminal_is_no_markup():
    with Terminal([*COMMAND, "help", "exit"], env=environment()) as terminal:
        assert terminal.wait_end() == 0
    assert "| code |" not in terminal.text
    assert "130" in terminal.text


def test_help_of_a_command_is_its_help():
    assert call(None, "help", "sub").out == call(None, "sub", "--help").out


def test_explain_has_every_setting_with_its_type_default_and_meaning():
    said = call(None, "conf", "--explain", "--json")
    assert said.code == 0
    assert [one["key"] for one in said.json] == [setting.key for setting in explain()]
    assert all(one["allowed"] and one["description"] for one in said.json)
    assert {one["key"]: one["default"] for one in said.json}["listen.port"] == 13700
    plain = call(None, "conf", "--explain").lines
    assert len(plain) == len(said.json)


def test_the_settings_that_the_config_page_names_are_there():
    text = call(None, "help", "config").out
    keys = {setting.key for setting in explain()}
    table = re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
    named = [word for cell in table for word in re.findall(r"`([^`]+)`", cell)]
    assert len(named) > 12
    for word in named:
        assert any(key == word or key.endswith(word) for key in keys), word
