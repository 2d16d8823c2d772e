"""What may come next on a command line: commands and options, and jobs, pools, nodes and tags of the live mesh.

The metavar of a parameter, which its help shows to people, says what it takes: JID, FILTER, POOL, NODE, TAG, FILE, …
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from meeseeks.errors import MeeseeksError

from .invocation import Invocation
from .jobspec import JobCommand

if TYPE_CHECKING:
    from meeseeks import Client

__all__ = ["Candidate", "candidates"]

_WITHIN_S = 0.15
"""A person waits: a node that does not answer at once is not asked again. MEESEEKS_COMPLETE_WITHIN is used instead."""
_SHOWN = 200
"""Jobs that are offered, or whose tags are: more are of no use to anybody."""
_STATES = ("new", "running", "done", "failed", "killed")
_FILTER_KEYS = ("state", "tag", "pool", "node", "id", "submit_node", "active", "rc", "error", "hold", "retries")
_CHANGES: tuple[str, ...] = ("hold", "state", "node", "pool", "tags", "retries", "runtime", "restart", "resubmit")
_CHANGES += ("args", "stdin", "stdout", "stderr", "config")
_FLAGS = ("true", "false")


class Candidate(NamedTuple):
    """A word that may come next; or, without a value, `file`, `dir` or `command`, which the shell knows best."""

    kind: str
    value: str = ""
    help: str = ""


def candidates(words: Sequence[str], current: str) -> list[Candidate]:
    """What may stand in place of `current`, after these words. Where no node answers, what is known without one."""
    line = _Line(words)
    found = list(_next(line, current))
    if line.mesh is not None:
        line.mesh.close()
    return [one for one in found if one.value.startswith(current) or not one.value]


class _Line:
    """What the words before the cursor are."""

    def __init__(self, words: Sequence[str]) -> None:
        from .main import cli

        self.group = cli
        self.command: click.Command | None = None
        self.name = ""
        self.pending: click.Parameter | None = None
        """The option whose value comes next."""
        self.positional: list[str] = []
        self.behind_dashes: int | None = None
        """How many words there are after `--`."""
        self.call = Invocation()
        self.mesh: _Mesh | None = None
        for word in words:
            self._take(word)

    def _take(self, word: str) -> None:
        if self.behind_dashes is not None:
            self.behind_dashes += 1
        elif self.pending is not None:
            self._set(self.pending, word)
            self.pending = None
        elif word == "--" and self.command is not None:
            self.behind_dashes = 0
        elif word.startswith("-") and word != "-":
            name, equals, value = word.partition("=")
            option = self.options().get(name)
            if isinstance(option, click.Option) and not option.is_flag:
                if equals:
                    self._set(option, value)
                else:
                    self.pending = option
        elif self.command is None:
            self.name = word
            self.command = self.group.get_command(click.Context(self.group), word) or click.Command("")
        else:
            self.positional.append(word)

    def _set(self, option: click.Parameter, value: str) -> None:
        if option.name == "address":
            self.call.address = value

    def options(self) -> dict[str, click.Option]:
        """The options that may stand here, by every name that they have."""
        params = (self.command or self.group).get_params(click.Context(self.command or self.group))
        shown = [param for param in params if isinstance(param, click.Option) and not param.hidden]
        return {name: param for param in shown for name in (*param.opts, *param.secondary_opts)}

    def argument(self) -> click.Argument | None:
        """The argument that the next word is for."""
        params = [param for param in self.command.params if isinstance(param, click.Argument)] if self.command else []
        place = len(self.positional)
        return params[place] if place < len(params) else params[-1] if params and params[-1].nargs == -1 else None

    def live(self) -> _Mesh:
        """The mesh that the line is about."""
        if self.mesh is None:
            self.call.timeout = float(os.environ.get("MEESEEKS_COMPLETE_WITHIN") or _WITHIN_S)
            self.mesh = _Mesh(self.call)
        return self.mesh


def _next(line: _Line, current: str) -> Iterable[Candidate]:
    if line.behind_dashes is not None and isinstance(line.command, JobCommand):
        return [Candidate("command" if line.behind_dashes == 0 and "/" not in current else "file")]
    if line.pending is not None:
        return _values(line, line.pending, current)
    if current.startswith("-") and line.behind_dashes is None:
        name, equals, value = current.partition("=")
        option = line.options().get(name)
        if equals and option is not None:
            found = _values(line, option, value)
            return [one._replace(value=f"{name}={one.value}") if one.value else one for one in found]
        return [Candidate("plain", name, _sentence(each.help)) for name, each in line.options().items()]
    if line.command is None:
        from .main import one_line_helps

        return [Candidate("plain", name, text) for name, text in one_line_helps().items()]
    argument = line.argument()
    return () if argument is None else _values(line, argument, current)


def _sentence(text: str | None) -> str:
    return re.split(r"[.;:] |[.;:]$", " ".join((text or "").split()))[0]


def _values(line: _Line, param: click.Parameter, current: str) -> Iterator[Candidate]:
    """What a parameter may be, by its type or by the words of its metavar."""
    if isinstance(param.type, click.Choice):
        yield from (Candidate("plain", str(choice)) for choice in param.type.choices)
        return
    metavar = param.metavar or ""
    what = set(re.findall(r"[A-Z]+", metavar))
    if "JID" in what and "=" not in current:
        yield from line.live().jobs(current)
    if "FILTER" in what or (param.name == "where" and param.param_type_name == "option"):
        yield from _pairs(_FILTER_KEYS, current, lambda key: _filter_values(line, key, current.partition("=")[2]))
    elif "KEY" in what:
        yield from _settings(line, current)
    if "POOL" in what:
        yield from _places(line, current)
    elif "HOST" in what:
        yield from (Candidate("plain", address) for address in line.live().addresses())
    elif "NODE" in what:
        yield from (Candidate("plain", name) for name in line.live().nodes())
    if "TAG" in what:
        yield from (Candidate("plain", tag) for tag in line.live().tags(current))
    if "TOPIC" in what:
        from .help import topics

        yield from (Candidate("plain", name, title) for name, title in topics().items())
    if what & {"FILE", "PATH"} and "=" not in current:
        yield Candidate("file")
    elif "DIR" in what:
        yield Candidate("dir")


def _pairs(keys: Iterable[str], current: str, values: Callable[[str], Iterable[str]]) -> Iterator[Candidate]:
    """`key=` of each key, or once that stands there, its values."""
    key, equals, _ = current.partition("=")
    if not equals:
        yield from (Candidate("part", f"{name}=") for name in keys)
    else:
        yield from (Candidate("plain", f"{key}={value}") for value in values(key))


def _filter_values(line: _Line, key: str, begun: str) -> Iterable[str]:
    if key == "state":
        return _STATES
    if key in ("active", "hold", "restart", "resubmit"):
        return _FLAGS
    if key == "tag":
        return line.live().tags(begun)
    if key == "pool":
        return line.live().pools()
    if key in ("node", "submit_node"):
        return line.live().nodes()
    return [job.value for job in line.live().jobs(begun)] if key == "id" else ()


def _settings(line: _Line, current: str) -> Iterator[Candidate]:
    """Of `set` the keys of a jobspec, of `conf` and `node` those of a configuration."""
    if line.name == "set":
        words = {"state": ("new", "killed"), **dict.fromkeys(("hold", "restart", "resubmit"), _FLAGS)}
        live: dict[str, Callable[[], Iterable[str]]] = {"pool": line.live().pools, "node": line.live().nodes}
        yield from _pairs(_CHANGES, current, lambda key: words.get(key) or live.get(key, tuple)())
        return
    from meeseeks.config import explain

    pools = line.live().pools() if line.name == "conf" else []
    for setting in explain():
        names = pools if setting.key.startswith("pools.") else []
        keys = [setting.key.replace("NAME", name) for name in names] or [setting.key.partition("NAME")[0]]
        flags = _FLAGS if isinstance(setting.default, bool) else ()
        for key in dict.fromkeys(keys):
            if not current.startswith(f"{key}="):
                yield Candidate("part", key if key.endswith(".") else f"{key}=")
            yield from (Candidate("plain", f"{key}={flag}") for flag in flags if current.startswith(f"{key}="))


def _places(line: _Line, current: str) -> Iterator[Candidate]:
    """POOL, or once an @ stands there, POOL@NODE of the nodes that have it."""
    pool, at, _ = current.partition("@")
    places = line.live().pools()
    if not at:
        yield from (Candidate("plain", name) for name in places)
    else:
        yield from (Candidate("plain", f"{pool}@{node}") for node in places.get(pool, {}))


class _Mesh:
    """What the node knows; nothing at all where it does not answer at once."""

    def __init__(self, call: Invocation) -> None:
        self._call = call
        self._client: Client | None = None
        self._is_mute = False

    def close(self) -> None:
        """End the connection, if there is one."""
        if self._client is not None:
            self._client.close()

    def jobs(self, begun: str) -> list[Candidate]:
        """The ids that begin so, each with its state and its command."""
        infos = self._ask(lambda client: client.query(client.ls(id=f"{begun}*")[-_SHOWN:]))
        return [Candidate("plain", jid, _story(info)) for jid, info in reversed(infos.items())]

    def tags(self, begun: str) -> list[str]:
        """The tags that begin so."""
        infos = self._ask(lambda client: client.query(client.ls(tag=f"{begun}*")[-_SHOWN:]))
        return sorted({tag for info in infos.values() for tag in info["tags"]})

    def pools(self) -> dict[str, dict[str, Any]]:
        """{pool: {node: free slots}}."""
        return self._ask(lambda client: client.pools())

    def nodes(self) -> list[str]:
        """Their names."""
        return sorted(self._ask(lambda client: client.nodes()))

    def addresses(self) -> list[str]:
        """Where nodes listen."""
        statuses = self._ask(lambda client: client.nodes()).values()
        return sorted(f"{status['address']}:{status['port']}" for status in statuses if status["address"])

    def _ask(self, question: Callable[[Client], dict[str, Any]]) -> dict[str, Any]:
        if self._is_mute:
            return {}
        try:
            if self._client is None:
                self._client = self._call.client()
            return question(self._client)
        except (MeeseeksError, OSError):
            self._is_mute = True
            return {}


def _story(info: dict[str, Any]) -> str:
    from .output import clean
    from .views import command_line

    return clean(f"{info['state']} {command_line(info['args'])}")[:60]
