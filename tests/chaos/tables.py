"""The tables of all nodes, side by side: how long until they are equal, and what never is."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from meeseeks import Client
from meeseeks.errors import MeeseeksError

__all__ = ["Infos", "Tables", "Watch", "differences"]

Infos = dict[str, dict[str, Any]]
Tables = dict[str, Infos]
"""By node, then by job. A node that does not answer is missing."""

_MANY = 400
_LOOK_EVERY_S = 0.25
_OWN_VIEW = ("seq", "reason")
"""What each node has its own of."""


class Watch:
    """Reads the tables of these nodes, for the jobs whose ids begin with a prefix."""

    def __init__(self, clients: Mapping[str, Client], prefix: str) -> None:
        self._clients = clients
        self._prefix = prefix

    def read(self) -> Tables:
        """All tables now."""
        found: Tables = {}
        for name, client in self._clients.items():
            try:
                found[name] = self._read(client)
            except MeeseeksError:
                continue  # it counts as different from all others
        return found

    def _read(self, client: Client) -> Infos:
        infos: Infos = {}
        jids = client.ls(id=f"{self._prefix}*")
        for first in range(0, len(jids), _MANY):
            infos.update(client.query(jids[first : first + _MANY]))
        for info in infos.values():
            for key in _OWN_VIEW:
                info.pop(key, None)
        return infos

    def until(self, fine: Callable[[Tables], bool], deadline: float, wait: Callable[[float], object]) -> Tables:
        """Read until the tables are fine, or until the deadline has passed; the last ones."""
        while True:
            tables = self.read()
            if fine(tables) or time.monotonic() >= deadline:
                return tables
            wait(_LOOK_EVERY_S)

    def lasting_differences(self, deadline: float, wait: Callable[[float], object]) -> list[str]:
        """Jobs that differ at the deadline, and went on to: one that changes while it is read is none of them."""
        before = self.until(lambda tables: not differences(tables, len(self._clients)), deadline, wait)
        if not differences(before, len(self._clients)):
            return []
        wait(_LOOK_EVERY_S)
        after = self.read()
        lasting = set(differences(before, len(self._clients))) & set(differences(after, len(self._clients)))
        return [jid for jid in sorted(lasting) if _of(before, jid) == _of(after, jid)]


def differences(tables: Tables, nodes: int) -> list[str]:
    """The jobs that are not the same in all tables; `all` if a node does not answer."""
    if len(tables) < nodes:
        return ["all"]
    jids = {jid for infos in tables.values() for jid in infos}
    return sorted(jid for jid in jids if any(one != next(iter(_of(tables, jid))) for one in _of(tables, jid)))


def _of(tables: Tables, jid: str) -> list[dict[str, Any] | None]:
    return [infos.get(jid) for infos in tables.values()]
