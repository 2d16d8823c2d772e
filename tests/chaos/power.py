"""Power cuts, as far as the store goes: what SQLite has not forced to the disk is gone afterwards.

A small library is preloaded into a node: whenever the node forces a file of its store to the disk, it keeps a copy of
that file as it is then. After a power cut those copies take the place of the files: the worst that a disk may do that
keeps its word. Blocks that reach it in another order or torn, and other files, are not in this; SQLite has checksums.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

__all__ = ["Power", "build"]

_COPY = ".on-disk"

_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int keep(int fd)
{
    char link[64], path[PATH_MAX + 1], copy[PATH_MAX + 32], partial[PATH_MAX + 32], buffer[65536];
    ssize_t size;
    off_t at = 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    size = readlink(link, path, PATH_MAX);
    if (size < 0) return 0;
    path[size] = 0;
    const char *name = strrchr(path, '/');
    if (!name || (strcmp(name, "/jobs.sqlite") && strcmp(name, "/jobs.sqlite-wal"))) return 0;
    snprintf(copy, sizeof copy, "%s.on-disk", path);
    snprintf(partial, sizeof partial, "%s.on-disk.new", path);
    int to = open(partial, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (to < 0) return -1;
    while ((size = pread(fd, buffer, sizeof buffer, at)) > 0) {
        if (write(to, buffer, size) != size) { close(to); return -1; }
        at += size;
    }
    close(to);
    return size < 0 ? -1 : rename(partial, copy);
}

int fsync(int fd) { return keep(fd); }
int fdatasync(int fd) { return keep(fd); }
"""


def build(folder: Path) -> Path | None:
    """The library, or None where it can't be built."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    library = folder / "power.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-w", "-x", "c", "-", "-o", str(library)]
    built = subprocess.run(command, input=_SOURCE.encode(), capture_output=True, check=False)
    return library if built.returncode == 0 else None


class Power:
    """The power of the machine that has a node's state folder."""

    def __init__(self, library: Path, state: Path) -> None:
        self.environment = {"LD_PRELOAD": str(library)}
        self._state = state

    def cut(self) -> None:
        """Its processes are dead by now; let its store be what was forced to the disk, and nothing else."""
        for name in ("jobs.sqlite", "jobs.sqlite-wal"):
            (self._state / name).unlink(missing_ok=True)
            if (self._state / (name + _COPY)).exists():
                shutil.copy(self._state / (name + _COPY), self._state / name)
