"""A wall clock of its own for each node, that can jump: a small library that is preloaded, built by the C compiler.

The clock that goes on while a machine sleeps can jump as well: to all that waits, that is what a suspend looks like.

The machine's clock stays as it is: others use it. Where no compiler is, there are no clock jumps, and it is said.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path

__all__ = ["Clock", "build"]

_VARIABLE = "MEESEEKS_CHAOS_CLOCK"

_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>

static const volatile long long *ahead_s;  /* of the wall clock, and of CLOCK_BOOTTIME; in a file: the node's own */
static int (*real)(clockid_t, struct timespec *);

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("MEESEEKS_CHAOS_CLOCK");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    real = dlsym(RTLD_NEXT, "clock_gettime");
    if (fd >= 0) {
        void *at = mmap(NULL, 2 * sizeof *ahead_s, PROT_READ, MAP_SHARED, fd, 0);
        ahead_s = at == MAP_FAILED ? NULL : at;
    }
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int result = real(clock, now);
    if (ahead_s && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += ahead_s[0];
    if (ahead_s && clock == CLOCK_BOOTTIME)
        now->tv_sec += ahead_s[1];
    return result;
}

time_t time(time_t *to)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (to) *to = now.tv_sec;
    return now.tv_sec;
}

int gettimeofday(struct timeval *now, void *zone)
{
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return 0;
}
"""


def build(folder: Path) -> Path | None:
    """The library, or None where it can't be built."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    library = folder / "clock.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-w", "-x", "c", "-", "-o", str(library), "-ldl"]
    built = subprocess.run(command, input=_SOURCE.encode(), capture_output=True, check=False)
    return library if built.returncode == 0 else None


class Clock:
    """The clocks of one node."""

    def __init__(self, library: Path, path: Path) -> None:
        self._path = path
        path.write_bytes(struct.pack("=qq", 0, 0))
        self.environment = {"LD_PRELOAD": str(library), _VARIABLE: str(path)}

    def set(self, ahead_s: int) -> None:
        """From now on its wall clock is so far ahead of the true time; behind it, if negative."""
        self._write(ahead_s, 0)

    def sleep(self, seconds: int) -> None:
        """Its machine was suspended for so long, in all."""
        self._write(seconds, 8)

    def _write(self, seconds: int, at: int) -> None:
        fd = os.open(self._path, os.O_WRONLY)
        os.pwrite(fd, struct.pack("=q", seconds), at)
        os.close(fd)
