"""One order becomes one process: its files, its environment, its session. Nothing here waits for it."""

from __future__ import annotations

import errno
import os
import pwd
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from meeseeks.core.effects import Start

from .brands import branded
from .inputs import PIPED
from .processes import TASK_MARK
from .spool import Spool

__all__ = ["SpawnError", "spawn"]

_OURS = ("stdin", "stdout", "stderr", "pass_fds", "close_fds", "preexec_fn", "start_new_session", "process_group")
"""Popen arguments that a job may not set: the executor ends process trees by session, and owns their files."""

_FS = (sys.getfilesystemencoding(), sys.getfilesystemencodeerrors())
_TASK_MARK = TASK_MARK.encode()
_PLAIN = frozenset(("env", "cwd"))
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)
"""Signals that a process would ignore because we do."""

# O_NONBLOCK: opening a pipe that nobody has at its other end must not stop the whole executor. O_NOCTTY: a terminal
# named as output must not become ours.
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK


_PASSES = frozenset((errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT))
_OUT_OF_FILES = frozenset((errno.EMFILE, errno.ENFILE))


class SpawnError(Exception):
    """There is no process; the text is one sentence that says why, for the job's `error`."""

    def __init__(self, text: str, *, may_pass: bool = False) -> None:
        super().__init__(text)
        self.may_pass = may_pass
        """The machine is short of something (processes, memory, descriptors, disk): the job itself may be all right."""


def spawn(order: Start, mark: str, spool: Spool, open_pipe: Callable[[Start], int] | None = None) -> int:
    """Start the process of an order in a session of its own, and return its pid; or raise SpawnError.

    `config` are Popen's keyword arguments. Streams without a path are captured into the spool; stdin is then empty,
    and so it is where its path is `-`, unless `open_pipe` gives the end of a pipe for it.
    """
    if not order.args:
        raise SpawnError("can't start anything: args is empty")
    for name in _OURS:
        if name in order.config:
            raise SpawnError(f"can't start {_program(order)}: config.{name} is the executor's to set")
    opened: list[int] = []
    try:
        stdin = _open_stdin(order, open_pipe, opened)
        fds = (stdin, *_open_outputs(order, spool, opened))
        env = _environment(order, mark)
        with branded(mark):
            return _posix_spawn(order, env, fds) if _is_plain(order, env) else _popen(order, env, fds)
    except OSError as error:
        raise SpawnError(_reason(order, error), may_pass=error.errno in _PASSES) from error
    # LookupError: no such user. The others: what Popen thinks of its arguments.
    except (LookupError, TypeError, ValueError, OverflowError, subprocess.SubprocessError) as error:
        raise SpawnError(f"can't start {_program(order)}: {error.args[0] if error.args else error}") from error
    finally:
        for fd in opened:
            os.close(fd)


def _is_plain(order: Start, env: dict[bytes, bytes]) -> bool:
    """Whether posix_spawn can do all that is asked for. It is a good deal cheaper than Popen, which can do it all."""
    program = order.args[0]
    finds_it = "/" in program or (program != "" and env.get(b"PATH") == _our_environment().get(b"PATH"))
    comes_back = order.config.get("cwd") is None or _our_folder() is not None
    return finds_it and comes_back and order.config.keys() <= _PLAIN


def _posix_spawn(order: Start, env: dict[bytes, bytes], fds: tuple[int, ...]) -> int:
    cwd = order.config.get("cwd")
    home = None if cwd is None else _our_folder()
    if cwd is not None:
        # There is no other way to say it to posix_spawn. No other thread of this process cares for folders.
        os.chdir(cwd)
    try:
        return os.posix_spawnp(
            order.args[0],
            order.args,
            env,
            file_actions=[(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(fds)],
            setsid=True,
            setsigmask=(),
            setsigdef=_IGNORED_BY_PYTHON,
        )
    finally:
        if home is not None:
            os.fchdir(home)


def _popen(order: Start, env: dict[bytes, bytes], fds: tuple[int, ...]) -> int:
    stdin, stdout, stderr = fds
    process = subprocess.Popen(
        list(order.args),
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
        **{**order.config, "env": env},
    )
    process.returncode = 0  # whatever it will be: who reaps it is not Popen
    return process.pid


@cache
def _our_folder() -> int | None:
    """None if we were started where we may not go: then who leaves can't come back."""
    try:
        return os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None


def _environment(order: Start, mark: str) -> dict[bytes, bytes]:
    """Popen's rule (`env` replaces ours), and then what every job is told. As bytes: ours is encoded only once."""
    replacement = order.config.get("env")
    env = dict(_our_environment() if replacement is None else _encoded(replacement))
    for name, value in order.env.items():
        env[_name(name)] = value.encode(*_FS)
    env[_TASK_MARK] = mark.encode()
    return env


@cache
def _name(name: str) -> bytes:
    """Of the few variables that every task is given."""
    return name.encode(*_FS)


@cache
def _our_environment() -> dict[bytes, bytes]:
    return dict(os.environb)


def _encoded(env: dict[str, str]) -> dict[bytes, bytes]:
    return {os.fsencode(name): os.fsencode(value) for name, value in env.items()}


def _open_stdin(order: Start, open_pipe: Callable[[Start], int] | None, opened: list[int]) -> int:
    if open_pipe is not None:
        fd = open_pipe(order)
        opened.append(fd)
        _give(fd, order.config)
        return fd
    if order.stdin is None or order.stdin == PIPED:
        return _no_input()
    return _open(order, "stdin", order.stdin, _READ, opened)


@cache
def _no_input() -> int:
    """/dev/null, opened once: it has no position that tasks could share."""
    return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)


def _open_outputs(order: Start, spool: Spool, opened: list[int]) -> tuple[int, int]:
    found = []
    for stream, path in (("stdout", order.stdout), ("stderr", order.stderr)):
        if path is not None:
            found.append(_open(order, stream, path, _WRITE, opened))
            continue
        fd = spool.create(order.key, stream)
        _give(fd, order.config)
        found.append(fd)
    stdout, stderr = found
    # One file for both is opened once: two positions in it would overwrite each other.
    is_one = order.stdout is not None and order.stderr is not None and os.path.sameopenfile(stdout, stderr)
    return (stdout, stdout) if is_one else (stdout, stderr)


def _open(order: Start, stream: str, path: str, flags: int, opened: list[int]) -> int:
    """The job's own file: a relative path means what it would mean to the job."""
    full = Path(order.config.get("cwd") or ".", path)
    try:
        fd = os.open(full, flags, 0o666)
    except (OSError, ValueError) as error:
        reason, number = (error.strerror, error.errno) if isinstance(error, OSError) else (error, None)
        may_pass = number in _OUT_OF_FILES  # anything else is about the job's own path
        raise SpawnError(f"can't open {path!r} as {stream}: {reason}", may_pass=may_pass) from error
    opened.append(fd)
    if stat.S_ISDIR(os.fstat(fd).st_mode):
        raise SpawnError(f"can't open {path!r} as {stream}: Is a directory")
    os.set_blocking(fd, True)
    return fd


def _give(fd: int, config: dict[str, Any]) -> None:
    """A job under another user may open its own /dev/stdout again."""
    user = config.get("user")
    if user is not None and os.geteuid() == 0:
        os.fchown(fd, user if isinstance(user, int) else pwd.getpwnam(user).pw_uid, -1)


def _reason(order: Start, error: OSError) -> str:
    where = error.filename
    cwd = order.config.get("cwd")
    if cwd is not None and where == cwd:
        return f"can't start {_program(order)} in {cwd!r}: {error.strerror}"
    if where is None or where == order.args[0]:
        return f"can't start {_program(order)}: {error.strerror}"
    return f"can't start {_program(order)}: {os.fsdecode(where)!r}: {error.strerror}"


def _program(order: Start) -> str:
    program = order.args[0]
    return repr(program if len(program) <= 200 else program[:197] + "...")
