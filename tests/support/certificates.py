"""Real certificates, made by openssl through tools/make-ca."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import meeseeks

__all__ = ["MAKE_CA", "Authority"]

MAKE_CA = Path(meeseeks.__file__).parent.parent / "tools" / "make-ca"


class Authority:
    """A certificate authority in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._make()
        self.cafile = str(folder / "ca.pem")

    def issue(self, name: str, *hosts: str, days: int = 2, password: str = "") -> dict[str, Any]:
        """`cert` and `key` (and `pass`) of a new certificate."""
        self._make(name, *hosts, DAYS=str(days), PASS=password)
        found = {"cert": str(self.folder / f"{name}.pem"), "key": str(self.folder / f"{name}.key")}
        return {**found, "pass": password} if password else found

    def capath(self, folder: Path) -> str:
        """A folder that OpenSSL finds this authority in."""
        folder.mkdir()
        shutil.copy(self.cafile, folder / "ca.pem")
        subprocess.run(["openssl", "rehash", str(folder)], check=True)
        return str(folder)

    def _make(self, *args: str, **env: str) -> None:
        subprocess.run(
            [str(MAKE_CA), str(self.folder), *args], check=True, env={**os.environ, **env}, stdout=subprocess.DEVNULL
        )
