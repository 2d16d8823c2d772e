"""The command that starts another program of this package.

`python -m` looks for every module in the working folder first: a `logging.py` there would break the program, and in a
folder where others may write anybody's code would run as our user.
"""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["program"]

_ROOT = str(Path(__file__).absolute().parents[2])
_CODE = """\
import runpy, sys
sys.path.insert(0, {root!r})
import meeseeks
sys.path.append(sys.path.pop(0))
runpy.run_module({module!r}, run_name="__main__", alter_sys=True)
"""
"""The package is the one that runs here, wherever that came from: a checkout need not be installed, and may be beside
an installed one. For all other modules its folder is the last to be looked into."""


def program(module: str) -> list[str]:
    """The beginning of a command line that runs `module` with the arguments that follow."""
    return [sys.executable, "-P", "-c", _CODE.format(root=_ROOT, module=module)]
