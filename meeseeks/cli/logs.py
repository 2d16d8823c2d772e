"""`mks logs`: what a job has written, wherever in the mesh that is, and what it writes from now on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from meeseeks.errors import InvalidRequest, NodeUnreachable, RequestFailed, RequestTimeout

from .exits import FAILED, OK, UNREACHABLE
from .invocation import Invocation, client_options
from .output import warn
from .pick import infos_of, warn_missing
from .words import selection

if TYPE_CHECKING:
    from meeseeks import Client

__all__ = ["logs_command"]

_PIECE = 1024 * 1024
_BACK = 64 * 1024
_DEFAULT_TIMEOUT_S = 10.0


@click.command("logs")
@click.argument("words", metavar="JID...|FILTER...", nargs=-1, required=True)
@click.option("-f", "--follow", is_flag=True, help="Of one job: go on until it has ended, through all its reruns.")
@click.option("--stdout", "only_stdout", is_flag=True, help="Only what it writes to stdout.")
@click.option("--stderr", "only_stderr", is_flag=True, help="Only what it writes to stderr.")
@click.option("-n", "--tail", type=click.IntRange(min=0), metavar="N", help="Begin with the last N lines of each.")
@client_options
@click.pass_obj
def logs_command(
    call: Invocation,
    /,
    words: tuple[str, ...],
    follow: bool,
    only_stdout: bool,
    only_stderr: bool,
    tail: int | None,
) -> int:
    """Show what jobs have written: stdout to stdout and stderr to stderr, byte for byte, of any size.

    \b
      mks logs fetch
      mks logs -f --tail 10 fetch
      mks logs --stderr state=failed tag=nightly

    Of a job that was started again there is the output of its last run. With -f there is only one job, and a node that
    is started again is waited for (--timeout; default 30 seconds). Exit code 1 if a job is not there, 3 if the node
    that has the output is out of reach.
    """  # noqa: D301 - click looks for the character itself
    streams = _streams(stdout=only_stdout, stderr=only_stderr)
    chosen = selection(words)
    with call.client() as client:
        found = infos_of(client, chosen)
        if follow and len(found) > 1:
            raise InvalidRequest(
                f"-f follows one job, and {chosen} are {len(found)}: without it, all are shown as they are"
            )
        code = FAILED if warn_missing(client, chosen, found) else OK
        for info in found.values():
            _say_where(info, streams)
            code = max(
                code, _follow(call, client, info, streams, tail) if follow else _copy(client, info, streams, tail)
            )
    return code


def _streams(*, stdout: bool, stderr: bool) -> tuple[str, ...]:
    chosen = (*(["stdout"] if stdout else []), *(["stderr"] if stderr else []))
    return chosen or ("stdout", "stderr")


def _say_where(info: Mapping[str, Any], streams: tuple[str, ...]) -> None:
    for stream in streams:
        if info[stream] is not None:
            where = f" on node {info['node']!r}" if info["node"] else ""
            warn(f"the {stream} of job {info['id']} goes to the file {info[stream]!r}{where}")


def _copy(client: Client, info: Mapping[str, Any], streams: tuple[str, ...], tail: int | None) -> int:
    """Show what there is by now."""
    from .follow import STREAMS, write

    for stream in streams:
        if info[stream] is not None:
            continue
        try:
            source = _Source(client, info["id"], stream)
            for data in source.pieces(0 if tail is None else source.start_of_tail(tail)):
                write(STREAMS[stream], data)
        except RequestFailed as error:
            warn(f"the {stream} of job {info['id']} is out of reach: {error}; try again once that node is back")
            return UNREACHABLE
    return OK


def _follow(
    call: Invocation, client: Client, info: Mapping[str, Any], streams: tuple[str, ...], tail: int | None
) -> int:
    from .follow import PATIENCE_S, Follower, Incomplete

    jid = info["id"]
    follower = Follower(client, jid, streams, call.timeout or _DEFAULT_TIMEOUT_S, call.timeout or PATIENCE_S)
    try:
        if tail is not None:
            for stream in streams:
                source = _Source(client, jid, stream)
                start = source.start_of_tail(tail)
                if follower.run in (None, source.run):
                    follower.run, follower.offsets[stream] = source.run, start
        last = follower.follow()
    except Incomplete as error:
        warn(str(error))
        return UNREACHABLE
    except (NodeUnreachable, RequestTimeout, RequestFailed) as error:
        warn(f"{error}; 'mks logs -f {jid}' goes on once it is back, or --address names another node")
        return UNREACHABLE
    if last is None:
        warn(f"job {jid} is known no more: its node has forgotten it")
        return FAILED
    return OK


class _Source:
    """One stream of one job, as the `output` request has it. Holds one piece at a time."""

    def __init__(self, client: Client, jid: str, stream: str) -> None:
        self._client = client
        self._wanted = {"id": jid, "stream": stream}
        first = self._read(0, 1)
        self.run: Any = first.get("run")
        self.size: int = first["size"]

    def pieces(self, start: int) -> Iterator[bytes]:
        """From `start` on, to the end that there is now; of a job that is started again meanwhile, no more."""
        while start < self.size:
            piece = self._read(start, min(_PIECE, self.size - start))
            data: bytes = piece["data"]
            if piece.get("run") != self.run or not data:
                return
            yield data
            start += len(data)

    def start_of_tail(self, lines: int) -> int:
        """Where the last `lines` lines begin: found from the end, without reading what is before them."""
        if not lines:
            return self.size
        end, wanted = self.size, lines
        while end > 0:
            start = max(0, end - _BACK)
            data: bytes = self._read(start, end - start)["data"]
            if end == self.size and data.endswith(b"\n"):
                data = data[:-1]  # it ends the last line, and begins none
            found = data.count(b"\n")
            if found >= wanted:
                at = len(data)
                for _ in range(wanted):
                    at = data.rindex(b"\n", 0, at)
                return start + at + 1
            wanted -= found
            end = start
        return 0

    def _read(self, offset: int, limit: int) -> dict[str, Any]:
        wanted = {**self._wanted, "offset": offset, "limit": limit}
        answer: dict[str, Any] = self._client.request({"output": wanted})["output"]
        return answer
