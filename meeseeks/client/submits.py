"""Submits that wait for their node's answer, and what becomes of those that get none (DESIGN section 8).

A submit that was sent and not answered belongs to the node that it was sent to: two nodes that accept one id could both
run it. Asked for again, it goes to that node only, by a connection beside the Client's if that has moved on; unless
somebody in the mesh knows the job, since then it is a change, which may go anywhere.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from meeseeks.errors import InvalidRequest, MeeseeksError, NodeUnreachable, RequestFailed, RequestTimeout

from .call import Call, Repeat
from .channel import Channel
from .settings import Place
from .unanswered import Unanswered

__all__ = ["Submits"]

Info = dict[str, Any]
Ready = tuple[dict[str, Any], Repeat]
"""A jobspec that has an id, and what may be done if no answer comes."""

_MANY = 1000
"""Jobspecs in one request of `submit_many`."""
_MANY_BYTES = 8 * 1024 * 1024
"""The same in bytes: so many of the largest would be too much for a message."""
_WINDOW = 4
"""Requests of `submit_many` that are on their way at once, so that neither side waits for the other."""


class Submits:
    """By way of a Client's channel. Any thread may use it."""

    def __init__(self, channel: Channel, channel_to: Callable[[Place], Channel]) -> None:
        self.unanswered = Unanswered()
        self._channel = channel
        self._channel_to = channel_to

    def one(self, ready: Ready) -> dict[str, Info]:
        """{id: jobinfo} of a jobspec; RequestTimeout names the job and its node where that did not answer."""
        self._channel.check_open()
        spec, repeat = ready
        place = self._place_of(spec["id"])
        if place is None or place == self._channel.link.place or repeat is not Repeat.SAME_NODE:
            call = self._channel.post("submit", spec, repeat=repeat, sent_to=place)
            return self._answer(self._channel, call, [spec])
        side = self._channel_to(place)
        side.start()
        try:
            return self._answer(side, side.post("submit", spec, repeat=repeat, sent_to=place), [spec])
        finally:
            side.close()

    def many(self, ready: Sequence[Ready]) -> dict[str, Info]:
        """The same for several. All answers are waited for, then the first failure is raised, if there is one."""
        self._channel.check_open()
        infos: dict[str, Info] = {}
        doubtful = [one for one in ready if self.unanswered.place(one[0]["id"]) is not None]
        parts = _parts([one for one in ready if one not in doubtful] if doubtful else ready)
        for one in doubtful:
            infos.update(self.one(one))
        under_way: deque[tuple[Call, list[dict[str, Any]]]] = deque()
        failures: list[MeeseeksError] = []

        def take_one() -> None:
            call, specs = under_way.popleft()
            try:
                infos.update(self._answer(self._channel, call, specs))
            except MeeseeksError as error:
                failures.append(error)

        for part in parts:
            if failures:
                break
            repeats = {how for _, how in part}
            repeat = next(how for how in (Repeat.NEVER, Repeat.SAME_NODE, Repeat.ANYWHERE) if how in repeats)
            specs = [spec for spec, _ in part]
            under_way.append((self._channel.post("submit_many", specs, repeat=repeat), specs))
            if len(under_way) == _WINDOW:
                take_one()
        while under_way:
            take_one()
        if failures:
            raise failures[0]
        return infos

    def _place_of(self, jid: str) -> Place | None:
        """Where the node is that may have the job; None if that is nobody's secret."""
        place = self.unanswered.place(jid)
        if place is not None and place != self._channel.link.place and self._channel.call("query", [jid]):
            self.unanswered.heard_of([jid])
            return None
        return place

    def _answer(self, channel: Channel, call: Call, specs: list[dict[str, Any]]) -> dict[str, Info]:
        jids = [spec["id"] for spec in specs]
        try:
            infos: dict[str, Info] = channel.wait(call)
        except (InvalidRequest, RequestFailed):
            self.unanswered.heard_of(jids)
            raise
        except (RequestTimeout, NodeUnreachable) as error:
            if call.sent_to is None or call.repeat is not Repeat.SAME_NODE:
                raise
            self.unanswered.note(specs, call.sent_to, channel.link.describe(call.sent_to))
            what = f"job {jids[0]}" if len(jids) == 1 else f"{len(jids)} jobs from {jids[0]} on"
            raise RequestTimeout(
                f"{error}. Until it is heard of, {what} reads state='unknown'; submitted again with its id it goes to "
                "that node only, and runs once"
            ) from error
        self.unanswered.heard_of(jids)
        return infos


def _parts(ready: Sequence[Ready]) -> list[list[Ready]]:
    """What travels together. InvalidRequest for one that can't be sent: before the first is, so that none is."""
    parts: list[list[Ready]] = []
    size = 0
    for one in ready:
        size_of_one = len(Channel.encode("submit", one[0]))
        size += size_of_one
        if not parts or len(parts[-1]) == _MANY or size > _MANY_BYTES:
            parts.append([])
            size = size_of_one
        parts[-1].append(one)
    return parts
