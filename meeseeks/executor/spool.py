"""Captured output on disk: written by the tasks themselves, read by the executor and by its node.

Two files a task. All names follow from the task's key, so that whoever knows the key finds the files without asking the
process that made them. They are spread over 256 folders by the hash of the job's id: a folder a job would be simpler to
forget, but making and removing one takes longer than all else that the executor does for a short task.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import resource
import stat
import zlib
from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from urllib.parse import quote

from meeseeks.core.effects import TaskKey

__all__ = ["STREAMS", "Spool"]

STREAMS = ("stdout", "stderr")

_NAME_MAX = 90  # of a part of a file name: two parts and three numbers stay below the 255 bytes of a file system
_SHARDS = 256
_SPARE_MAX = 64
_OPEN_MAX = 128
_ENDINGS = {"stdout": ".out", "stderr": ".err"}
# O_APPEND: a job that opens /dev/stdout once more must not write over what it has written already.
_CAPTURE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW

log = logging.getLogger(__name__)


class Spool:
    """The spool of one node: a folder that only its user may enter. It is made when it is first written to.

    Jobs run as that user, and may do anything to it: what can't be read raises OSError, what can't be deleted is logged
    and stays.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._root = os.fspath(folder)
        self._spare: dict[str, None] = {}
        """Files that nobody needs any more: to rename one costs a third of deleting it and making another."""
        self._open_max = min(_OPEN_MAX, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)
        self._open: dict[str, int] = {}
        """Descriptors of the files made last: what is open need not be looked up by its name."""

    def prepare(self) -> None:
        """Make the folders now, some 15 ms for all, so that no task waits for its own. A full disk may prevent it."""
        with suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for number in range(_SHARDS):
                Path(self._root, f"{number:02x}").mkdir(exist_ok=True, mode=0o700)

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
        path = self._path(key, stream)
        fd = self._open.get(path)
        if fd is not None:
            return os.fstat(fd).st_size
        try:
            return os.stat(path).st_size  # noqa: PTH116 - twice an exit: a Path costs more than the call
        except FileNotFoundError:
            return 0

    def has(self, key: TaskKey, stream: str) -> bool:
        """Whether the stream was captured; True as well where that can't be seen."""
        try:
            Path(self._path(key, stream)).stat()
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return True

    def create(self, key: TaskKey, stream: str) -> int:
        """A file descriptor to capture into, which stays the spool's own. OSError where the disk won't have it."""
        path = self._path(key, stream)
        self._close(path)
        if path in self._spare:  # an id that was forgotten, and is used again
            del self._spare[path]
            _delete(path)
        fd = self._reuse(self._spare.popitem()[0], path) if self._spare else None
        if fd is None:
            try:
                fd = os.open(path, _CAPTURE, 0o600)
            except FileNotFoundError:
                self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                Path(path).parent.mkdir(exist_ok=True, mode=0o700)
                fd = os.open(path, _CAPTURE, 0o600)
        if len(self._open) >= self._open_max:
            self._close(next(iter(self._open)))
        self._open[path] = fd
        return fd

    def _reuse(self, spare: str, path: str) -> int | None:
        """A spare file under another name, emptied; None where it can't be had, or is not as we made it.

        It is opened anew: its last job may have moved the position in it, or set flags.
        """
        try:
            os.rename(spare, path)  # noqa: PTH104 - twice a start: a Path costs more than the call
            fd = os.open(path, _CAPTURE, 0o600)
        except OSError:  # it was deleted meanwhile, or its new folder is missing
            _delete(spare)
            return None
        found = os.fstat(fd)
        as_made = (found.st_uid, stat.S_IMODE(found.st_mode), found.st_nlink) == (os.geteuid(), 0o600, 1)
        if as_made and _is_open_nowhere_else(fd):
            return fd
        os.close(fd)  # its job ran as another user, or played with it, or something of it still writes
        _delete(path)
        return None

    def keep(self, key: TaskKey) -> None:
        """What one task wrote is not ours to give up, but its node's: who has it open keeps its room on the disk."""
        for stream in STREAMS:
            self._close(self._path(key, stream))

    def discard(self, key: TaskKey) -> None:
        """Give up what one task wrote, of which nothing lives."""
        for stream in STREAMS:
            path = self._path(key, stream)
            self._close(path)
            if len(self._spare) < _SPARE_MAX:
                self._spare[path] = None
            else:
                _delete(path)

    def _close(self, path: str) -> None:
        fd = self._open.pop(path, None)
        if fd is not None:
            with suppress(OSError):  # of a disk that tells only now what it could not write: that was the job's
                os.close(fd)

    def clear(self) -> None:
        """Delete the spare files."""
        for path in self._spare:
            _delete(path)
        self._spare.clear()

    def discard_earlier(self, key: TaskKey) -> None:
        """Delete what earlier tasks of this job wrote: only the last run's output is kept."""
        if (key.generation, key.epoch[0], key.run) != (1, 1, 1):
            self._discard_job(key.job, but=os.path.basename(_stem(key)) + ".")  # noqa: PTH119 - it is no path to walk

    def forget(self, job: str) -> None:
        """Delete all that is left of a job."""
        self._discard_job(job)

    def prune(self, jobs: Iterable[str]) -> None:
        """Delete what belongs to none of these jobs: for a node that starts, and may have died before `forget`."""
        keep = {_name(job) for job in jobs}
        for shard in (self.folder / name for name in _names(self.folder)):
            for name in _names(shard):
                if name.partition("~")[0] not in keep:
                    _delete(f"{shard}/{name}")

    def _discard_job(self, job: str, but: str | None = None) -> None:
        folder = Path(self._root, _shard(job))
        prefix = _name(job) + "~"
        for name in _names(folder):
            if name.startswith(prefix) and (but is None or not name.startswith(but)):
                self._close(f"{folder}/{name}")
                _delete(f"{folder}/{name}")

    def _path(self, key: TaskKey, stream: str) -> str:
        return f"{self._root}/{_stem(key)}{_ENDINGS[stream]}"


@lru_cache(maxsize=1024)  # it is wanted a dozen times a task
def _stem(key: TaskKey) -> str:
    """The path of a task's files inside the spool, less the ending; it has a tilde before its last part, and no dot."""
    count, node = key.epoch
    return f"{_shard(key.job)}/{_name(key.job)}~{key.generation}-{count}-{key.run}-{_cached_name(node)}"


def _names(folder: Path) -> list[str]:
    """What is in a folder; nothing where there is none, or where it can't be read."""
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []
    except OSError as error:
        log.warning("what is in %s can't be deleted: %s", folder, error.strerror)
        return []


def _delete(path: str) -> None:
    try:
        os.unlink(path)  # noqa: PTH108 - twice an exit: a Path costs more than the call
    except FileNotFoundError:
        return  # this stream went elsewhere
    except OSError as error:
        log.warning("%s can't be deleted: %s", path, error.strerror)


def _is_open_nowhere_else(fd: int) -> bool:
    """Only then the kernel grants a lease (some 1 us); False as well where the file system knows of none.

    Who opens it in that moment waits until it is given back, and we are sent a SIGIO: the loop has a handler for it.
    """
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError:
        return False
    return True


def _shard(job: str) -> str:
    return f"{zlib.crc32(job.encode(errors='surrogatepass')) % _SHARDS:02x}"


def _name(text: str) -> str:
    """A file name for any text: readable where that is possible, never two texts with one name."""
    name = quote(text, safe="", errors="surrogatepass").replace(".", "%2E").replace("~", "%7E")
    if len(name) > _NAME_MAX:
        # No quoted text has a plus in it, so no other id can have this name.
        return "+" + hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
    return name


_cached_name = lru_cache(maxsize=128)(_name)
"""For nodes: there are few of them."""
