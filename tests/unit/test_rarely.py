"""One line about each matter in a while, and how many were left out."""

from __future__ import annotations

import logging

import pytest

from meeseeks.node import rarely


def test_the_first_is_said_and_the_others_are_counted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    now = [100.0]
    monkeypatch.setattr(rarely, "monotonic", lambda: now[0])
    said = rarely.Rarely(logging.getLogger("test"))
    for _ in range(3):
        said.say("a", "a is odd")
        said.say("b", "b is odd")
    now[0] += 11
    said.say("a", "a is odd")
    assert [record.getMessage() for record in caplog.records] == [
        "a is odd",
        "b is odd",
        "a is odd (2 more like this were not logged)",
    ]
