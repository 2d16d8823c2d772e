"""Every setting of a node, declared once: its type, range, default and explanation.

Validation, `explain` and the check of conf/reference.toml all come from these declarations. `load` reads files (TOML,
or the JSON of the original meeseeks) and `key.key=value` arguments; `change` is a configuration pushed to a running
node. Whatever is wrong is a ConfigError that names where it stood, the key, the value and what is allowed.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import platformdirs
from msgspec import Meta

from meeseeks.core.settings import PoolSettings, Settings
from meeseeks.core.tls_options import check_tls, secret_in
from meeseeks.errors import ConfigError, InvalidRequest

from .check import Check, Setting, declared, is_loopback, is_text
from .text import DEFAULT_PORT, NAMED, KeyPath, Tree, parse_joins

__all__ = [
    "Listen",
    "Logging",
    "NodeConfig",
    "Peer",
    "Pool",
    "Security",
    "State",
    "change",
    "explain",
    "load",
    "to_dict",
    "without_secrets",
]

MASK = "***"
"""What is shown in place of a secret."""
_PUB_PORT_ABOVE = 10_000
_LOST_AFTER = 300.0

Port = Annotated[int, Meta(ge=0, le=65535)]
Seconds = Annotated[float, Meta(gt=0, le=1e9)]
Text = Annotated[str, Meta(min_length=1)]


class Logging(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the node logs, to stderr."""

    level: Annotated[
        Annotated[int, Meta(ge=0, le=50)] | Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"],
        Meta(description="The least severe level that is logged, by name or by number (10 is DEBUG)."),
    ] = "INFO"


class Listen(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the node can be reached."""

    address: Annotated[Text, Meta(description="The address to listen on. Anything but loopback needs `security`.")] = (
        "localhost"
    )
    port: Annotated[Port, Meta(description="The port for requests; 0 takes free ones for this and `pub_port`.")] = (
        DEFAULT_PORT
    )
    pub_port: Annotated[Port | None, Meta(description="The port for broadcasts; by default 10000 above `port`.")] = None
    advertise: Annotated[
        Text | None, Meta(description="The host name or address that peers are told; by default what they see.")
    ] = None
    ssl: Annotated[
        dict[str, Any] | None,
        Meta(
            description="TLS: `cert` and `key` (and its password `pass`) of this node, `cafile` or `capath` of those "
            "whose certificates are let in, `verify` (required), `ciphers`, `options`. By default no TLS."
        ),
    ] = None


class Security(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who may connect."""

    mode: Annotated[
        Literal["curve", "none"],
        Meta(
            description="`curve`: all is encrypted, and only those with a key are let in. `none`: whoever reaches "
            "the address may use the node and run jobs on it."
        ),
    ] = "curve"
    key: Annotated[
        Text | None,
        Meta(
            description="The file of the mesh's key; by default the one that MEESEEKS_KEY names, or mesh.key in the "
            "user's configuration folder, which the first node makes."
        ),
    ] = None
    authorized: Annotated[
        Text | None,
        Meta(
            description="A folder of files that let other keys in, each with a role; by default `authorized` beside "
            "the mesh's key. It is read again when it changes."
        ),
    ] = None
    insecure: Annotated[
        bool, Meta(description="Allow `mode` none on an address that is not loopback. Anybody there may run jobs here.")
    ] = False


class State(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The job table, and how the node judges silence."""

    dir: Annotated[
        Text | None,
        Meta(description="The folder for jobs, output and sockets, its own; by default in the user's state folder."),
    ] = None
    sync: Annotated[
        Literal["acks", "all", "os", "memory"],
        Meta(
            description="What is forced to disk. `acks`: whatever a client is told at once, the rest within a second; "
            "`all`: every change at once; `os`: nothing, which survives a killed node but no power cut; `memory`: "
            "there is no store, and jobs end with their node."
        ),
    ] = "acks"
    expire: Annotated[Seconds, Meta(description="An ended job is forgotten this many seconds after its end.")] = 86400.0
    timeout: Annotated[Seconds, Meta(description="A node that is silent for this many seconds is offline.")] = 15.0
    lost_after: Annotated[
        Seconds | None,
        Meta(
            description="A node that is silent for this many seconds is lost: its jobs are given to others or read as "
            "failed. At least twice `timeout`; by default 300, or twice `timeout` if that is more."
        ),
    ] = None
    history: Annotated[
        Text | None, Meta(description="A file that gets a line of JSON for each job that ended here; by default none.")
    ] = None
    inline_output: Annotated[
        Annotated[int, Meta(ge=0, le=1024 * 1024)],
        Meta(description="Output of up to this many bytes travels with the job; longer output stays on its node."),
    ] = 4096


class Peer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Another node to link to; NAME is its name."""

    address: Annotated[Text | None, Meta(description="Its host name or address; by default NAME.")] = None
    port: Annotated[Annotated[int, Meta(ge=1, le=65535)], Meta(description="The port that it takes requests on.")] = (
        DEFAULT_PORT
    )
    ssl: Annotated[
        dict[str, Any] | None,
        Meta(description="TLS to it: keys as in `listen.ssl`. `defaults.ssl` is for peers that are not named here."),
    ] = None


class Pool(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A pool of this node; jobs ask for it by NAME."""

    slots: Annotated[
        Annotated[int, Meta(ge=0, le=1_000_000)], Meta(description="How many jobs run at once; 0 is no limit.")
    ] = 0
    hold: Annotated[bool, Meta(description="Take jobs, but start none.")] = False
    drain: Annotated[bool, Meta(description="Take no new jobs; those that are here go on.")] = False
    runtime: Annotated[
        Seconds | None, Meta(description="Seconds a job may run that names no runtime itself; by default any.")
    ] = None
    grace: Annotated[
        Annotated[float, Meta(ge=0, le=86400)],
        Meta(description="Seconds between SIGTERM and SIGKILL when a job is ended."),
    ] = 5.0


class NodeConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole configuration of a node, checked."""

    name: Annotated[Text, Meta(description="The node's name, unique in its mesh; by default the host's name.")]
    logging: Logging = Logging()
    defaults: Annotated[
        dict[str, Any], Meta(description="Defaults for every section that has the key, such as `grace` or `port`.")
    ] = {}
    listen: Listen = Listen()
    security: Security = Security()
    state: State = State()
    nodes: dict[str, Peer] = {}
    pools: dict[str, Pool] = {}
    use_loadavg: Annotated[
        bool, Meta(description="Give jobs to the node with the lowest load average, not the most free slots.")
    ] = False
    wait_in_pool: Annotated[bool, Meta(description="Let full pools of this node take jobs, which wait.")] = False
    discover: Annotated[bool, Meta(description="Link to every node that is heard of, not only to those named.")] = True
    heartbeat: Annotated[
        Seconds, Meta(description="Seconds between two signs of life. At most a third of state.timeout.")
    ] = 1.0
    joins: tuple[tuple[str, int], ...] = ()
    """Nodes to link to whose names are not known yet: `--join`."""
    warnings: tuple[str, ...] = ()
    """What was accepted and does nothing, one sentence each."""
    given: dict[str, Any] = {}
    """What it was made of. Whatever is not in there is a default, and follows `defaults` when those are changed."""

    @property
    def pub_port(self) -> int:
        """The port to bind PUB to; 0 for a free one."""
        if self.listen.pub_port is not None:
            return self.listen.pub_port
        return self.listen.port + _PUB_PORT_ABOVE if self.listen.port else 0

    @property
    def advertised(self) -> str:
        """The host that peers are told; blank for 'where you see me'."""
        return self.listen.advertise or ""

    @property
    def state_dir(self) -> Path:
        """The state folder."""
        if self.state.dir is None:
            return platformdirs.user_state_path("meeseeks") / self.name
        return Path(self.state.dir)

    def peers(self) -> list[tuple[str, int]]:
        """(host, port) of each node to link to: those that were named, and those to join.

        Its own name among `nodes` is passed over, so that all nodes of a mesh may share one file.
        """
        named = [(peer.address or name, peer.port) for name, peer in self.nodes.items() if name != self.name]
        return list(dict.fromkeys([*named, *self.joins]))

    def peer_ssl(self) -> dict[tuple[str, int], dict[str, Any] | None]:
        """The `ssl` of each node that was named, by (host, port)."""
        return {(peer.address or name, peer.port): peer.ssl for name, peer in self.nodes.items()}

    def settings(self) -> Settings:
        """What the core needs of it."""
        return Settings(
            name=self.name,
            heartbeat=self.heartbeat,
            timeout=self.state.timeout,
            lost_after=_lost_after(self.state),
            expire=self.state.expire,
            use_loadavg=self.use_loadavg,
            wait_in_pool=self.wait_in_pool,
            discover=self.discover,
            pools={name: PoolSettings(**msgspec.structs.asdict(pool)) for name, pool in self.pools.items()},
        )


_NOT_KEYS = ("joins", "warnings", "given")
"""Fields of NodeConfig that are no settings: they come from elsewhere."""

_MAY_CHANGE = ("defaults", "nodes", "pools", "use_loadavg", "wait_in_pool", "discover", "heartbeat")
_MAY_CHANGE_OF_STATE = ("expire", "timeout", "lost_after")


def load(files: Iterable[str | Path] = (), pairs: Iterable[str] = (), joins: Iterable[str] = ()) -> NodeConfig:
    """The configuration that files, `key=value` arguments and `--join`s stand for; later ones win. Or ConfigError."""
    tree = Tree()
    for file in files:
        tree.read_file(file)
    for pair in pairs:
        tree.read_pair(pair, lambda path: is_text(NodeConfig, path))
    return _checked(tree, parse_joins(joins))


def change(current: NodeConfig, patch: Mapping[str, Any]) -> NodeConfig:
    """`current` with a pushed configuration laid over it, or ConfigError, and nothing has changed.

    None instead of a pool or a peer removes it; None for a key sets its default. Keys that need a restart are refused
    by name, unless they say what is so already.
    """
    if not isinstance(patch, Mapping):
        raise ConfigError("a pushed configuration must be a table of settings")
    tree = Tree()
    tree.lay_over(current.given or to_dict(current), "")  # a copy
    tree.lay_over(patch, "pushed configuration")
    changed = _checked(tree, current.joins)
    for path, before, after in _differences(to_dict(current), to_dict(changed)):
        if path[0] in _MAY_CHANGE or (path[0] == "state" and path[1] in _MAY_CHANGE_OF_STATE):
            continue
        raise ConfigError(
            f"pushed configuration: {'.'.join(path)} can't change{_how(path, before, after)} while the node runs: "
            "change it in its file and restart it"
        )
    return changed


def _how(path: KeyPath, before: Any, after: Any) -> str:
    """In words, without secrets."""
    values = ({".".join(path): before}, {".".join(path): after})
    return "" if any(secret_in(value) for value in values) else f" from {before!r} to {after!r}"


def to_dict(config: NodeConfig) -> dict[str, Any]:
    """The settings as plain values, defaults included: what a user is shown, and what `change` takes."""
    values: dict[str, Any] = msgspec.to_builtins(msgspec.structs.replace(config, given={}))
    for key in _NOT_KEYS:
        del values[key]
    values["state"].update(dir=str(config.state_dir), lost_after=_lost_after(config.state))
    return values


def without_secrets(config: NodeConfig) -> dict[str, Any]:
    """`to_dict` for everybody's eyes: passwords of key files are masked."""
    values = to_dict(config)
    for section in (values["listen"], values["defaults"], *values["nodes"].values()):
        if section.get("ssl") and section["ssl"].get("pass"):
            section["ssl"]["pass"] = MASK
    return values


def explain() -> list[Setting]:
    """Every setting: its key (`pools.NAME.slots`), what is allowed, its default and what it does."""
    return [setting for setting in declared(NodeConfig) if setting.key not in _NOT_KEYS]


def _checked(tree: Tree, joins: tuple[tuple[str, int], ...]) -> NodeConfig:
    if tree.values.get("name") is None:
        tree.values["name"] = socket.gethostname()
    check = Check(tree, NAMED)
    config = check.build(NodeConfig, _NOT_KEYS)
    check.name(("name",), config.name)
    for section in NAMED:
        for name in getattr(config, section):
            check.name((section, name), name)
    _check_times(check, config)
    _check_ssl(check, config)
    _check_listen(check, config)
    state = msgspec.structs.replace(config.state, dir=_path(config.state.dir), history=_path(config.state.history))
    security = config.security
    security = msgspec.structs.replace(security, key=_path(security.key), authorized=_path(security.authorized))
    others = {"joins": joins, "warnings": (*tree.warnings, *check.warnings), "given": tree.values}
    return msgspec.structs.replace(config, state=state, security=security, **others)


_HEARTBEAT_MIN = 0.05


def _check_times(check: Check, config: NodeConfig) -> None:
    timeout, lost_after = config.state.timeout, _lost_after(config.state)
    if lost_after < 2 * timeout:
        raise check.error(
            ("state", "lost_after"), f"must be at least twice state.timeout ({timeout:g}), not {lost_after:g}"
        )
    if config.heartbeat < _HEARTBEAT_MIN:
        raise check.error(("heartbeat",), f"must be at least {_HEARTBEAT_MIN:g} s, not {config.heartbeat:g}")
    if 3 * config.heartbeat > timeout:
        at = ("heartbeat",) if check.tree.origin(("heartbeat",)) else ("state", "timeout")
        raise check.error(
            at, f"is wrong: three heartbeats ({config.heartbeat:g} s each) must fit into state.timeout ({timeout:g} s)"
        )


def _check_ssl(check: Check, config: NodeConfig) -> None:
    named = [(("nodes", name, "ssl"), peer.ssl) for name, peer in config.nodes.items()]
    for path, ssl in [(("listen", "ssl"), config.listen.ssl), *named]:
        if ssl is not None:
            try:
                check_tls(ssl, ".".join(path))
            except InvalidRequest as error:
                origin = check.tree.origin(path)
                raise ConfigError(f"{origin + ': ' if origin else ''}{error}") from error


def _check_listen(check: Check, config: NodeConfig) -> None:
    listen = config.listen
    if config.pub_port > 65535:
        raise check.error(("listen", "port"), f"{listen.port} leaves no port 10000 above it: give listen.pub_port too")
    if config.pub_port == listen.port and listen.port:
        raise check.error(("listen", "pub_port"), f"must be another port than listen.port ({listen.port})")
    is_mutual = listen.ssl is not None and check_tls(listen.ssl).verify in (None, "required")
    if config.security.mode != "none" or is_mutual:
        return  # nobody gets in without a key, or a certificate
    if not is_loopback(listen.address) and not config.security.insecure:
        raise check.error(
            ("listen", "address"),
            f"{listen.address!r} is not loopback, and with security.mode none anybody who reaches it may run jobs: "
            "listen on localhost, or set security.insecure=true if only friends can reach it",
        )
    check.warnings.append(
        f"security.mode is none: whoever reaches {listen.address} may run commands as the user of this node"
    )


def _lost_after(state: State) -> float:
    return max(_LOST_AFTER, 2 * state.timeout) if state.lost_after is None else state.lost_after


def _path(text: str | None) -> str | None:
    return None if text is None else str(Path(text).expanduser().absolute())


def _differences(
    a: Mapping[str, Any], b: Mapping[str, Any], path: tuple[str, ...] = ()
) -> Iterable[tuple[tuple[str, ...], Any, Any]]:
    for key in {**a, **b}:
        was, now, here = a.get(key), b.get(key), (*path, key)
        if isinstance(was, Mapping) and isinstance(now, Mapping) and was and now:
            yield from _differences(was, now, here)
        elif was != now:
            yield here, was, now
