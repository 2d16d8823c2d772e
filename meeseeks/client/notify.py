"""Calling the user's functions when jobs are over: one dispatcher thread for the whole process.

Callbacks run one after the other, with no lock held, and may call anything. Where a Client has a cache, it is told;
for those without, a second thread asks their nodes, unless somebody else asks them first.
"""

from __future__ import annotations

import atexit
import logging
import os
import queue
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from meeseeks.errors import ClientClosed, MeeseeksError

from .arguments import is_exited
from .unknown import Unknown

if TYPE_CHECKING:
    from .client import Client

__all__ = ["notify_when_over", "told_of"]

_log = logging.getLogger(__name__)

_POLL = 0.5
"""Seconds between two queries, for Clients without a cache."""
_IDLE = 0.25
"""Seconds without a callback after which the thread looks whether any is still owed."""
_DISPATCHER, _POLLER = "meeseeks-notify", "meeseeks-notify-poll"

Notify = Callable[[Any], object]


class _Pending:
    """One callback that is owed. It holds its Job, which may be forgotten by everybody else meanwhile."""

    def __init__(self, client: Client, call: Notify, job: object) -> None:
        self.client = client
        self.call = call
        self.job = job


class _Dispatcher:
    """The threads: started when they are needed, ended when nothing is owed any more."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._due: queue.SimpleQueue[tuple[_Pending, str]] = queue.SimpleQueue()
        self._owed: dict[str, list[_Pending]] = {}  # by the job's id
        self._threads: set[str] = set()

    def add(self, pending: _Pending, jids: Sequence[str]) -> None:
        """Owe the callback once for each of the jobs."""
        has_cache = pending.client.has_cache
        with self._lock:
            for jid in dict.fromkeys(jids):
                self._owed.setdefault(jid, []).append(pending)
            self._start(_DISPATCHER, self._run)
            if not has_cache:
                self._start(_POLLER, self._poll)
        if has_cache:
            for jid in jids:
                pending.client.watch(jid, lambda over: self._due.put((pending, over)))

    def told_of(self, client: Client, infos: Mapping[str, Any]) -> None:
        """Call what is owed for those of these jobs that are over."""
        if not self._owed:
            return
        with self._lock:
            told = [(pending, jid) for jid in infos for pending in self._owed.get(jid, ()) if pending.client is client]
        for pending, jid in told:
            if is_exited(infos[jid]):
                self._due.put((pending, jid))  # the dispatcher drops one that it has called already

    def owed(self) -> list[str]:
        """The jobs for which a callback is owed."""
        with self._lock:
            return list(self._owed)

    def _start(self, name: str, target: Callable[[], None]) -> None:
        if name not in self._threads:
            self._threads.add(name)
            threading.Thread(target=target, name=name, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                pending, jid = self._due.get(timeout=_IDLE)
            except queue.Empty:
                if self._may_end():
                    return
                continue
            with self._lock:
                is_owed = self._forget(pending, jid)
            if is_owed:
                _call(pending, jid)
            del pending  # or the last job would be kept for as long as nothing else happens

    def _forget(self, pending: _Pending, jid: str) -> bool:
        """Under the lock: owe this no more; whether it was."""
        owed = self._owed.get(jid, [])
        if pending not in owed:
            return False
        owed.remove(pending)
        if not owed:
            del self._owed[jid]
        return True

    def _may_end(self) -> bool:
        """Forget what is owed to closed Clients; True, and the dispatcher must end, if nothing is left for it.

        Not what is due: those jobs were over before their Client was closed. Only the dispatcher itself can tell.
        """
        with self._lock:
            closed = [owed for owed in self._all() if owed[0].client.closed and self._due.empty()]
            for pending, jid in closed:
                self._forget(pending, jid)
            left = not self._due.empty() or bool(self._owed)
            if not left:
                self._threads.discard(_DISPATCHER)
        for _, jid in closed:
            _log.warning("the Client of job %s was closed before the job was over: nobody is notified", jid)
        return not left

    def _all(self) -> list[tuple[_Pending, str]]:
        return [(pending, jid) for jid, owed in self._owed.items() for pending in owed]

    def _poll(self) -> None:
        pause = threading.Event()
        unknown: dict[Client, Unknown] = {}
        while True:
            asked: dict[Client, list[tuple[_Pending, str]]] = defaultdict(list)
            with self._lock:
                for owed in self._all():
                    if not owed[0].client.has_cache and not owed[0].client.closed:
                        asked[owed[0].client].append(owed)
                if not asked:
                    self._threads.discard(_POLLER)
                    return
            unknown = {client: unknown.get(client, Unknown()) for client in asked}
            for client, pending in asked.items():
                self._ask(client, pending, unknown[client])
            del asked
            pause.wait(_POLL)

    def _ask(self, client: Client, asked: list[tuple[_Pending, str]], unknown: Unknown) -> None:
        """Have the Client look: it hands on what is over. And see which jobs there are none of."""
        jids = list(dict.fromkeys(jid for _, jid in asked))
        try:
            infos = client.query(jids)
        except ClientClosed:
            return  # the dispatcher says so
        except MeeseeksError as error:
            _log.warning("can't ask for %d jobs, and will try again: %s", len(asked), error)
            return
        over = set(unknown.sort(jids, infos, time.monotonic()))
        for pending, jid in asked:
            if jid in over:
                self._due.put((pending, jid))


def _call(pending: _Pending, jid: str) -> None:
    try:
        pending.call(pending.job)
    except BaseException:  # noqa: BLE001 - the border to the user's code: sys.exit() there must not end our thread
        _log.exception("the notify callback of job %s failed", jid)


_dispatcher = _Dispatcher()


@atexit.register
def _tell_owed() -> None:
    if jids := _dispatcher.owed():  # nobody else says so where a script just ends
        more = f" and {len(jids) - 1} more" if len(jids) > 1 else ""
        _log.warning("this process ends before job %s%s is over: nobody is notified", jids[0], more)


# A child has neither the threads nor the Clients: what is owed is its parent's business.
os.register_at_fork(after_in_child=lambda: _Dispatcher.__init__(_dispatcher))


def notify_when_over(client: Client, jids: Sequence[str], call: Notify, job: object) -> None:
    """Call `call(job)` once for each of these jobs, when it is over for good.

    An exception in a callback is logged and harms nothing. A closed Client's callbacks are not called any more.
    """
    _dispatcher.add(_Pending(client, call, job), jids)


def told_of(client: Client, infos: Mapping[str, Any]) -> None:
    """A node has told a Client without a cache of these jobs: what is owed for those that are over is due."""
    _dispatcher.told_of(client, infos)
