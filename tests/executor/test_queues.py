"""Slots, queues and what is dropped."""

from __future__ import annotations

import itertools
import select
import time

from meeseeks.core.effects import Dropped, Exited, Kill, Renew, SetSlots, Start, Started
from tests.support.wait import wait_until


def started(node):
    return [event.key for event in node.poll() if isinstance(event, Started)]


def test_slots_limit_what_runs_at_once(node):
    node.send(SetSlots("p", 2))
    keys = [node.start(f"j{i}", "sleep", "60") for i in range(5)]
    other = node.start("other", "sleep", "60", pool="q")
    node.started(other)
    node.started(keys[1])
    assert set(started(node)) == {*keys[:2], other}
    node.kill(keys[1])
    node.started(keys[2])
    assert node.events.index(node.exited(keys[1])) < node.events.index(node.started(keys[2]))
    node.send(SetSlots("p", 3))
    node.started(keys[3])
    node.send(SetSlots("p", 1))
    node.kill(keys[0])
    node.exited(keys[0])
    node.send(SetSlots("p", 0))
    node.started(keys[4])


def test_no_slots_set_is_no_limit(node):
    for key in [node.start(f"j{i}", "sleep", "60") for i in range(20)]:
        node.started(key)


def test_fewer_slots_stop_nothing_and_start_nothing(node):
    keys = [node.start(f"j{i}", "sleep", "60") for i in range(3)]
    for key in keys:
        node.started(key)
    node.send(SetSlots("p", 1))
    last = node.start("last", "true")
    node.kill(keys[0])
    node.kill(keys[1])
    node.exited(keys[0])
    node.exited(keys[1])
    assert last not in started(node)
    node.kill(keys[2])
    assert node.exited(last).rc == 0


def test_a_queue_keeps_its_order(node):
    node.send(SetSlots("p", 1))
    keys = [node.start(f"j{i}", "true") for i in range(30)]
    node.exited(keys[-1])
    assert started(node) == keys
    ends = [event.key for event in node.events if isinstance(event, Exited)]
    assert ends == keys


def test_a_waiting_task_is_dropped_by_a_kill(node):
    node.send(SetSlots("p", 1))
    keys = [node.start(f"j{i}", "sleep", "60") for i in range(3)]
    node.started(keys[0])
    node.kill(keys[1])
    node.dropped(keys[1])
    node.kill(keys[0])
    node.started(keys[2])
    assert keys[1] not in started(node)


def test_a_start_that_comes_too_late_is_dropped(node):
    node.adopted()
    node.send(SetSlots("p", 1))
    now = time.monotonic()
    running = node.start("running", "sh", "-c", "sleep 0.5")
    late = node.start("late", "true", start_by_at=now + 0.2)
    leased = node.start("leased", "true", lessor="s", start_by_at=now + 0.2, kill_at=now + 1000)
    renewed = node.start("renewed", "true", lessor="t", start_by_at=now + 0.2, kill_at=now + 1000)
    unlimited = node.start("unlimited", "true", lessor="s")
    past = node.start("past", "true", pool="q", start_by_at=now - 1)
    node.send(Renew("t", now + 1000, now + 1000))
    node.dropped(past)
    assert not [event for event in node.events if isinstance(event, Exited)]
    node.exited(running)
    node.dropped(late)
    node.dropped(leased)
    assert node.exited(renewed).rc == 0
    assert node.exited(unlimited).rc == 0
    again = node.start("late", "true")
    assert node.exited(again).rc == 0, "a dropped task is forgotten, and may be started again"


def test_two_tasks_of_one_job_never_live_at_once(node):
    first = node.start("a", "sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.01; done")
    wait_until(lambda: node.poll() and node.handle.spool.size(first, "stdout"))
    second = node.start("a", "true", run=2)
    third = node.start("a", "true", run=3, pool="q")
    fourth = node.start("a", "true", run=4)
    other = node.start("b", "true")
    node.exited(other)
    assert started(node) == [first, other]
    node.kill(second)
    node.dropped(second)
    node.kill(first, 0.1)
    node.exited(first)
    node.exited(third)
    node.exited(fourth)
    assert started(node) == [first, other, third, fourth]
    ends = [event.key for event in node.events if isinstance(event, Exited)]
    assert ends == [other, first, third, fourth]


def test_a_task_that_could_not_be_spawned_frees_its_slot(node):
    node.send(SetSlots("p", 1))
    bad = [node.start(f"bad{i}", "/no/such") for i in range(3)]
    good = node.start("good", "true")
    assert node.exited(good).rc == 0
    assert all(node.exited(key).rc is None for key in bad)


def test_kill_in_the_batch_of_the_start(node):
    """The order of orders is kept: it was waiting, so it is dropped; or it ran, and its end is told."""
    node.adopted()
    key = node.key("a")
    node.send(Start(key=key, pool="p", args=("sleep", "60")), Kill(key, 1, "killed"))
    wait_until(lambda: any(isinstance(e, Exited | Dropped) and e.key == key for e in node.poll()))


def test_ends_are_told_together_while_there_is_work(node):
    """Each message costs the node a turn. With one slot no two tasks can end at once by chance."""
    node.adopted()
    node.send(SetSlots("p", 1))
    batches = itertools.count()

    def told_together() -> bool:
        keys = [node.start(f"b{next(batches)}-{i}", "/bin/true") for i in range(8)]
        most, ended = 0, 0
        while ended < len(keys):
            select.select([node.handle.line], [], [], 15)
            events = node.handle.receive()
            found = sum(isinstance(event, Exited) for event in events)
            most, ended = max(most, found), ended + found
        return most > 1

    wait_until(told_together, 30)


def test_an_end_that_leaves_a_slot_empty_is_told_although_another_pool_has_work(node):
    node.adopted()
    node.send(SetSlots("p", 1), SetSlots("q", 1))
    node.start("busy", "sleep", "60")
    node.start("next", "true")
    assert node.run("true", pool="q").rc == 0
