"""A node as a process: its log, its signals, its one line on stdout, its exit code. Only here are signals handled."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import logging
import os
import resource
import signal
import sys
from collections.abc import Callable

from meeseeks.clock import monotonic
from meeseeks.config import NodeConfig
from meeseeks.errors import MeeseeksError

from .node import Node
from .parent import end_with_parent

__all__ = ["run"]

log = logging.getLogger("meeseeks")

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_FILES = 65_536
"""Not as many as there may be: jobs inherit it, and some programs go through all numbers that a file might have."""
_M_MMAP_THRESHOLD, _LARGE = -3, 256 * 1024
_JOIN_WITHIN = 8.0
"""A name that is taken by a node that has just died is free again within three heartbeats. One that is another node's
is not: then there is only time for others, who may know better, to let this node in."""


def run(config: NodeConfig, log_format: str = "text") -> int:
    """Run a node until SIGTERM or SIGINT; 0, or 1 with one line on stderr if it can't start or may not join.

    `log_format`: `text`, or `json` for one object a line: ts (seconds since 1970), level, node, message, and logger;
    with the traceback of a defect in `error`. SIGHUP replaces the program by itself, as it is on disk by now, and its
    jobs go on.
    """
    _set_up_logging(config, log_format)
    if not end_with_parent():
        return 1
    _raise_file_limit()
    _give_memory_back()
    for warning in config.warnings:
        log.warning("%s", warning)
    wakeup_fd, stop = _catch_signals()
    try:
        node = Node(config)
    except (MeeseeksError, OSError) as error:
        print(f"mks node: {error}", file=sys.stderr)
        return 1
    is_refused = _watch_start(node, config.heartbeat)

    def should_stop() -> bool:
        return any(number != signal.SIGHUP for number in stop) or is_refused()

    def should_leave() -> bool:
        if signal.SIGHUP in stop and config.state.sync == "memory":
            stop.remove(signal.SIGHUP)
            log.warning("SIGHUP is ignored: with state.sync=memory jobs can't outlive the program")
        return signal.SIGHUP in stop

    with contextlib.suppress(OSError):  # a full disk, or nobody who reads it: no reason not to be there
        print(f"ready {config.name} {config.listen.address}:{node.port} pub {node.pub_port}", flush=True)
    log.info("node %s listens on %s:%d (pub %d)", config.name, config.listen.address, node.port, node.pub_port)
    # The table's containers live as long as the node. To go through them in search of cycles, which are not in there,
    # would hold the loop for longer than most turns take.
    gc.collect()
    gc.freeze()
    if node.run(wakeup_fd, should_stop, should_leave):
        _start_again(config, node, stop)
    if not stop and node.refused is not None:
        print(f"mks node: {node.refused}", file=sys.stderr)
        return 1
    return 0


def _watch_start(node: Node, heartbeat: float) -> Callable[[], bool]:
    """Tells whether the mesh that a node was started to join would not have it, after some time for a change of mind.

    Not of one that has run for a while: it may have jobs, and only happens to meet a mesh. It goes on, and logs it.
    """
    began_at, join_within = monotonic(), max(_JOIN_WITHIN, 4 * heartbeat)
    is_settled = False

    def is_refused() -> bool:
        nonlocal is_settled
        if node.refused is None:
            is_settled = is_settled or monotonic() > began_at + join_within
        if is_settled or node.refused is None:
            return False
        return monotonic() > began_at + (1.0 + heartbeat if node.is_refused_for_good else join_within)

    return is_refused


def _start_again(config: NodeConfig, node: Node, caught: list[int]) -> None:
    """Become the program that was started, on the ports that it has by now. Does not return.

    Signals that come until that one has its handlers wait for it; so does a stop that came while this one was leaving.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    for number in {*caught} - {signal.SIGHUP}:
        os.kill(os.getpid(), number)
    ports = [] if config.listen.port else [f"listen.port={node.port}", f"listen.pub_port={node.pub_port}"]
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:], *ports])  # noqa: S606 - our own command line


def _give_memory_back() -> None:
    """Large blocks go back to the system when they are free; glibc would keep them, and scatter small ones in them."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE)


def _raise_file_limit() -> None:
    """Room for more connections than the usual 1024: libzmq ends the process where it can open no file any more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(hard, _FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _catch_signals() -> tuple[int, list[int]]:
    """A file descriptor that becomes readable at SIGTERM, SIGINT or SIGHUP, and the list that then has its number."""
    readable, writable = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    caught: list[int] = []

    def on_signal(number: int, _frame: object) -> None:
        caught.append(number)

    handler: Callable[[int, object], None] = on_signal
    for number in _SIGNALS:
        signal.signal(number, handler)
    signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)  # those that came while the program was replaced come now
    return readable, caught


class _JsonLines(logging.Formatter):
    """A record as one JSON object on one line."""

    def __init__(self, node: str) -> None:
        super().__init__()
        self._node = node

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        line = {"ts": round(record.created, 6), "level": record.levelname, "node": self._node}
        line |= {"message": record.getMessage(), "logger": record.name}
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line)


def _set_up_logging(config: NodeConfig, log_format: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter(f"%(asctime)s {config.name.replace('%', '%%')} %(levelname)s %(name)s: %(message)s")
    handler.setFormatter(_JsonLines(config.name) if log_format == "json" else text)
    logging.basicConfig(level=config.logging.level, handlers=[handler])
