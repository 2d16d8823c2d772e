"""The process that owns the processes of a node's jobs: `python -m meeseeks.executor`. Nodes start it (`handle`).

It runs in a session of its own, so that Ctrl-C at the node's terminal reaches the node only, which then decides.
"""

from __future__ import annotations

import argparse
import errno
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from .brands import drop_brand
from .ends import ENDS_NAME, Ends
from .executor import Executor
from .journal import JOURNAL_NAME, Journal, sweep, unacked
from .lock import Lock
from .loop import Loop
from .processes import TASK_MARK, become_subreaper
from .spool import Spool

__all__ = ["main"]

T = TypeVar("T")

_LOOK_AGAIN_S = 0.5

log = logging.getLogger("meeseeks.executor")


def main(arguments: list[str] | None = None) -> int:
    """Run an executor until its node ends it. Returns the process's exit code."""
    options = _parse(arguments)
    logging.basicConfig(
        level=options.log_level,
        format=f"%(asctime)s %(levelname)s executor of {options.node_name.replace('%', '%%')}: %(message)s",
        stream=sys.stderr,
    )
    # The node may have been started with signals blocked, or ignored (nohup); jobs are to start with none.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in signal.valid_signals() - {signal.SIGPIPE, signal.SIGXFSZ}:  # which Python itself ignores
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    # `pkill -HUP -f meeseeks` means nodes. A handler: jobs would inherit that a signal is ignored, not that it has one.
    signal.signal(signal.SIGHUP, lambda *_: None)
    os.environ.pop(TASK_MARK, None)  # a node that was itself started by a job
    drop_brand()
    become_subreaper()
    folder = options.spool.parent
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def is_wanted() -> None:
        """A node that starts its own executor has taken the socket file of ours away before."""
        if os.getppid() != options.parent or not options.socket.exists():
            raise SystemExit(f"the node, process {options.parent}, has ended before its executor started")

    lock = Lock(folder)
    lock.take(is_wanted)
    _once_there_is_room(lambda: lock.sign(options.socket), is_wanted)
    ended = sweep(folder / JOURNAL_NAME)
    left = unacked(folder / JOURNAL_NAME, time.time())
    if ended:
        log.warning("killed %d processes that a dead executor had left", ended)
    journal = _once_there_is_room(lambda: Journal(folder / JOURNAL_NAME, left), is_wanted)
    ends = Ends(folder / ENDS_NAME) if options.outlive else None
    spool = Spool(options.spool)
    spool.prepare()
    executor = Executor(spool, journal, options.inline_output, ends.read() if ends is not None else (), left)
    Loop(executor, options.socket, options.parent, ends, options.linger).run()
    lock.release()
    return 0


def _once_there_is_room(do: Callable[[], T], is_wanted: Callable[[], None]) -> T:
    """Without its journal an executor may start nothing. While the disk is full its node starts nothing either."""
    has_told = False
    while True:
        try:
            return do()
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            if not has_told:
                log.warning("waiting until there is room: %s", error)
            has_told = True
        is_wanted()
        time.sleep(_LOOK_AGAIN_S)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m meeseeks.executor", description="Owns the processes of jobs.")
    parser.add_argument("--socket", type=Path, required=True, help="the socket file that the node listens on")
    parser.add_argument("--spool", type=Path, required=True, help="folder for captured output")
    parser.add_argument("--node-name", required=True, help="for the log")
    parser.add_argument("--inline-output", type=int, required=True, help="most bytes of a stream that an event carries")
    parser.add_argument("--outlive", action="store_true", help="go on when the node ends")
    parser.add_argument("--parent", type=int, default=os.getppid(), help="process id of the node (the parent)")
    parser.add_argument("--linger", type=float, default=30.0, help="seconds to wait for a node with nothing but ends")
    parser.add_argument("--log-level", type=int, default=logging.INFO)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
