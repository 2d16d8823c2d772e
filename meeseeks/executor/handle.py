"""The node's side of its executor: starts it or finds the one that outlived the last node, talks to it, ends it.

For one single-threaded loop; nothing but `stop` waits.

What the node may rely on:

- After a start, a restart and an adoption `receive` hands out exactly one Adopted, before or with the first other
  events; orders are held back until then. Together with the events that follow it is the whole truth: a task that is in
  none of them is not known to the executor.
- Orders and events arrive in order, and none is lost as long as both processes live. Orders that were sent to an
  executor that died are not repeated to the next one, nor are its slots: set them again on each Adopted.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path

from meeseeks.clock import monotonic
from meeseeks.core.effects import Ack, Adopted, Event
from meeseeks.errors import ProtocolError
from meeseeks.wire import codec, messages
from meeseeks.wire.local import Listener
from meeseeks.wire.messages import Fed, Order

from .frames import frames
from .journal import JOURNAL_NAME, sweep
from .lock import holder_of
from .program import program
from .spool import Spool

__all__ = ["ExecutorHandle"]

_SOCKET_PATH_MAX = 107  # bytes of a socket file's path, of Linux
_POLL_MS = 20
_LINGER_S = 0.5

log = logging.getLogger(__name__)


class ExecutorHandle:
    """The executor of the node with this state folder.

    `inline_output`: most bytes of a stream that an Exited carries. `outlive`: the executor and its tasks go on when
    this process ends, and the next handle with the same folder adopts them; else they end with it. An executor without
    a node goes `linger_s` after its last task. One node at a time may use a folder.
    """

    def __init__(
        self,
        state_dir: Path,
        node_name: str,
        *,
        inline_output: int = 4096,
        outlive: bool = False,
        linger_s: float = 30.0,
    ) -> None:
        self._folder = state_dir.absolute()
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._node_name = node_name
        self._inline_output = inline_output
        self._outlive = outlive
        self._linger_s = linger_s
        self.spool = Spool(self._folder / "spool")
        self._own_folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._fed: list[Fed] = []
        self._backlog: list[Order] = []
        self._is_urgent = False
        self._is_adopted = False
        found = holder_of(self._folder) if outlive else None
        if found is not None:
            holder, self.pidfd = found
            self._path = Path(holder.socket)
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.line = Listener(self._path)
            log.info("found the executor of an earlier run, process %d", holder.pid)
        else:
            self._path = self._new_path()
            self.line = Listener(self._path)
            self.pidfd = self._start()

    @property
    def is_ready(self) -> bool:
        """Whether the executor has said what it has: until then orders wait here."""
        return self._is_adopted

    def send(self, orders: Sequence[Order]) -> None:
        """Have the executor do this, in this order. What can't be sent now is sent with a later `send` or `receive`.

        Acks alone can wait: they go with the next order, or with `flush`, which is to be called a few times a second.
        """
        self._backlog.extend(orders)
        self._is_urgent = self._is_urgent or not all(isinstance(order, Ack) for order in orders)
        if self._is_urgent:
            self.flush()

    def flush(self) -> bool:
        """Send what had to wait; False if some of it still has to."""
        if self._is_adopted:
            for sent, frame in frames(self._backlog):
                if not self.line.send(frame):
                    break
                del self._backlog[:sent]
        self._is_urgent = self._is_urgent and bool(self._backlog)
        return not self._backlog

    def receive(self) -> list[Event]:
        """All that the executor has told so far. Never waits."""
        events: list[Event] = []
        for frame in self.line.receive():
            try:
                events.extend(self._for_the_core(codec.decode_events(frame)))
            except ProtocolError as error:
                log.warning("events of the executor that can't be read were dropped: %s", error)
        if self._is_urgent:
            self.flush()
        return events

    def take_fed(self) -> list[Fed]:
        """The answers to Feeds that `receive` has found; each is handed out once."""
        fed, self._fed = self._fed, []
        return fed

    def _for_the_core(self, events: list[messages.Event]) -> list[Event]:
        """Without what is not its business, and without later Adopted.

        They may have been sent before an order of ours that they seem to have lost.
        """
        kept: list[Event] = []
        for event in events:
            if isinstance(event, Fed):
                self._fed.append(event)
                continue
            if isinstance(event, Adopted):
                if self._is_adopted:
                    continue
                self._is_adopted = True
            kept.append(event)
        return kept

    def died(self) -> bool:
        """Whether the executor is gone. Its last events can still be received; then `restart`."""
        if self.pidfd < 0:
            return True
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(0))

    def restart(self) -> None:
        """Start another one, which first ends what the dead one left. `pidfd` is a new one; `line` stays.

        Receive the dead one's last events before: from now on none of it is handed out. OSError where no process can
        be started now, for want of memory or files: call it again then.
        """
        self._reap()
        self.line.hang_up()
        self._backlog.clear()
        self._is_adopted = False
        self.pidfd = self._start()

    def stop(self, timeout: float = 9.5) -> list[Event]:
        """End the executor and all its tasks, and return what it had to tell meanwhile. The handle is closed then.

        Tasks get their grace, 5 s at most. An executor that is not gone after `timeout` seconds is killed, and what it
        leaves behind as well.
        """
        self.flush()
        self._signal(signal.SIGTERM)
        events = self._receive_until_dead(timeout)
        if not self.died():
            log.error("the executor does not end: killed")
            self._signal(signal.SIGKILL)
            events += self._receive_until_dead(1.0)
        self._reap()
        sweep(self._folder / JOURNAL_NAME)
        self._close()
        return events

    def detach(self) -> None:
        """Leave the executor and its tasks to the next handle with this folder (or, without `outlive`, end them)."""
        self.flush()
        if self.pidfd >= 0:
            os.close(self.pidfd)
        if self._process is not None:
            self._process.returncode = 0  # it is not waited for here: it lives on
        self.line.close(_LINGER_S)

    def _receive_until_dead(self, timeout: float) -> list[Event]:
        poller = select.poll()
        poller.register(self.line, select.POLLIN)
        if self.pidfd >= 0:
            poller.register(self.pidfd, select.POLLIN)
        events: list[Event] = []
        deadline = monotonic() + timeout
        while not self.died() and monotonic() < deadline:
            poller.poll(max(0, int((deadline - monotonic()) * 1000)))
            events += self.receive()
        # Its last words may be in the socket's buffer still.
        if self.pidfd >= 0:
            poller.unregister(self.pidfd)
        while poller.poll(_POLL_MS):
            events += self.receive()
        return events

    def _start(self) -> int:
        command = program("meeseeks.executor")
        command += ["--socket", str(self._path), "--spool", str(self.spool.folder)]
        command += [f"--node-name={self._node_name}", f"--inline-output={self._inline_output}"]
        command += [f"--parent={os.getpid()}", f"--log-level={log.getEffectiveLevel()}"]
        command += ["--outlive", f"--linger={self._linger_s}"] if self._outlive else []
        # Its own session: Ctrl-C at the node's terminal is for the node. Its stdout is our stderr: ours has but one
        # line on stdout, and people parse it.
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=2, start_new_session=True)
        try:
            pidfd = os.pidfd_open(process.pid)
        except OSError:
            process.kill()
            process.wait()
            raise
        self._process = process
        return pidfd

    def _signal(self, number: int) -> None:
        if self.pidfd < 0:
            return
        try:
            signal.pidfd_send_signal(self.pidfd, number)
        except ProcessLookupError:
            log.info("the executor has ended already")

    def _reap(self) -> None:
        if self.pidfd < 0:
            return
        if self._process is not None:
            self._process.wait()
            self._process = None
        else:
            # One that was found is our child all the same if this process was the program that started it.
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)
        os.close(self.pidfd)
        self.pidfd = -1

    def _new_path(self) -> Path:
        """A socket file of our own: an executor of an earlier node, that is about to end, must not find it."""
        for stale in self._folder.glob("executor-*.sock"):
            stale.unlink(missing_ok=True)
        path = self._folder / f"executor-{uuid.uuid4().hex[:8]}.sock"
        if len(os.fsencode(path)) > _SOCKET_PATH_MAX:
            self._own_folder = Path(tempfile.mkdtemp(prefix="meeseeks-", dir=_short_folder()))  # 0700
            path = self._own_folder / "executor.sock"
        return path

    def _close(self) -> None:
        self.line.close()
        self._path.unlink(missing_ok=True)
        if self._own_folder is not None:
            shutil.rmtree(self._own_folder, ignore_errors=True)


def _short_folder() -> str:
    """Where a folder for a socket file fits: where TMPDIR says, unless that is too long itself."""
    wanted = tempfile.gettempdir()
    fits = len(os.fsencode(wanted)) + len("/meeseeks-12345678/executor.sock") <= _SOCKET_PATH_MAX
    return wanted if fits else "/tmp"  # noqa: S108 - mkdtemp makes a folder in it that is ours alone
