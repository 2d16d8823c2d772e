"""`mks wait`: return when jobs have ended."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from meeseeks.errors import ClientClosed, InvalidRequest, MeeseeksError, NodeUnreachable, RequestTimeout

from . import views
from .exits import FAILED, OK
from .invocation import Invocation, address_option, debug_option, json_option
from .output import clean, warn
from .pick import infos_of, warn_missing
from .wait_view import WaitView, no_view, wait_view
from .waiting import Progress, follow
from .words import selection

if TYPE_CHECKING:
    from meeseeks import Client

__all__ = ["report", "wait_command", "wait_for"]

_LIVE = {"state", "active"}
"""Filters that match a job for a while only: that there is none says that it is over."""
_LOOK_S = 1.0
"""Seconds that a question may take in any case: a wait of no time is a look, and has time for an answer as well."""
_NAMED_FAILURES = 5
_STDERR_LINES = 5
_STDERR_BYTES = 4096
_STDERR_CELLS = 200


@click.command("wait")
@click.argument("words", metavar="JID...|FILTER...", nargs=-1, required=True)
@click.option("--any", "any_", is_flag=True, help="Return as soon as one of them has ended.")
@click.option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="Give up then, with exit code 3.")
@address_option
@debug_option
@json_option
@click.pass_obj
def wait_command(call: Invocation, /, words: tuple[str, ...], any_: bool, timeout: float | None) -> int:
    """Wait until jobs have ended, with all their processes. A filter stands for the jobs that match it now.

    Exit code 1 if one of them failed, was killed or is not there; the first few are named, with the last lines that
    they wrote to stderr. With --any it is about those that have ended. A FILTER that matches no job is 1 as well, but
    for one by state or active: where none is running, 'mks wait state=running' has nothing to wait for.

    In a pipe: a line for each job when it has ended, with id, state, node, exit code and time, separated by tabs.

    --json: an array of jobinfos of those that have ended, also where it gives up.
    """
    chosen = selection(words)
    if timeout is not None and math.isnan(timeout):
        raise InvalidRequest("--timeout is a number of seconds, not nan")
    call.at_most = None if timeout is None else max(_LOOK_S, timeout)
    with call.client() as client:
        found = infos_of(client, chosen)
        missing = warn_missing(client, chosen, found)
        view = no_view() if call.json or not found else wait_view()
        ended: dict[str, Any] = {}
        try:
            wait_for(client, lambda: call.client(refresh=1), found, timeout, any_=any_, view=view, ended=ended)
        finally:
            if call.json:
                call.printer().show(views.jobs(ended.values()))
        code = report(client, ended)
    if missing or (not found and not _LIVE & chosen.filters.keys()):
        return FAILED
    enough = min(1, len(found)) if any_ else len(found)
    return FAILED if len(ended) < enough else code


def wait_for(
    client: Client,
    follower: Callable[[], Client],
    infos: dict[str, Any],
    timeout: float | None,
    *,
    any_: bool = False,
    view: WaitView | None = None,
    ended: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The jobinfos of those that have ended, once all have (`any_`: one has); RequestTimeout after `timeout` seconds.

    `infos` are the jobs as they are now. `follower` makes a client with a cache, for many jobs. A job that is known no
    more is left out, and said so. `ended` is what they are put into, for whom an error is not the end of it.
    """
    deadline = float("inf") if timeout is None else time.monotonic() + timeout
    ended = {} if ended is None else ended
    gone: set[str] = set()
    progress, why = Progress({}, 0, len(infos)), ""
    with view or no_view() as shown, _closed_after(client, timeout):
        shown.begin(len(infos))
        try:
            for progress in follow(client, follower, infos, deadline):
                _sort(progress, ended, gone)
                shown.show(progress)
                if any_ and (ended or gone):
                    return ended
                if time.monotonic() >= deadline:
                    break
        except (ClientClosed, NodeUnreachable, RequestTimeout) as error:
            if time.monotonic() < deadline:
                raise
            why = "; the node does not answer" if isinstance(error, ClientClosed) else f"; {error}"
    left = next((jid for jid in infos if jid not in ended and jid not in gone), None)
    if left is None:
        return ended
    raise RequestTimeout(
        f"{len(ended) + len(gone)} of {len(infos)} jobs have ended after {timeout:g} s; "
        f"running: {progress.running}, waiting: {progress.waiting}, among them {left}{why}"
    )


def _sort(progress: Progress, ended: dict[str, Any], gone: set[str]) -> None:
    for jid, info in progress.ended.items():
        if info is None:
            gone.add(jid)
            warn(f"job {jid} is known no more: its node has forgotten it")
        else:
            ended[jid] = info


@contextmanager
def _closed_after(client: Client, timeout: float | None) -> Iterator[None]:
    """A question that is open when the time is over ends soon after it, with ClientClosed."""
    if timeout is None:
        yield
        return
    timer = threading.Timer(min(timeout + _LOOK_S, threading.TIMEOUT_MAX), client.close)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def report(client: Client, infos: dict[str, Any]) -> int:
    """The exit code for these ended jobs; names the first that failed on stderr, with the end of theirs."""
    failed = [info for info in infos.values() if views.has_failed(info)]
    for info in failed[:_NAMED_FAILURES]:
        warn(views.failure(info))
        for line in _last_words(client, info):
            click.echo(f"  {line}", err=True)
    if len(failed) > _NAMED_FAILURES:
        warn(f"and {len(failed) - _NAMED_FAILURES} more; 'mks ls state=failed' and 'mks ls state=killed' show them")
    return FAILED if failed else OK


def _last_words(client: Client, info: dict[str, Any]) -> list[str]:
    """The last lines of a job's stderr, wherever in the mesh they are."""
    if info["stderr"] is not None:
        return [f"its stderr is in {info['stderr']} on node {info['node']}"] if info["start_count"] else []
    size = info["stderr_size"]
    if not size:
        return []
    offset = max(0, size - _STDERR_BYTES)
    wanted = {"id": info["id"], "stream": "stderr", "offset": offset, "limit": _STDERR_BYTES}
    try:
        data: bytes = client.request({"output": wanted})["output"]["data"]
    except MeeseeksError as error:
        return [f"(its stderr can't be read: {error})"]
    lines = data.decode(errors="replace").splitlines()[1 if offset else 0 :]
    return [clean(line)[:_STDERR_CELLS] for line in lines[-_STDERR_LINES:]]
