"""`python -m meeseeks.cli` is `mks`."""

from __future__ import annotations

from .main import main

__all__: list[str] = []

main()
