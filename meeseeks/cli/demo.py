"""`mks demo`: three nodes, real jobs, one node taken down on the way, results checked, nothing left behind."""

from __future__ import annotations

import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from .demo_jobs import POOL, TAG, Work, make_work, problem_with
from .demo_view import Scene, View, choose_view
from .exits import FAILED, OK
from .invocation import Invocation, debug_option
from .local_mesh import LocalMesh
from .output import warn

if TYPE_CHECKING:
    from meeseeks import Client

__all__ = ["demo_command"]

_NODES = ("ada", "bob", "cyd")
_LEAVES = "cyd"
_SETTINGS = (
    f"pools.{POOL}.slots=2",
    f"pools.{POOL}.grace=1",
    "heartbeat=0.2",
    "state.sync=memory",
    "state.timeout=3",
    "state.lost_after=6",
)
_WITHIN_S = 25.0
_FRAME_S = 0.08
_NAMED_PROBLEMS = 5


@click.command("demo")
@debug_option
@click.pass_obj
def demo_command(_call: Invocation) -> int:
    """Show a mesh of three nodes on this machine: it runs real jobs, loses a node on the way, and loses no job.

    Each job compresses a file of this package in a process of its own; the demo checks every result itself. It uses
    free ports of the loopback interface and a temporary folder, and leaves nothing behind. Takes a few seconds.
    """
    begun_at = time.monotonic()
    with (
        _stoppable(),
        tempfile.TemporaryDirectory(prefix="meeseeks-demo-") as name,
        LocalMesh(_prepared(name), _NODES, _SETTINGS) as mesh,
        choose_view() as view,
    ):
        view.say(f"started nodes {', '.join(f'{node.name} on {node.address}' for node in mesh.nodes)}")
        mesh.wait_linked()
        work = make_work(Path(name, "work"))
        with mesh.client() as client:
            infos = _perform(mesh, client, work, view)
        problems = [problem for one in work if (problem := problem_with(one, infos.get(one.jid)))]
        checked = len(work) - len(problems)
        view.finish(
            infos, _LEAVES, f"{checked} of {len(work)} results are right, after {time.monotonic() - begun_at:.1f} s"
        )
    for problem in problems[:_NAMED_PROBLEMS]:
        warn(problem)
    return FAILED if problems else OK


def _prepared(name: str) -> Path:
    Path(name, "work").mkdir()
    return Path(name)


def _perform(mesh: LocalMesh, client: Client, work: list[Work], view: View) -> dict[str, dict[str, Any]]:
    """Submit, watch, take a node down when a third has ended; the jobinfos when all have, or time is over."""
    from meeseeks.client.arguments import is_exited

    client.submit_many(one.jobspec() for one in work)
    view.say(f"submitted {len(work)} jobs to node {mesh.nodes[0].name}: any node with room takes them")
    leaver = next(node for node in mesh.nodes if node.name == _LEAVES)
    deadline, asked = time.monotonic() + _WITHIN_S, False
    while True:
        infos: dict[str, dict[str, Any]] = client.query(tag=TAG)
        ended = sum(map(is_exited, infos.values()))
        if not asked and ended >= len(work) / 3:
            leaver.ask_to_stop()
            asked = True
            view.say(f"took node {_LEAVES} down; its jobs go to the others")
        view.show(Scene(client.nodes(), infos, ended, len(work)))
        if ended == len(work) or time.monotonic() > deadline:
            return infos
        time.sleep(_FRAME_S)


@contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM and SIGHUP end the demo as Ctrl-C does: in order."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
