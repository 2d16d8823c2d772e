"""Hundreds of calls of `mks`, without its imports for each: a process that has them already forks for each call.

A call is a process like that of a shell all the same: with its own arguments, environment, folder, pipes and exit code.
How long the imports take, and that each command has those that it needs, is tested with whole processes elsewhere.
"""

from __future__ import annotations

import json
import os
import pkgutil
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import IO, NoReturn

__all__ = ["run", "running"]

_REQUEST_MAX = 256 * 1024
_END_S = 30.0
_READY = b"ready\n"
_addresses: list[bytes] = []


# --- on the side of the tests


@contextmanager
def running(environment: Mapping[str, str]) -> Iterator[None]:
    """While it runs, `run` can be called, also by several threads."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind("")  # the kernel gives it a name that is in no folder
        listener.listen(64)
        command = [sys.executable, "-m", "tests.cli.prefork", str(listener.fileno())]
        process = subprocess.Popen(
            command,
            env=environment,
            pass_fds=[listener.fileno()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
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


def run(args: Sequence[str], environment: Mapping[str, str], folder: Path, timeout: float) -> tuple[int, str, str]:
    """Call `mks` to its end: exit code (minus the signal), stdout, stderr. TimeoutError, and it is killed."""
    if not _addresses:
        return _run_whole(args, environment, folder, timeout)
    request = json.dumps({"args": [*args], "environment": dict(environment), "folder": str(folder)}).encode()
    assert len(request) < _REQUEST_MAX
    with (
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection,
    ):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * _REQUEST_MAX)
        connection.connect(_addresses[-1])
        connection.settimeout(timeout)
        socket.send_fds(connection, [request], [out.fileno(), err.fileno()])
        pid = int(connection.recv(64))
        try:
            code = int(connection.recv(64))
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)
            raise
        return code, _all_of(out), _all_of(err)


def _run_whole(
    args: Sequence[str], environment: Mapping[str, str], folder: Path, timeout: float
) -> tuple[int, str, str]:
    """Where a few calls are not worth a process that waits for them."""
    command = [sys.executable, "-m", "meeseeks.cli", *args]
    done = subprocess.run(
        command,
        env=environment,
        cwd=folder,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def _all_of(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()


# --- on the other side


def _serve(listener: socket.socket) -> None:
    """Fork for each connection, and tell it the exit code, until stdin ends."""
    with selectors.DefaultSelector() as selector:
        selector.register(0, selectors.EVENT_READ)
        selector.register(listener, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fd == 0:
                    return
                if key.fileobj is listener:
                    connection, _ = listener.accept()
                    pid = _fork(connection)
                    _tell(connection, pid)
                    selector.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, connection))
                else:
                    selector.unregister(key.fd)
                    os.close(key.fd)
                    pid, connection = key.data
                    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                    with connection:
                        _tell(connection, code)


def _tell(connection: socket.socket, number: int) -> None:
    with suppress(BrokenPipeError):  # who has lost his patience says so himself; the other calls go on
        connection.send(str(number).encode())


def _fork(connection: socket.socket) -> int:
    data, fds, _, _ = socket.recv_fds(connection, _REQUEST_MAX, 2)
    pid = os.fork()
    if pid == 0:
        request = json.loads(data)
        with Path(os.devnull).open() as null:
            for source, target in zip((null.fileno(), *fds), (0, 1, 2), strict=True):
                os.dup2(source, target)
        os.closerange(3, max(fds) + 64)
        _become_mks(**request)
    for fd in fds:
        os.close(fd)
    return pid


def _become_mks(args: list[str], environment: dict[str, str], folder: str) -> NoReturn:
    code = 1
    try:
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = ["mks", *args]
        runpy.run_module("meeseeks.cli", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:  # noqa: BLE001 - as the interpreter does it
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def _main() -> None:
    import_module("meeseeks.client.client")
    for module in pkgutil.iter_modules(import_module("meeseeks.cli").__path__):
        if not module.name.startswith(("__", "demo", "top")):  # these need a terminal, or more time than an import
            import_module(f"meeseeks.cli.{module.name}")
    os.write(1, _READY)
    with socket.socket(fileno=int(sys.argv[1])) as listener:
        _serve(listener)


if __name__ == "__main__":
    _main()
