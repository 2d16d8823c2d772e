"""A small disk that can be filled up: a tmpfs, where this process may mount one."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

__all__ = ["Disk"]

_MEBIBYTE = b"\0" * (1 << 20)


class Disk:
    """A file system of `mebibytes` at a folder."""

    def __init__(self, folder: Path, mebibytes: int) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"
        folder.mkdir(parents=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m,mode=0700", "meeseeks-chaos", str(folder)]
        subprocess.run(command, check=True, capture_output=True)

    @classmethod
    def mounted(cls, folder: Path, mebibytes: int) -> Disk | None:
        """Such a disk, or None where it can't be had."""
        if os.geteuid() != 0:
            return None
        try:
            return cls(folder, mebibytes)
        except (OSError, subprocess.CalledProcessError):
            return None

    def fill(self) -> None:
        """Leave no room."""
        fd = os.open(self._ballast, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        size = len(_MEBIBYTE)
        while size:
            try:
                written = os.write(fd, _MEBIBYTE[:size])
            except OSError:
                written = 0
            size = size if written else size // 2
        os.close(fd)

    def free(self) -> None:
        """Make room again."""
        self._ballast.unlink(missing_ok=True)

    def unmount(self) -> None:
        """Give it back, with all that is on it."""
        with contextlib.suppress(OSError):
            subprocess.run(["umount", "--lazy", str(self.folder)], check=False, capture_output=True)
