"""The Job: one job, or one on each of several nodes, as an object (API.md)."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable
from typing import Any, NoReturn, TypeAlias

from meeseeks.core.record import FAILED, KILLED, Record, Spec, Status, jobinfo
from meeseeks.core.spec import JOB_KEYS, check
from meeseeks.errors import ClientClosed, InvalidRequest

from .arguments import is_exited, is_several, lacks_output
from .cache import Info
from .client import Client
from .notify import notify_when_over
from .settings import parse_environment
from .shared import SHARED

__all__ = ["Job", "get_global_client"]

Callback: TypeAlias = "Callable[[Job], object]"

_SAMPLE = Record(Spec(id="", pool="", args=(), submit_node=""), Status(epoch=(0, "")))
_INFO_KEYS = frozenset(jobinfo(_SAMPLE, 0)) | {"reason", "output_error"}  # which a node adds where there is something
_FETCHED = ("stdout_data", "stderr_data", "output_error")


def get_global_client() -> Client:
    """The Client of all Jobs that name none, made when it is first asked for.

    `MEESEEKS_CONF` in the environment configures it, with `key=value` pairs of the arguments of Client, for example
    `address=host port=13701 refresh=1`. Without, it connects to localhost:13700 with a refresh of 10 seconds.
    `Client(set_global=True)` takes its place.
    """
    return SHARED.get(_make_global)


def _make_global() -> Client:
    options = {"refresh": 10, **parse_environment(os.environ.get("MEESEEKS_CONF", ""))}
    if isinstance(options["refresh"], (int, float)):
        options.setdefault("poll", max(10, 2 * options["refresh"]))
    if isinstance(options.get("poll"), (int, float)):
        options.setdefault("expire", max(60, 2 * options["poll"]))
    options.pop("set_global", None)
    return Client(**options)


class Job:
    """A job to be started, or one that was.

    Every key of jobinfo is an attribute. Before `start` they are the jobspec's; after it, reading one looks the job
    up, and setting one changes the job. Where the job is several (`multi`), reading one gives {id: value}, and setting
    one changes them all. Once the Client is closed, only jobs that were seen to end can be read.

    Args:
        args: the command; the same as the key `args`. API.md has both `Job(client, notify, *args)` and `Job(*args)`: a
            Client or None in the first place is `client`, and None or what can be called in the second is `notify`.
        client: the Client to use; None is the global one (`get_global_client`).
        notify: is called with this Job when it is over for good, from a thread of the library; for several jobs once
            for the end of each. A job whose node is lost is over, and nobody is notified again if that turns out to be
            wrong. What it raises is logged.
        jobspec: the keys of a jobspec, as in API.md.

    Raises:
        InvalidRequest: an unknown key, or a wrong value.
    """

    client: Client
    jid: str | list[str] | None
    multi: bool

    def __init__(
        self,
        *args: str | Client | Callback | None,
        client: Client | None = None,
        notify: Callback | None = None,
        **jobspec: Any,
    ) -> None:
        command: list[Any] = list(args)
        if command and client is None and (command[0] is None or isinstance(command[0], Client)):
            client = command.pop(0)
            if command and notify is None and (command[0] is None or callable(command[0])):
                notify = command.pop(0)
        if command:
            jobspec["args"] = command
        check(jobspec, new=False)
        if notify is not None and not callable(notify):
            raise InvalidRequest(f"notify is a function that takes the job, not {notify!r}")
        put = super().__setattr__
        put("client", client if client is not None else get_global_client())
        put("multi", is_several(jobspec.get("node")))
        put("jid", None)
        put("_notify", notify)
        put("_lock", threading.Lock())
        put("_spec", jobspec)
        put("_last", {})

    def __repr__(self) -> str:
        return f"<Job {self.jid if self.jid is not None else 'not started'}>"

    # --- attributes

    def __getattr__(self, key: str) -> Any:
        if key not in _INFO_KEYS:
            raise AttributeError(f"a Job has no attribute {key!r}; jobinfo has {', '.join(sorted(_INFO_KEYS))}")
        if self.jid is None:
            return self._spec.get(key)
        infos = self._look_up()
        if key in _FETCHED:
            infos = {jid: self._with_output(jid, info) for jid, info in infos.items()}
        if self.multi:
            return {jid: info.get(key) for jid, info in infos.items()}
        return infos[str(self.jid)].get(key)

    def __setattr__(self, key: str, value: Any) -> None:
        if key not in JOB_KEYS:
            self._refuse(key)
        check({key: value}, new=False)
        if self.jid is None:
            self._spec[key] = value
            if key == "node":
                super().__setattr__("multi", is_several(value))
            return
        if key == "id":
            raise InvalidRequest("the id of a job that was started can't be changed")
        submit = self.client.submit_job if self.client.has_cache else self.client.submit
        group = self._spec["id"]
        # Of several jobs all change, or none. Each has a node of its own.
        for jid in [group] if self.multi and key != "node" else self._jids():
            submit(id=jid, **{key: value})

    def _refuse(self, key: str) -> NoReturn:
        if key in _INFO_KEYS or key in ("jid", "info", "multi", "client"):
            raise AttributeError(f"{key!r} of a Job can only be read")
        raise AttributeError(f"a Job has no attribute {key!r} to set; a jobspec has {', '.join(JOB_KEYS)}")

    @property
    def info(self) -> dict[str, Any]:
        """The jobinfo as it was last seen; for several jobs {id: jobinfo}; before the start the jobspec.

        With a cache it is up to date. Changing this dict changes nothing.
        """
        if self.jid is None:
            return dict(self._spec)
        if self.client.has_cache or not self._last:
            self._look_up()
        return dict(self._last) if self.multi else dict(self._last[str(self.jid)])

    # --- acts

    def start(self) -> str | list[str]:
        """Submit the job; returns its id, or the ids where `node` stands for several nodes.

        InvalidRequest if it was started before, or the jobspec is wrong. It may be called again after any other error:
        one job is started, not two. A job that has ended is started again by setting its `state` to 'new'.
        """
        with self._lock:
            if self.jid is not None:
                raise InvalidRequest(f"this Job was started already, as {self.jid}")
            if self._spec.get("id") is None:
                # Kept for the next attempt if this one fails: it is the same job then, and not a second one.
                given = {key: value for key, value in self._spec.items() if key != "state" or value == KILLED}
                check(given, new=True)
                super().__setattr__("_spec", {**given, "id": uuid.uuid4().hex})
            submit = self.client.submit_job if self.client.has_cache else self.client.submit
            infos = submit(**self._spec)
            jids = list(infos)
            put = super().__setattr__
            put("multi", self.multi or len(jids) > 1)
            put("_last", infos)
            put("jid", jids if self.multi else jids[0])
        if self._notify is not None:
            notify_when_over(self.client, jids, self._notify, self)
        return jids if self.multi else jids[0]

    def kill(self) -> None:
        """Kill the job, or all of them. It does nothing to one that has ended."""
        if self.client.has_cache:
            self.client.kill_jobs(self._jids())
        else:
            self.client.kill(self._jids())

    def is_alive(self) -> bool:
        """Whether the job, or any of several, was started and is not over for good."""
        return self.jid is not None and not all(map(is_exited, self._look_up().values()))

    def poll(self) -> dict[str, Any] | None:
        """None while the job is not over for good, then its jobinfo; for several jobs {id: jobinfo} of those over."""
        if self.jid is None:
            return {} if self.multi else None
        over = {jid: self._with_output(jid, info) for jid, info in self._look_up().items() if is_exited(info)}
        return over if self.multi else over.get(str(self.jid))

    def wait(self, timeout: float | None = None) -> dict[str, Any]:
        """Wait until the job, or all of several, is over for good; returns what `poll` does then.

        RequestTimeout after `timeout` seconds (None: never).
        """
        jids = self._jids()
        if not self.client.closed or self.is_alive():
            self.client.wait_for(jids, timeout)
        return self.poll() or {}

    # --- inside

    def _jids(self) -> list[str]:
        if self.jid is None:
            raise InvalidRequest("this Job was not started yet: call start() first")
        return list(self.jid) if isinstance(self.jid, list) else [self.jid]

    def _look_up(self) -> dict[str, Info]:
        """The jobinfo of each job; of one that nobody knows any more, what was seen of it last.

        ClientClosed if the Client is closed, unless all have ended: that they are over stays true.
        """
        last: dict[str, Info] = self._last
        try:
            found = self.client.look_up(self._jids())
        except ClientClosed:
            if all(map(is_exited, last.values())):
                return last
            raise
        infos = {jid: info or _gone(last[jid]) for jid, info in found.items()}
        super().__setattr__("_last", infos)
        return infos

    def _with_output(self, jid: str, info: Info) -> Info:
        if lacks_output(info):
            fetched = self.client.get_job(jid) if self.client.has_cache else self.client.query(jid)
            if fetched:
                self._last[jid] = fetched  # to be read when the Client is closed
            return fetched or info
        return info


def _gone(info: Info) -> Info:
    """A job that its node has forgotten: long ended, or lost with a node that keeps its table in memory only."""
    if is_exited(info):
        return info
    gone = {"state": FAILED, "active": False, "retries": 0, "resubmit": False, "error": "no node knows this job"}
    return {**info, **gone}
