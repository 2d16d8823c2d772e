"""Where a case runs: a folder of its own, nodes with the defaults that users have, and how much is wanted."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import meeseeks
from meeseeks import Client
from tests.support.nodes import NodeProcess, mesh

from .limit import COMMAND
from .sample import Figures

__all__ = ["AS_USERS", "Place", "true_job"]

AS_USERS: dict[str, object] = {"state.timeout": None, "state.lost_after": None, "heartbeat": None}
"""The times of tests/support/nodes.py are for tests: these take the defaults again."""
CALM_S = 60.0
"""The `timeout` of Clients: on a busy machine a case is to be slow, not to fail."""


def true_job(**more: Any) -> dict[str, Any]:
    """The jobspec that is measured: the command of the bare limit, in pool p."""
    return {"pool": "p", "args": [COMMAND], **more}


@dataclass
class Place:
    """What a case is given; it adds what it finds to `figures`."""

    folder: Path
    quick: bool = False
    peer: str = ""
    """Whom the case `peers` measures."""
    jobs: int | None = None
    """How many jobs the cases of growth and backpressure use; None is their own default."""
    figures: Figures = field(default_factory=Figures)

    def many(self, n: int, quick: int) -> int:
        """`n`, or the second number where a quick look is wanted."""
        return quick if self.quick else n

    @contextmanager
    def nodes(self, n: int = 1, **options: Any) -> Iterator[list[NodeProcess]]:
        """`n` nodes as users have them: CURVE, `sync` acks, spooled output; each with two slots in pool p."""
        folder = self.folder / f"mesh{len(list(self.folder.iterdir()))}"
        folder.mkdir()
        with mesh(folder, n, **{**AS_USERS, **options}) as nodes:
            yield nodes

    def push_client(self, node: NodeProcess, **options: Any) -> Client:
        """A Client with a cache that follows the node by push."""
        return node.client(**{"refresh": 1, "timeout": CALM_S, **options})

    def request_client(self, node: NodeProcess, **options: Any) -> Client:
        """A Client that only sends requests."""
        return node.client(**{"timeout": CALM_S, **options})

    def mks(self) -> list[str]:
        """The command `mks` of the revision that is measured: what pip makes of its entry point, with this python."""
        script = self.folder / "mks"
        if not script.exists():
            script.write_text(
                f"#!{sys.executable}\nimport sys\nfrom meeseeks.cli.main import main\n"
                "if __name__ == '__main__':\n    sys.exit(main())\n"
            )
            script.chmod(0o755)
        return [str(script)]

    def environment(self, node: NodeProcess | None = None) -> dict[str, str]:
        """The environment of a command that is measured: this one's, the revision's package, and the node to ask."""
        root = str(Path(meeseeks.__file__).parent.parent)
        # Python finds compiled modules, as after an installation; a checkout may be set not to keep any.
        found = {**os.environ, "PYTHONPATH": root, "PYTHONPYCACHEPREFIX": str(self.folder / "compiled")}
        found.pop("PYTHONDONTWRITEBYTECODE", None)
        return {**found, "MEESEEKS_CONF": f"address={node.address} port={node.port}"} if node else found
