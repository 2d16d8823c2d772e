"""The order of changes, against the plainest thing that does the same."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from meeseeks.core.log import Log

JUMPS = st.sampled_from((1, 1, 1, 1, 2, 700, 1 << 20))


@given(st.lists(st.tuples(st.integers(0, 40), JUMPS, st.booleans()), max_size=400), st.integers(0, 3000))
def test_it_says_what_changed_after_a_number(steps, since):
    log, plain, at = Log(), {}, 0
    for job, jump, drops in steps:
        jid = f"j{job}"
        if drops and jid in plain:
            log.drop(plain.pop(jid))
            continue
        at += jump
        log.move(jid, plain.get(jid), at)
        plain[jid] = at
    for seq in (0, since, at // 2, max(0, at - 1), at):
        assert list(log.after(seq)) == sorted((number, jid) for jid, number in plain.items() if number > seq)


def test_old_jobs_do_not_keep_the_room_of_those_that_were_changed_since():
    log, seqs = Log(), {}
    for at in range(1, 100_001):
        jid = f"old{at}" if at % 1000 == 0 else "busy"
        log.move(jid, seqs.get(jid), at)
        seqs[jid] = at
    assert [jid for _, jid in log.after(0)][:2] == ["old1000", "old2000"]
    assert sum(block.__sizeof__() for block in log._blocks.values()) < 100 * 400  # a block that was full has 40,000
