"""Hundreds of nodes and calls of `mks`, without their imports for each: a process that has them already forks for each.

What comes of it is a process like that of Popen all the same: with its own arguments, environment, folder, streams and
exit code, and an end as an interpreter has it. How long the imports take, and that each program has those that it
needs, is tested with whole processes elsewhere.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import pkgutil
import runpy
import select
import selectors
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import meeseeks.cli

from .processes import NODE_MARK

__all__ = ["Child", "running", "start"]

_IMPORTS = [
    "meeseeks.client.client",
    "meeseeks.node.daemon",
    *(
        f"meeseeks.cli.{module.name}"
        for module in pkgutil.iter_modules(meeseeks.cli.__path__)
        if not module.name.startswith(("__", "demo", "top"))  # these need a terminal, or more time than an import
    ),
]

_REQUEST_MAX = 256 * 1024
_START_S = _END_S = 30.0
_READY = b"ready\n"
_addresses: list[bytes] = []


# --- on the side of the tests


class Child:
    """A process as Popen has them, of which another one is the parent."""

    def __init__(self, connection: socket.socket) -> None:
        """The pid comes from the connection, and later the exit code."""
        connection.settimeout(_START_S)
        self._connection, self._lock = connection, threading.Lock()
        self.pid = int(connection.recv(64))
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code (minus the signal) of one that has ended."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code; subprocess.TimeoutExpired if there is none in time."""
        with self._lock:
            if self.returncode is None:
                poll = select.poll()
                poll.register(self._connection, select.POLLIN)
                if not poll.poll(None if timeout is None else timeout * 1000):
                    raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
                with self._connection:
                    self.returncode = int(self._connection.recv(64))
            return self.returncode

    def kill(self) -> None:
        """SIGKILL, unless it has ended."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


@contextmanager
def running(environment: Mapping[str, str]) -> Iterator[None]:
    """While it runs, `start` forks."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind("")  # the kernel gives it a name that is in no folder
        listener.listen(64)
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.prefork", str(listener.fileno()), *_IMPORTS],
            env={**environment, NODE_MARK: "0" * 32},
            pass_fds=[listener.fileno()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for who has started it
        )
        assert process.stdin is not None
        assert process.stdout is not None
        # Right after its exec its environment can't be read, and with it the mark that it is no leak of a test.
        with process.stdout as said:
            assert said.readline() == _READY
        _addresses.append(listener.getsockname())
    try:
        yield
    finally:
        _addresses.pop()
        process.stdin.close()  # which ends it
        assert process.wait(_END_S) == 0


def start(
    program: str, args: Sequence[str], environment: Mapping[str, str], folder: Path, stdout: int, stderr: int
) -> Child | subprocess.Popen[bytes]:
    """`python -m program args`, with /dev/null for stdin; forked, if that is `running`. Several threads may call it."""
    if not _addresses:
        return subprocess.Popen(
            [sys.executable, "-m", program, *args],
            env=environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
        )
    request = _Request(program, [*args], {**environment}, str(folder))
    data = json.dumps(request._asdict()).encode()
    assert len(data) < _REQUEST_MAX
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * _REQUEST_MAX)
        connection.connect(_addresses[-1])
        socket.send_fds(connection, [data], [stdout, stderr])
        return Child(connection)
    except BaseException:
        connection.close()
        raise


class _Request(NamedTuple):
    program: str
    args: list[str]
    environment: dict[str, str]
    folder: str


# --- on the other side


def _serve(listener: socket.socket) -> _Request | None:
    """Fork for each connection, and tell it the exit code, until stdin ends. In a child: return what it is to be."""
    with listener, selectors.PollSelector() as selector:
        selector.register(0, selectors.EVENT_READ)
        selector.register(listener, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fd == 0:
                    return None
                if key.fileobj is listener:
                    request = _fork(listener, selector)
                    if request is not None:
                        return request
                else:
                    selector.unregister(key.fd)
                    os.close(key.fd)
                    pid, connection = key.data
                    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                    with connection:
                        _tell(connection, code)


def _fork(listener: socket.socket, selector: selectors.BaseSelector) -> _Request | None:
    connection, _ = listener.accept()
    data, fds, _, _ = socket.recv_fds(connection, _REQUEST_MAX, 2)
    pid = os.fork()
    if pid == 0:
        connection.close()
        for key in selector.get_map().values():
            if key.data is not None:
                os.close(key.fd)
                key.data[1].close()
        with Path(os.devnull).open() as null:
            for source, target in zip((null.fileno(), *fds), (0, 1, 2), strict=True):
                os.dup2(source, target)
    for fd in fds:
        os.close(fd)
    if pid == 0:
        return _Request(**json.loads(data))
    _tell(connection, pid)
    selector.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, connection))
    return None


def _tell(connection: socket.socket, number: int) -> None:
    with suppress(BrokenPipeError):  # who has lost his patience says so himself; the other calls go on
        connection.send(str(number).encode())


def _become(program: str, args: list[str], environment: dict[str, str], folder: str) -> None:
    os.chdir(folder)
    _show_mark(environment.get(NODE_MARK, ""))
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [program, *args]
    sys.orig_argv = [sys.executable, "-m", *sys.argv]
    runpy.run_module(program, run_name="__main__", alter_sys=True)


def _show_mark(mark: str) -> None:
    """Others see the environment that a process was started with, in the memory where that still is."""
    getenv = ctypes.CDLL(None).getenv
    getenv.restype = ctypes.c_void_p
    shown = getenv(NODE_MARK.encode())
    if len(mark) == len(ctypes.string_at(shown)):
        ctypes.memmove(shown, mark.encode(), len(mark))


def _main(fd: str, *imports: str) -> None:
    for name in imports:
        import_module(name)
    gc.collect()
    gc.freeze()
    os.write(1, _READY)
    request = _serve(socket.socket(fileno=int(fd)))
    if request is not None:
        _become(**request._asdict())


if __name__ == "__main__":
    _main(*sys.argv[1:])
