"""`mks`: the commands, a file each, and what they share."""

from __future__ import annotations

import gc

__all__ = ["COLLECT_AFTER"]

COLLECT_AFTER = gc.get_threshold()
"""How often Python looks for cycles by default, for a command that lives long (`gc.set_threshold(*COLLECT_AFTER)`)."""

# The default is after every 700 new objects, and here they are modules: a quarter of the time of `mks ls`.
gc.set_threshold(50_000)
