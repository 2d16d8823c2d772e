"""Python loads this at its start where its folder is in PYTHONPATH: the case `timeline` starts its node so."""

from __future__ import annotations

import os

if os.environ.get("MEESEEKS_STEPS"):
    import meeseeks_steps

    meeseeks_steps.install_when_loaded()
