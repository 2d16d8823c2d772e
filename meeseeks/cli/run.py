"""`mks run`: a job that behaves as if its command had been started here."""

from __future__ import annotations

import os
import queue
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Self

import click

from meeseeks.errors import InvalidRequest, MeeseeksError, NodeUnreachable

from . import views
from .exits import BROKEN_PIPE, FAILED, SIGNAL_BASE, UNREACHABLE, exit_code_of
from .invocation import Invocation, client_options
from .jobspec import JobCommand, job_options, jobspec
from .output import warn
from .pick import warn_stuck

if TYPE_CHECKING:
    from meeseeks import Client

__all__ = ["run_command"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PIPED = "-"
_DEFAULT_TIMEOUT_S = 10.0
_KILL_AGAIN_S = 0.5
_IN_LINE = ("taken", "in line", "assigned to node", "being assigned", "not assigned it yet", "moment", "short delay")
"""Words of the reasons that every job may have before its start."""
_ONE_SIGNAL_S = 0.5
"""Signals that come so close together are one: timeout(1) sends each to us and to our process group."""


@click.command("run", cls=JobCommand)
@job_options
@click.option(
    "--local", is_flag=True, help="Run it without a mesh: on a node of its own that lives as long as it does."
)
@client_options
@click.pass_obj
def run_command(call: Invocation, /, where: str, command: list[str], local: bool, **options: Any) -> int:
    """Run a job in POOL, show its output as it comes, and end with its exit code: 128 + n if signal n ended it.

    \b
      mks run p -- sh -c 'echo hello; exit 3'
      mks run --runtime 5m p@b -- ./benchmark
      tar c . | mks run p@b -- tar x -C /tmp
      mks run --local p -- make test

    A stdin that is a pipe or a file is handed on to the job, wherever that runs; --stdin PATH names a file on the job's
    node instead (--stdin /dev/null: nothing). Of what was handed on nothing is kept: if --retries or --restart start
    the job again, its stdin is empty then.

    Ctrl-C and SIGTERM kill the job; a second Ctrl-C does not wait for its end. A SIGKILL ends only us: the job goes on,
    or waits for its stdin, until 'mks kill' or --runtime ends it; with --local it is ended as well. A node that is
    started again, or a connection that breaks, is waited for (--timeout; default 30 seconds), and no byte is lost or
    shown twice.
    """  # noqa: D301 - click looks for the character itself
    from .feed import has_input

    spec = jobspec(where, command, options)
    node = spec.get("node")
    if isinstance(node, list) or (node or "").endswith("*"):
        raise InvalidRequest(f"{where!r} are several jobs, and run shows the output of one: use 'mks sub --wait'")
    spec.setdefault("id", uuid.uuid4().hex)
    if spec.get("stdin") is None and has_input():
        spec["stdin"] = _PIPED
    with _Signals(spec["id"]) as signals, _client(call, spec, local=local) as client:
        if options["jid"] is not None and client.query([spec["id"]]):
            raise InvalidRequest(f"there is a job {spec['id']!r} already: give another --id")
        is_told = warn_stuck(client.submit(**spec))
        return _show(call, client, spec, signals, is_told=is_told)


def _show(call: Invocation, client: Client, spec: dict[str, Any], signals: _Signals, *, is_told: bool) -> int:
    """Follow the submitted job to its end; the exit code. `is_told`: why it waits."""
    from .feed import Feeder
    from .follow import PATIENCE_S, STREAMS, Follower, Incomplete

    jid = spec["id"]
    timeout = call.timeout or _DEFAULT_TIMEOUT_S
    follower = Follower(client, jid, tuple(STREAMS), timeout, call.timeout or PATIENCE_S)
    feeder = Feeder(client, jid) if spec.get("stdin") == _PIPED else None
    signals.kill_with(client)
    try:
        on_wait = None if is_told else lambda: _warn_waits(client, jid)
        info = follower.follow(feeder.start if feeder is not None else None, on_wait)
    except Incomplete as error:
        if error.info["rc"] is None:
            return _exit_code(jid, error.info)
        warn(str(error))
        return UNREACHABLE
    except MeeseeksError as error:
        warn(f"{error}; job {jid} may go on: 'mks logs -f {jid}' shows its output, 'mks kill {jid}' ends it")
        return exit_code_of(error)
    except OSError as error:  # after those of ours, of which some are OSErrors as well
        return _end_unwritten(client, jid, error)
    finally:
        if feeder is not None:
            feeder.stop()
    return SIGNAL_BASE + signals.caught if signals.caught else _exit_code(jid, info)


def _warn_waits(client: Client, jid: str) -> None:
    """Say in a line on stderr why a job has not started yet: not if it only is in line, as jobs are."""
    with suppress(MeeseeksError):  # the follower says what is wrong with our node, and when
        info = client.query([jid]).get(jid, {})
        reason = info.get("reason") or ""
        if reason and not any(words in reason for words in _IN_LINE):
            warn(f"job {jid} waits: {reason}; 'mks kill {jid}' takes it back")


def _end_unwritten(client: Client, jid: str, error: OSError) -> int:
    """Nothing takes the job's output any more: it is killed, as the command itself would have ended; the exit code."""
    why, is_pipe = f"can't write the output: {error.strerror}", isinstance(error, BrokenPipeError)
    try:
        info = client.kill(jid)
    except MeeseeksError as failure:
        warn(f"{why}; job {jid} may go on, since it could not be killed: {failure}; 'mks kill {jid}' ends it")
    else:
        if not is_pipe:
            warn(f"{why}; job {jid} was killed" if info and info["state"] == "killed" else why)
    return BROKEN_PIPE if is_pipe else FAILED


@contextmanager
def _client(call: Invocation, spec: dict[str, Any], *, local: bool) -> Iterator[Client]:
    """A Client of the mesh; or, with --local, of a node that is there for this job only."""
    if not local:
        with _reached(call, spec["pool"]) as client:
            yield client
        return
    if spec.get("node") is not None:
        raise InvalidRequest(f"--local runs a node of its own: leave '@{spec['node']}' out")
    if call.address is not None:
        raise InvalidRequest("--local runs a node of its own: leave --address out")
    import tempfile
    from pathlib import Path

    from .local_mesh import LocalMesh

    pairs = [f"pools.{spec['pool']}.slots={os.cpu_count() or 1}", "state.sync=memory", "discover=false"]
    with (
        tempfile.TemporaryDirectory(prefix="meeseeks-run-") as folder,
        LocalMesh(Path(folder), ["local"], pairs) as mesh,
        mesh.client() as client,
    ):
        yield client


def _reached(call: Invocation, pool: str) -> Client:
    try:
        return call.client()
    except NodeUnreachable as error:
        from meeseeks.client.settings import parse_environment

        if call.address is not None or "address" in parse_environment(os.environ.get("MEESEEKS_CONF", "")):
            raise
        raise NodeUnreachable(f"{error}, or do without one: 'mks run --local {pool} -- ...'") from error


def _exit_code(jid: str, info: Any) -> int:
    if info is None:
        warn(f"job {jid} is known no more: its node has forgotten it")
        return FAILED
    rc: int | None = info["rc"]
    if rc is None or rc < 0 or info["state"] == "killed":
        warn(views.failure(info))
    if rc is None:
        return FAILED
    return SIGNAL_BASE - rc if rc < 0 else rc


class _Signals:
    """While it is entered, the first signal kills the job, and is noted in `caught`; a second one interrupts all."""

    def __init__(self, jid: str) -> None:
        self.caught = 0
        self._caught_at = 0.0
        self._jid = jid
        self._before: dict[int, Any] = {}
        # Handlers run in between any two steps of the main thread: of all queues only this one bears that.
        self._queue: queue.SimpleQueue[int] = queue.SimpleQueue()

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            # What is ignored stays so, as it would for the command itself: nohup, and jobs in the background.
            wanted = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._on_signal) for number in wanted}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def kill_with(self, client: Client) -> None:
        """The job is submitted: from now on a signal kills it, by a thread that waits for one."""
        threading.Thread(target=self._kill, args=(client,), name="mks-kill", daemon=True).start()

    def _kill(self, client: Client) -> None:
        self._queue.get()
        while not client.closed:
            try:
                client.kill(self._jid)
                return
            except MeeseeksError:
                time.sleep(_KILL_AGAIN_S)  # whoever follows the job knows how long to try

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self.caught and time.monotonic() - self._caught_at < _ONE_SIGNAL_S:
            return
        if self.caught:
            warn(f"not waiting for the end of job {self._jid}; 'mks get {self._jid}' shows what becomes of it")
            raise KeyboardInterrupt
        self.caught, self._caught_at = number, time.monotonic()
        self._queue.put(number)
