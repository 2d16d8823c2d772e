"""How often a sync is asked for that takes its time."""

from __future__ import annotations

from meeseeks.node.pace import Pace


def asks(pace: Pace, begin: float, end: float) -> list[float]:
    """When it is asked for, by who would ask every two seconds."""
    found = []
    for now in range(int(begin), int(end), 2):
        if pace.may_ask("x", float(now)):
            pace.asked("x", float(now))
            found.append(float(now))
    return found


def test_what_does_not_come_is_asked_for_less_and_less_often():
    assert asks(Pace(), 0, 100) == [0, 2, 6, 18, 54]


def test_an_answer_frees_the_next_question_and_tells_how_long_the_one_after_may_take():
    pace = Pace()
    asks(pace, 0, 10)
    pace.answered("x", 17.0)
    assert asks(pace, 18, 60) == [18, 52]
    pace.answered("x", 53.0)
    pace.answered("x", 54.0)  # one that came twice
    assert pace.may_ask("x", 54.0)


def test_one_matter_waits_for_no_other():
    pace = Pace()
    pace.asked("x", 0.0)
    assert pace.may_ask("y", 0.1)
    assert not pace.may_ask("x", 0.1)
