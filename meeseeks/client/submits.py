"""Submits that wait for their node's answer, and what becomes of those that get none (DESIGN section 8).

A submit that was sent and not answered belongs to the node that it was sent to: two nodes that accept one id could both
run it. Asked for again, it goes to that node only, by a connection beside the Client's if that has moved on; unless
somebody in the mesh knows the job, since then it is a change, which may go anywhere.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from meeseeks.errors import InvalidRequest, MeeseeksError, NodeUnreachable, RequestFailed, RequestTimeout
from meeseeks.wire.messages import SUBMITS_MAX

from .call import Call, Repeat
from .channel import Channel
from .settings import Place
from .unanswered import Unanswered

__all__ = ["Submits", "spans"]

Info = dict[str, Any]
Ready = tuple[dict[str, Any], Repeat]
"""A jobspec that has an id, and what may be done if no answer comes."""

_MOST_BYTES = 32 * 1024 * 1024
"""Of the jobspecs in one request: half of what a message may have."""
_WINDOW = 2
"""Requests of `submit_many` that are on their way at once, so that neither side waits for the other."""


def spans(specs: Sequence[Mapping[str, Any]], most_bytes: int = _MOST_BYTES) -> list[slice]:
    """Which of them travel together, as many as one request takes. InvalidRequest if one of them can't be sent."""
    found: list[slice] = []
    first = size = 0
    for at, spec in enumerate(specs):
        bytes_ = len(Channel.encode("submit", spec))
        if at > first and (at - first == SUBMITS_MAX or size + bytes_ > most_bytes):
            found.append(slice(first, at))
            first, size = at, 0
        size += bytes_
    return [*found, slice(first, len(specs))] if specs else []


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
        """The same for several. All answers are waited for, then the first failure is raised, if there is one.

        Each request is carried out as a whole or not at all. Where some were and others not, the error says so, and a
        refusal is no InvalidRequest then but RequestFailed: something was changed.
        """
        self._channel.check_open()
        infos: dict[str, Info] = {}
        doubtful = [one for one in ready if self.unanswered.place(one[0]["id"]) is not None]
        for one in doubtful:
            infos.update(self.one(one))
        rest = [one for one in ready if one not in doubtful] if doubtful else ready
        unsent = deque(rest[span] for span in spans([spec for spec, _ in rest]))
        under_way: deque[tuple[Call, list[dict[str, Any]]]] = deque()
        failures: list[tuple[MeeseeksError, list[dict[str, Any]]]] = []

        def take_one() -> None:
            call, specs = under_way.popleft()
            try:
                infos.update(self._answer(self._channel, call, specs))
            except MeeseeksError as error:
                failures.append((error, specs))

        while unsent and not failures:
            part = unsent.popleft()
            repeats = {how for _, how in part}
            repeat = next(how for how in (Repeat.NEVER, Repeat.SAME_NODE, Repeat.ANYWHERE) if how in repeats)
            specs = [spec for spec, _ in part]
            under_way.append((self._channel.post("submit_many", specs, repeat=repeat), specs))
            if len(under_way) == _WINDOW:
                take_one()
        while under_way:
            take_one()
        if failures:
            left = [specs for _, specs in failures]
            if unsent:
                left.append([spec for part in unsent for spec, _ in part])
            raise _told([error for error, _ in failures], left, len(ready))
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


def _told(errors: list[MeeseeksError], left: list[list[dict[str, Any]]], total: int) -> MeeseeksError:
    """The error for `total` jobspecs, of which those that are `left` were not carried out, or nobody knows."""
    # A refusal says that nothing was changed: where something else went wrong as well, that is not known.
    error = next((error for error in errors if not isinstance(error, InvalidRequest)), errors[0])
    done = total - sum(map(len, left))
    if not done:
        return error
    rest = ", ".join(_named([spec["id"] for spec in specs]) for specs in left)
    known = "not" if isinstance(error, (InvalidRequest, RequestFailed)) else "not, as far as is known"
    kind = RequestFailed if isinstance(error, InvalidRequest) else type(error)
    told = kind(f"{error}; of {total} jobs {done} are submitted or changed, and {known} {rest}")
    told.__cause__ = error
    return told


def _named(jids: list[str]) -> str:
    return jids[0] if len(jids) == 1 else f"{jids[0]} to {jids[-1]}"
