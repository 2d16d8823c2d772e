"""What `mks top` shows: the jobs and nodes of a Client's cache, in order, with the job that the user points at.

`look` costs a copy of some lists of ids; jobinfos are made for those jobs only that are new, or on the screen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .overview import PoolTotal, pool_totals
from .words import selection

if TYPE_CHECKING:
    from meeseeks import Client

__all__ = ["SORTS", "Model"]

Info = dict[str, Any]

SORTS = ("time", "id", "node", "pool")
"""Orders of the jobs that run or wait. `time`: the longest run first; the next in line first."""

_ENDED = ("done", "failed", "killed")
_RECENT_OF_STATE = 200
_RECENT_KEPT = 500
_EARLIER = 100
"""Jobs of each state that had ended before we came, and are shown to begin with."""


class Model:
    """The user's view of a cache. Not thread-safe; the client is."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.nodes: dict[str, Info] = {}
        self.pools: dict[str, PoolTotal] = {}
        self.counts: dict[str, int] = {}
        """Jobs by state. Of those that have ended: how many there were when we came, and how many did since."""
        self.active: list[str] = []
        """Jobs that run, then jobs that wait."""
        self.recent: list[str] = []
        """Jobs that have ended, the last one first."""
        self.running_on: Counter[tuple[str, str]] = Counter()
        """Jobs that run, by node and pool."""
        self.selected: str | None = None
        self.filter = ""
        self.sort = SORTS[0]
        self._filters: dict[str, str] = {}
        self._keys: dict[str, tuple[Any, str, str, str]] = {}  # job that runs -> (start, id, node, pool)
        self._totals: dict[str, int] = dict.fromkeys(_ENDED, 0)
        self._counted: dict[str, set[str]] = {state: set() for state in _ENDED}  # what is in `_totals` of the cache
        self._at = 0  # where in the first list the selected job was seen last
        self._ended: dict[str, Info] = {}  # in the order in which they were seen to have ended

    def load_earlier(self) -> None:
        """Ask the node once for some jobs that ended long ago: a cache is not told of them."""
        for state in _ENDED:
            ids = self._client.ls(state=state)
            self._ended.update(self._client.query(ids[-_EARLIER:]))
            self._totals[state] = len(ids)
            self._counted[state] = set(self._client.list_jobs(state=state))

    def look(self) -> None:
        """Take in how the cache is now."""
        client, filters = self._client, self._filters
        self.nodes = client.get_nodes()
        by_state = {state: client.list_jobs(state=state) for state in ("running", "new", *_ENDED)}
        self._count(by_state)
        self._note_running(by_state["running"])
        self.pools = pool_totals(self.nodes, Counter(pool for *_, pool in self._keys.values()), self._waiting(by_state))
        if filters:
            by_state = {
                state: client.list_jobs(**{"state": state, **filters}) if filters.get("state", state) == state else []
                for state in by_state
            }
        self.active = self._ordered(by_state["running"], by_state["new"])
        self._note_ended(by_state)
        if self.selected in self.active:
            self._at = self.active.index(self.selected)

    def set_filter(self, text: str) -> None:
        """Show only jobs that match the words, as `mks ls` has them; a word alone is the beginning of an id.

        Raises InvalidRequest, and changes nothing, if they are none.
        """
        filters: dict[str, str] = {}
        for word in text.split():
            filters.update(selection([word if "=" in word or word.endswith("*") else f"{word}*"]).filters)
        self._client.list_jobs(**filters)
        self.filter, self._filters = " ".join(text.split()), filters

    def next_sort(self) -> None:
        """The next of SORTS."""
        self.sort = SORTS[(SORTS.index(self.sort) + 1) % len(SORTS)]

    def infos(self, jids: Iterable[str]) -> dict[str, Info]:
        """The jobinfos of jobs that are shown, as they are now, or as they were when they had ended."""
        wanted = list(jids)
        found: dict[str, Info] = self._client.get(wanted)
        return {jid: info for jid in wanted if (info := found.get(jid) or self._ended.get(jid)) is not None}

    # --- the job that the user points at

    @property
    def order(self) -> list[str]:
        """All jobs in the order in which the pointer moves over them."""
        return [*self.active, *self.recent]

    def move(self, by: int) -> None:
        """Point so many jobs further on; from nowhere, to the first one or back from the end."""
        order = self.order
        if not order:
            self.selected = None
            return
        nowhere = -1 if by > 0 else len(order)
        at = order.index(self.selected) if self.selected in order else nowhere
        self.selected = order[max(0, min(len(order) - 1, at + by))]

    def stay(self) -> None:
        """Of a job that has just left the first list, point to the one that took its place there."""
        if self.selected is not None and self.active and self.selected not in self.active:
            self.selected = self.active[min(self._at, len(self.active) - 1)]

    def has_ended(self, jid: str) -> bool:
        """Whether a job that is shown is over."""
        info = self.infos([jid]).get(jid)
        return info is None or info["state"] in _ENDED

    def switch(self) -> None:
        """Point to the first job of the other list."""
        other = self.recent if self.selected in set(self.active) else self.active
        if other or self.active:
            self.selected = (other or self.active)[0]

    # --- inside

    def _count(self, by_state: dict[str, list[str]]) -> None:
        for state in _ENDED:
            now = set(by_state[state])
            self._totals[state] += len(now - self._counted[state])
            self._counted[state] = now
        self.counts = {**self._totals, "running": len(by_state["running"]), "new": len(by_state["new"])}

    def _note_running(self, ids: list[str]) -> None:
        now = set(ids)
        self._keys = {jid: key for jid, key in self._keys.items() if jid in now}
        fresh = self._client.get([jid for jid in ids if jid not in self._keys])
        for jid, info in fresh.items():
            self._keys[jid] = (info["start_ts"] or 0.0, jid, info["node"] or "", info["pool"])
        self.running_on = Counter((node, pool) for _, _, node, pool in self._keys.values())

    def _waiting(self, by_state: dict[str, list[str]]) -> dict[str, int]:
        """Jobs that wait, by pool."""
        waiting = set(by_state["new"])
        if not waiting:
            return {}
        pools = {pool for status in self.nodes.values() for pool in status["pools"]}
        return {pool: len(waiting.intersection(self._client.list_jobs(pool=pool))) for pool in pools}

    def _ordered(self, running: list[str], waiting: list[str]) -> list[str]:
        if self.sort == "id":
            return [*sorted(running), *sorted(waiting)]
        at = SORTS.index(self.sort)
        started = sorted((self._keys[jid] for jid in running if jid in self._keys), key=lambda key: (key[at], key[0]))
        running = [jid for _, jid, _, _ in started]
        if at:
            infos = self._client.get(waiting)
            waiting = sorted(waiting, key=lambda jid: (infos[jid][self.sort] or "") if jid in infos else "")
        return [*running, *waiting]

    def _note_ended(self, by_state: dict[str, list[str]]) -> None:
        last = [jid for state in _ENDED for jid in by_state[state][-_RECENT_OF_STATE:]]
        live = {*by_state["running"], *by_state["new"]}
        for jid in [jid for jid in self._ended if jid in live]:
            del self._ended[jid]  # it runs again
        fresh = self._client.get([jid for jid in last if jid not in self._ended])
        self._ended.update(sorted(fresh.items(), key=lambda item: _ended_at(item[1])))
        while len(self._ended) > _RECENT_KEPT:
            del self._ended[next(iter(self._ended))]
        shown = [jid for jid in last if jid in self._ended] if self._filters else list(self._ended)
        self.recent = sorted(shown, key=lambda jid: _ended_at(self._ended[jid]), reverse=True)


def _ended_at(info: Info) -> float:
    return float(info["end_ts"] or info["ts"])
