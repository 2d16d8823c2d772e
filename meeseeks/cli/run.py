"""`mks run`: a job that behaves as if its command had been started here."""

from __future__ import annotations

import signal
import threading
import time
import uuid
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Self

import click

from meeseeks.errors import InvalidRequest, MeeseeksError

from . import views
from .exits import BROKEN_PIPE, FAILED, SIGNAL_BASE
from .invocation import Invocation, client_options
from .jobspec import JobCommand, job_options, jobspec
from .output import warn
from .pick import warn_stuck

if TYPE_CHECKING:
    from meeseeks import Client

__all__ = ["run_command"]

_POLL_MIN, _POLL_MAX = 0.005, 0.05
"""Seconds between two looks at the job: short while there is output, and at its beginning."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@click.command("run", cls=JobCommand)
@job_options
@client_options
@click.pass_obj
def run_command(call: Invocation, /, where: str, command: list[str], **options: Any) -> int:
    """Run a job in POOL, show its output as it comes, and end with its exit code: 128 + n if signal n ended it.

    \b
      mks run p -- sh -c 'echo hello; exit 3'
      mks run --runtime 5m p@b -- ./benchmark

    Ctrl-C and SIGTERM kill the job; a second Ctrl-C does not wait for its end. stdin is empty unless --stdin names a
    file on the job's node.
    """  # noqa: D301 - click looks for the character itself
    spec = jobspec(where, command, options)
    node = spec.get("node")
    if isinstance(node, list) or (node or "").endswith("*"):
        raise InvalidRequest(f"{where!r} are several jobs, and run shows the output of one: use 'mks sub --wait'")
    spec.setdefault("id", uuid.uuid4().hex)
    with call.client() as client, _Signals(spec["id"]) as signals:
        if options["jid"] is not None and client.query([spec["id"]]):
            raise InvalidRequest(f"there is a job {spec['id']!r} already: give another --id")
        warn_stuck(client.submit(**spec))
        try:
            info = _follow(client, spec["id"], signals)
        except BrokenPipeError:
            client.kill(spec["id"])  # as the command itself would have been
            return BROKEN_PIPE
        except MeeseeksError:
            warn(
                f"job {spec['id']} goes on without us; 'mks get {spec['id']}' shows it, 'mks kill {spec['id']}' ends it"
            )
            raise
    return SIGNAL_BASE + signals.caught if signals.caught else _exit_code(spec["id"], info)


def _follow(client: Client, jid: str, signals: _Signals) -> dict[str, Any] | None:
    """Copy the job's output until it is over; its last jobinfo, or None if it is known no more."""
    from meeseeks.client.arguments import is_exited

    from .follow import Follower

    follower, pause, killed = Follower(client, jid), _POLL_MIN, False
    while True:
        if signals.caught and not killed:
            client.kill(jid)
            killed = True
        info, copied = follower.step()
        if info is None or is_exited(info):
            return info
        pause = _POLL_MIN if copied else min(_POLL_MAX, pause * 1.3)
        time.sleep(pause)


def _exit_code(jid: str, info: dict[str, Any] | None) -> int:
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
    """While it is entered, the first signal is noted in `caught`, and a second one interrupts whatever goes on."""

    def __init__(self, jid: str) -> None:
        self.caught = 0
        self._jid = jid
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._on_signal) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self.caught:
            warn(f"not waiting for the end of job {self._jid}; 'mks get {self._jid}' shows what becomes of it")
            raise KeyboardInterrupt
        self.caught = number
