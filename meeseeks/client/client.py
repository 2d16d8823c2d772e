"""The Client: requests to a node, and a cache that follows it (API.md; DESIGN section 8)."""

from __future__ import annotations

import time
import weakref
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import msgspec

from meeseeks.core.record import NEW
from meeseeks.errors import InvalidRequest, MeeseeksError, RequestTimeout

from .arguments import checked, in_parts, is_exited, is_several, jobs_meant, lacks_output, ready_spec, requests_meant
from .call import Repeat
from .channel import Channel
from .credentials import Credentials
from .notify import told_of
from .settings import DEFAULT_PORT, ClientSettings, Place
from .shared import SHARED
from .submits import Submits
from .waiting import poll_until_over, watch_until_over

if TYPE_CHECKING:
    from .cache import Cache, Info
    from .replica import Replica

__all__ = ["Client"]

_OUTPUT_KEYS = ("stdout_data", "stderr_data", "output_error")
_LOOK = 0.5
"""Seconds that the last question of a wait may take, beyond its deadline."""


class Client:
    """A connection to a mesh, through one of its nodes. Any number of threads may use it at once; no forked child may.

    Every request ends by its deadline (`timeout`) with an answer or with a MeeseeksError that says which node, which
    address, and why. A node that is being restarted is waited for until then. It is a context manager.

    Args:
        address: host or `host:port` of a node; None is this machine. Or a list of these, or a text with commas: the
            Client stays with one and moves on to the next when it is gone. It is gone when its connection was refused
            or closed and is not back within 2 seconds, or when it leaves a request unanswered for half of `timeout`
            and says nothing else meanwhile (a cache asks after 5 seconds without a broadcast). With one address a
            node is never gone: it is waited for, where its name leads to by then.
        port: TCP port where `address` names none.
        timeout: seconds that a request may take.
        refresh: above 0, a cache follows the node by push, and the cached methods work; it is then the longest time
            in seconds that a write to the cache waits before it is sent (in practice it goes at once).
        poll: seconds between two questions to the node whether the cache missed anything; more than `refresh`.
        expire: seconds for which an ended job stays in the cache; more than `poll`.
        set_global: make this the Client of all Jobs that name none.
        cfg: connection options. `security` is a map of `key`, the file of the mesh's or the user's key (default: what
            MEESEEKS_KEY names, or mesh.key in the user's configuration folder), and `mode`, `curve` or `none`.
            `ssl` is TLS, as ssl.SSLContext has it: a map of capath, cafile, ciphers, options, verify, cert, key, pass.

    Raises:
        InvalidRequest: an argument is wrong. The constructor does not wait for the node.
    """

    def __init__(
        self,
        address: str | Sequence[str] | None = None,
        port: int = DEFAULT_PORT,
        timeout: float = 10,
        refresh: float = 0,
        poll: float = 10,
        expire: float = 60,
        set_global: bool = False,
        **cfg: Any,
    ) -> None:
        times = {"timeout": timeout, "refresh": refresh, "poll": poll, "expire": expire}
        self._settings = ClientSettings.check(address, port, times, cfg)
        self._channel = Channel(self._settings.addresses, self._settings.timeout, self._settings.credentials)
        beside, options = self._settings.timeout, (cfg.get("security"), cfg.get("ssl"))

        def channel_to(place: Place) -> Channel:
            return Channel([place.address], beside, Credentials(*options), place.host)

        self._submits = Submits(self._channel, channel_to)
        self._cache: Cache | None = None
        guest: Replica | None = None
        if self._settings.refresh > 0:
            # Imported when it is wanted: `mks` has no cache, and would wait for it at each call.
            replica = import_module("meeseeks.client.replica")
            self._cache = replica.Cache(self._settings.expire)
            self._channel.unsettled = self._cache.unsettled
            guest = replica.Replica(self._channel, self._cache, self._settings.refresh, self._settings.poll, channel_to)
        self._channel.start(guest)
        # The thread keeps the channel alive, not the Client: one that nobody holds any more ends by itself.
        weakref.finalize(self, self._channel.release).atexit = False
        if set_global:
            SHARED.replace(self, lambda: Client(address, port, timeout, refresh, poll, expire, **cfg))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()
        if error is None:
            self._check_delivered()

    def __repr__(self) -> str:
        where = ", ".join(map(str, self._settings.addresses))
        return f"<Client of {where}, {'closed' if self._channel.closed else 'open'}>"

    @property
    def has_cache(self) -> bool:
        """Whether the cached methods may be used: it was made with `refresh` above 0."""
        return self._cache is not None

    @property
    def closed(self) -> bool:
        """Whether it was closed, by its owner or by a defect of its own; or is of the process that forked this one."""
        return self._channel.closed

    @property
    def connected(self) -> bool:
        """Whether a node is connected right now, and so whether a cache is kept up to date."""
        return self._channel.link.ready and not self.closed

    def close(self) -> None:
        """Deliver what was written to the cache, then disconnect and end the thread. A second call does nothing.

        Raises RequestTimeout if something could not be delivered within `timeout`; the text names the jobs.
        """
        was_closed = self._channel.closed
        self._channel.close()
        if not was_closed:
            self._check_delivered()

    def _check_delivered(self) -> None:
        if undelivered := self._channel.undelivered():
            raise RequestTimeout(undelivered)

    # --- requests

    def submit(self, **jobspec: Any) -> dict[str, Info]:
        """Start a job, or change the one that has the `id`; returns {id: jobinfo} of each job started or changed.

        InvalidRequest says what is wrong with the jobspec; nothing was changed then. RequestTimeout names the job and
        the node that was asked and did not answer: that one may have it, and until it is heard of, its `state` reads
        'unknown'. It may be submitted again with the same `id`: that goes to the same node, and one job is started.
        """
        return self._submits.one(ready_spec(jobspec))

    def submit_many(self, specs: Iterable[Mapping[str, Any]]) -> dict[str, Info]:
        """The same for many jobspecs at once, far faster than one by one.

        All are checked before the first is sent. They travel 2,000 at a time; if a node refuses one (a change of an
        active job, say), none of those that travel with it is carried out.
        """
        if not isinstance(specs, Iterable):
            raise InvalidRequest(f"submit_many takes jobspecs, not {specs!r}")
        ready = [ready_spec(spec) for spec in specs]
        for spec, _ in ready:
            checked(spec, new=False)
        return self._submits.many(ready)

    def ls(self, **filters: Any) -> list[str]:
        """The ids of the jobs for which every `key=value` holds; all jobs without any.

        Keys are those of jobinfo, and `tag`; a value that ends in `*` matches by prefix.
        """
        result: list[str] = self._channel.call("ls", filters)
        return result

    def query(self, jids: str | Iterable[str] | None = None, /, **filters: Any) -> Any:
        """By id: the jobinfo, or False if there is no such job. By a list of ids, or filters: {id: jobinfo}.

        Output that is too large to travel with a job's status is in the answer for one id only.
        """
        return self._query(jobs_meant("query", jids, filters))

    def kill(self, jids: str | Iterable[str] | None = None, /, **filters: Any) -> Any:
        """Kill by id, list of ids or filters; returns what `query` would.

        `state` reads 'killed' at once, `active` stays True until the last process of the job is gone.
        """
        return in_parts(lambda part: self._channel.call("kill", part), jobs_meant("kill", jids, filters))

    def nodes(self) -> dict[str, Info]:
        """Every node of the mesh by name, with its status."""
        result: dict[str, Info] = self._channel.call("nodes", {})
        return result

    def pools(self) -> dict[str, dict[str, int | None]]:
        """Every pool by name, with the free slots on each online node; None is no limit."""
        result: dict[str, dict[str, int | None]] = self._channel.call("pools", {})
        return result

    def request(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send any request: {type: data}, as the protocol defines it; returns {type: result}.

        Several types are sent one after the other. A submit is not repeated when the connection breaks.
        """
        result = {}
        for kind, payload in requests_meant(request).items():
            repeat = Repeat.NEVER if kind in ("submit", "submit_many", "config", "adopt") else Repeat.ANYWHERE
            result[kind] = self._channel.call(kind, payload, repeat=repeat)
        return result

    # --- the cache

    def submit_job(self, **jobspec: Any) -> dict[str, Info]:
        """As `submit`, through the cache: it shows at once, and is delivered even if the node is away meanwhile.

        A job for several nodes (`node` is a list, or ends in `*`), and a change or a rerun (an `id` with `state='new'`)
        of a job that is not in the cache, need the node's answer, and wait for it. A new job that the node refuses
        reads failed, with the reason in `error`.
        """
        cache = self._need_cache("submit_job")
        jid = jobspec.get("id")
        known = isinstance(jid, str) and jid in cache
        # What names an id and is no whole jobspec is about a job that has left the cache: its node is to judge it.
        is_whole = jobspec.get("pool") is not None and jobspec.get("args") is not None
        changes = checked(jobspec, new=not known and (is_whole or jid is None))
        # Which run of a job that is not here would be its last before this one? That it is there would tell nothing.
        is_rerun = jid is not None and jobspec.get("state") == NEW
        if not known and (is_several(jobspec.get("node")) or not is_whole or is_rerun or cache.is_group(str(jid))):
            deadline = time.monotonic() + self._settings.timeout
            infos = self.submit(**jobspec)
            with suppress(MeeseeksError):  # they are there: who heard no ids would submit them again
                self._await_round(cache, deadline)
            return infos
        if is_several(changes.get("node")):
            raise InvalidRequest(f"node {changes['node']!r} names several nodes: job {jid!r} is there already")
        spec, _ = ready_spec(jobspec)
        info = cache.submit(spec["id"], msgspec.Raw(msgspec.msgpack.encode(spec)), changes, self._channel.link.name)
        self._channel.wake()
        return {spec["id"]: info}

    def list_jobs(self, **filters: Any) -> list[str]:
        """As `ls`, from the cache."""
        return self._synced("list_jobs").select(filters)

    def get_job(self, jid: str) -> Any:
        """The jobinfo from the cache, or False if it is not there. Large output is fetched from the job's node once."""
        if not isinstance(jid, str):
            raise InvalidRequest(f"get_job takes a job id, not {jid!r}")
        cache = self._synced("get_job")
        info = cache.info(jid)
        if info is None:
            return self._submits.unanswered.infos([jid]).get(jid, False)
        self._submits.unanswered.heard_of([jid])
        if lacks_output(info):
            fetched = self._channel.call("query", jid)
            if fetched:
                cache.keep_output(jid, fetched)
                info.update((key, fetched[key]) for key in _OUTPUT_KEYS if key in fetched)
        return info

    def get(self, jids: str | Iterable[str] | None = None, /, **filters: Any) -> Any:
        """As `query`, from the cache. Large output is left out when several jobs are asked for."""
        what = jobs_meant("get", jids, filters)
        if isinstance(what, str):
            return self.get_job(what)
        cache = self._synced("get")
        if not isinstance(what, list):
            return cache.infos(cache.select(what))
        infos = cache.infos(what)
        return {**self._submits.unanswered.infos(jid for jid in what if jid not in infos), **infos}

    def kill_jobs(self, jids: str | Iterable[str] | None = None, /, **filters: Any) -> Any:
        """As `kill`, through the cache: it shows at once, and is delivered even if the node is away meanwhile."""
        what = jobs_meant("kill_jobs", jids, filters)
        cache = self._synced("kill_jobs")
        wanted = [what] if isinstance(what, str) else what if isinstance(what, list) else cache.select(what)
        found = cache.kill(wanted)
        self._channel.wake()
        infos = cache.infos(found)
        if others := [jid for jid in wanted if jid not in infos]:
            infos |= self.kill(others)  # one that was lost has left the cache, and may be back
        return infos.get(what, False) if isinstance(what, str) else infos

    def get_nodes(self) -> dict[str, Info]:
        """As `nodes`, from the cache."""
        cache = self._synced("get_nodes")
        self._await(cache, lambda: cache.nodes is not None, "the nodes")
        return dict(cache.nodes or {})

    def get_pools(self) -> dict[str, dict[str, int | None]]:
        """As `pools`, from the cache."""
        cache = self._synced("get_pools")
        self._await(cache, lambda: cache.pools is not None, "the pools")
        return dict(cache.pools or {})

    def wait(self, timeout: float | None = None) -> None:
        """Return after the next sync with the node: what was written to the cache is done, and what was done is in it.

        Raises NodeUnreachable or RequestTimeout after `timeout` seconds (None: the Client's own).
        """
        cache = self._need_cache("wait")
        deadline = time.monotonic() + (self._settings.timeout if timeout is None else timeout)
        serial = cache.last_serial()
        self._await(cache, lambda: cache.settled(serial), "what was written to the cache", deadline)
        self._await_round(cache, deadline)

    def wait_for(
        self,
        jids: str | Iterable[str],
        timeout: float | None = None,
        *,
        any: bool = False,  # noqa: A002 - reads best
    ) -> dict[str, Any]:
        """Wait until all jobs (`any`: at least one of them) are over for good; returns {id: jobinfo} of all of them.

        A job that is unknown to the node for three seconds reads False, and counts as over.
        RequestTimeout after `timeout` seconds (None: never).
        """
        wanted = list(dict.fromkeys(jobs_meant("wait_for", [jids] if isinstance(jids, str | None) else jids, {})))
        deadline = None if timeout is None else time.monotonic() + timeout

        def ask(asked: list[str]) -> dict[str, Info]:
            # A wait of no time is a look: it has time for an answer as well.
            left = self._settings.timeout if deadline is None else max(_LOOK, deadline - time.monotonic())
            infos: dict[str, Info] = self._query(asked, min(left, self._settings.timeout))
            return infos

        enough = min(1 if any else len(wanted), len(wanted))
        if self._cache is None:
            return poll_until_over(ask, wanted, deadline, enough)
        cache = self._synced("wait_for", deadline)
        return watch_until_over(cache, ask, self.look_up, self._channel.check_open, wanted, deadline, enough)

    def look_up(self, jids: Iterable[str]) -> dict[str, Any]:
        """{id: jobinfo, or False} of each id: from the cache where the job is there, else from the node.

        A closed Client still tells of the ended jobs in its cache; what would be out of date raises ClientClosed.
        """
        wanted, found = list(jids), {}
        if self._channel.inherited:
            self._channel.check_open()  # a thread that is not in this child may have held the cache's lock
        if self._cache is not None and self.closed:
            found = {jid: info for jid, info in self._cache.infos(wanted).items() if is_exited(info)}
        elif self._cache is not None:
            found = self._synced("look_up").infos(wanted)
        missing = [jid for jid in wanted if jid not in found]
        if missing:
            found.update(self._query(missing))
        return {jid: found.get(jid, False) for jid in wanted}

    def watch(self, jid: str, watcher: Any) -> None:
        """Call `watcher(jid)` once when the job is over for good. It must not block, raise, or use this Client."""
        self._need_cache("watch").watch(jid, watcher)

    # --- inside

    def _need_cache(self, method: str) -> Cache:
        if self._cache is None:
            raise InvalidRequest(f"{method} reads the cache, which needs Client(refresh=…) above 0")
        self._channel.check_open()  # nothing in it would ever change again
        return self._cache

    def _synced(self, method: str, deadline: float | None = None) -> Cache:
        cache = self._need_cache(method)
        if not cache.synced:
            default = time.monotonic() + self._settings.timeout
            self._await(cache, lambda: cache.synced, "the jobs", min(default, deadline or default))
        return cache

    def _query(self, what: str | list[str] | dict[str, Any], timeout: float | None = None) -> Any:
        """What the node says, and of jobs that it does not know, and that another node may have, that they are so."""
        found = in_parts(lambda part: self._channel.call("query", part, timeout=timeout), what)
        unanswered = self._submits.unanswered
        if isinstance(what, str):
            if found is False:
                return unanswered.infos([what]).get(what, False)
            unanswered.heard_of([what])
            if self._cache is None:
                told_of(self, {what: found})
            return found
        unanswered.heard_of(found)
        if self._cache is None:
            told_of(self, found)
        return {**unanswered.infos(what), **found} if isinstance(what, list) else found

    def _await(self, cache: Cache, ready: Any, what: str, deadline: float | None = None) -> None:
        if deadline is None:
            deadline = time.monotonic() + self._settings.timeout
        if cache.wait_until(ready, deadline, self._channel.check_let_in):
            return
        link = self._channel.link
        if not link.ready:
            raise link.failure()
        raise RequestTimeout(f"{link.describe()} did not answer in time about {what}")

    def _await_round(self, cache: Cache, deadline: float) -> None:
        with cache.lock:
            cache.round_wanted += 1
            wanted = cache.round_wanted
        self._channel.wake()
        self._await(cache, lambda: cache.round_done >= wanted, "a sync", deadline)
