"""Captured output on disk: written by the tasks themselves, read by the executor and by its node.

One folder a job, in it two files a task. All names follow from the task's key, so that whoever knows the key finds the
files without asking the process that made them.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

from meeseeks.core.effects import TaskKey

__all__ = ["STREAMS", "Spool"]

STREAMS = ("stdout", "stderr")

_NAME_MAX = 120  # of a part of a file name: two parts and numbers stay below the 255 bytes of a file system
_ENDINGS = {"stdout": ".out", "stderr": ".err"}
# O_APPEND: a job that opens /dev/stdout once more must not write over what it has written already.
_CAPTURE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW


class Spool:
    """The spool of one node: a folder that only its user may enter. It is made when it is first written to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._root = os.fspath(folder)

    def paths(self, key: TaskKey) -> tuple[Path, Path]:
        """Where the task's stdout and stderr are captured."""
        return Path(self._path(key, "stdout")), Path(self._path(key, "stderr"))

    def read(self, key: TaskKey, stream: str, offset: int = 0, limit: int = -1) -> tuple[bytes, int]:
        """At most `limit` bytes (below 0: all) from `offset` on, and the size by now; empty where there is no file."""
        try:
            fd = os.open(self._path(key, stream), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return b"", 0
        with os.fdopen(fd, "rb", buffering=0) as file:
            size = os.fstat(fd).st_size
            wanted = max(0, size - offset)
            if limit >= 0:
                wanted = min(wanted, limit)
            return os.pread(file.fileno(), wanted, offset) if wanted else b"", size

    def size(self, key: TaskKey, stream: str) -> int:
        """How many bytes were captured by now."""
        try:
            return os.stat(self._path(key, stream)).st_size  # noqa: PTH116 - twice an exit: a Path costs more than the call
        except FileNotFoundError:
            return 0

    def create(self, key: TaskKey, stream: str) -> int:
        """A file descriptor to capture into. OSError where the disk won't have it."""
        path = self._path(key, stream)
        try:
            return os.open(path, _CAPTURE, 0o600)
        except FileNotFoundError:
            self._make_folder(self._job_folder(key.job))
            return os.open(path, _CAPTURE, 0o600)

    def discard(self, key: TaskKey) -> None:
        """Delete what one task wrote."""
        for stream in STREAMS:
            try:
                os.unlink(self._path(key, stream))  # noqa: PTH108 - twice an exit: a Path costs more than the call
            except FileNotFoundError:
                continue  # this stream went elsewhere
        self._remove_if_empty(self._job_folder(key.job))

    def discard_others(self, key: TaskKey) -> None:
        """Delete what earlier tasks of this job wrote: only the last run's output is kept."""
        folder, mine = self._job_folder(key.job), self._task_name(key)
        try:
            names = os.listdir(folder)
        except FileNotFoundError:
            return
        for name in names:
            if not name.startswith(mine + "."):
                Path(folder, name).unlink(missing_ok=True)

    def forget(self, job: str) -> None:
        """Delete all that is left of a job."""
        shutil.rmtree(self._job_folder(job), ignore_errors=True)

    def prune(self, jobs: Iterable[str]) -> None:
        """Delete what belongs to none of these jobs: for a node that starts, and may have died before `forget`."""
        keep = {os.path.basename(self._job_folder(job)) for job in jobs}  # noqa: PTH119
        for name in os.listdir(self._root) if self.folder.is_dir() else ():
            if name not in keep:
                shutil.rmtree(self.folder / name, ignore_errors=True)

    def _make_folder(self, folder: str) -> None:
        try:
            os.mkdir(folder, 0o700)  # noqa: PTH102 - once a job
        except FileExistsError:
            return
        except FileNotFoundError:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.makedirs(folder, 0o700, exist_ok=True)  # noqa: PTH103

    @staticmethod
    def _remove_if_empty(folder: str) -> None:
        try:
            os.rmdir(folder)  # noqa: PTH106 - once an exit
        except OSError:
            return  # output of another run is kept in it, or `forget` was here first

    def _job_folder(self, job: str) -> str:
        return f"{self._root}/{_name(job)}"

    def _path(self, key: TaskKey, stream: str) -> str:
        return f"{self._root}/{_name(key.job)}/{self._task_name(key)}{_ENDINGS[stream]}"

    @staticmethod
    def _task_name(key: TaskKey) -> str:
        count, node = key.epoch
        # No dot but the one of the ending.
        return f"{key.generation}-{count}-{key.run}-{_name(node).replace('.', '%2E')}"


def _name(text: str) -> str:
    """A file name for any text: readable where that is possible, never two texts with one name."""
    name = quote(text, safe="", errors="surrogatepass")
    if len(name) > _NAME_MAX:
        # No quoted text has a plus in it, so no other id can have this name.
        return "+" + hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
    return name.replace(".", "%2E", 1) if name.startswith(".") else name or "+"
