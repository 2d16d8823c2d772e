"""Which job had its last change when: the ids of all jobs in the order of their last change's number.

A change of one job costs the same however many there are, and no turn ever has to clear up: each job is in here once.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from itertools import takewhile

__all__ = ["Log"]

_BITS = 10
"""The numbers of a block differ in their last bits only. Blocks are plain dicts of numbers and texts, which Python's
search for cycles need not look into."""
_SHRINK_AT = frozenset((256, 64, 16, 4))


class Log:
    """Numbers (seqs) that only grow, each with the id of a job."""

    def __init__(self) -> None:
        self._blocks: dict[int, dict[int, str]] = {}  # in the order of the numbers

    def move(self, jid: str, before: int | None, at: int) -> None:
        """The job has changed: its number was `before` (None: it is new), and is `at`, the greatest of all."""
        if before is not None:
            self.drop(before)
        block = self._blocks.get(at >> _BITS)
        if block is None:
            block = self._blocks[at >> _BITS] = {}
        block[at] = jid

    def drop(self, at: int) -> None:
        """Forget the job that has this number."""
        number = at >> _BITS
        block = self._blocks[number]
        del block[at]
        if not block:
            del self._blocks[number]
        elif len(block) in _SHRINK_AT:
            self._blocks[number] = dict(block)  # what few old jobs are left must not keep the room of many

    def after(self, seq: int) -> Iterator[tuple[int, str]]:
        """(number, id) of all with a greater number, in order. Nothing may change meanwhile."""
        numbers = list(self._blocks)
        for number in numbers[bisect_left(numbers, seq >> _BITS) :]:
            items = self._blocks[number].items()
            if number > seq >> _BITS:
                yield from items
                continue
            # From its end, as it is mostly asked for the last few.
            yield from reversed(list(takewhile(lambda item: item[0] > seq, reversed(items))))
