"""The keys of a mesh on disk, and who they let in: key files, the folder of authorized keys, and the ZAP handler.

A key file is TOML of three lines, for its user's eyes only:

    public = "…"     the key's own public half, in Z85
    secret = "…"
    server = "…"     the public key of the mesh; the mesh key itself has no such line

The mesh key is the identity of every node of the mesh: whoever has it is a node, and may do everything. A file of the
folder of authorized keys is what somebody else's key may do: `public = "…"` and `role = "read"`, "submit" or "admin".
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

from meeseeks.errors import ConfigError

from . import sockets, transfer
from .keys import Keys, Role

__all__ = [
    "Keyring",
    "Zap",
    "default_key_path",
    "is_key",
    "load_key",
    "make_client_key",
    "make_identity",
    "make_mesh_key",
    "role_named",
    "stranger",
]

_FILE_MAX = 10_000
_KEY_LENGTH = 40
_INTRODUCED_MAX = 10_000
_NOT_NOW = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR, errno.EIO)
_ROLES = {"read": Role.READ, "submit": Role.SUBMIT, "admin": Role.ADMIN}
_MESH_KEY = """\
# The key of a meeseeks mesh. Whoever has this file is a node of the mesh, and may do everything in it: keep it secret.
# Copy it to each machine of the mesh, and to those of its users. `mks keygen --client` makes keys that may do less.
public = "{public}"
secret = "{secret}"
"""
_IDENTITY = """\
# Who this node is, whatever its name: keep it secret, and give it to no other node.
public = "{public}"
secret = "{secret}"
"""
_CLIENT_KEY = """\
# The key of a user of a meeseeks mesh: keep it secret. It is found in ~/.config/meeseeks/mesh.key, or by MEESEEKS_KEY.
public = "{public}"
secret = "{secret}"
server = "{server}"
"""
_AUTHORIZED_KEY = """\
# What a key may do in a meeseeks mesh: put this file into the folder of authorized keys of its nodes.
public = "{public}"
role = "{role}"
"""


def default_key_path() -> Path:
    """The file that MEESEEKS_KEY names, or mesh.key in the user's configuration folder."""
    named = os.environ.get("MEESEEKS_KEY")
    if named:
        return Path(named).expanduser().absolute()
    # What platformdirs.user_config_path says on Linux; importing it takes as long as half of a call of `mks`.
    base = os.environ.get("XDG_CONFIG_HOME", "").strip() or "~/.config"
    return Path(base).expanduser() / "meeseeks" / "mesh.key"


def load_key(path: Path) -> Keys | None:
    """The keys in a file; None if it is not there. ConfigError if others may read it, or it is no key file."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            raw = file.read(_FILE_MAX)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"the key file {path} can't be read: {error.strerror}") from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(f"the key file {path} may be read by others: 'chmod 600 {path}', or make a new key")
    values = _parse(raw, path, "key file")
    public, secret = _key(values, "public", path), _key(values, "secret", path)
    server = _key(values, "server", path) if "server" in values else public
    try:
        fits = sockets.public_of(secret) == public
    except ValueError:
        fits = False
    if not fits:
        raise ConfigError(f"{path} is no key file: its two halves do not belong together")
    return Keys(public, secret, server)


def make_mesh_key(path: Path) -> Keys:
    """The mesh key at a path, made now if there is none. Of several that make it at once one wins, for all of them."""
    return _make_key(path, _MESH_KEY)


def make_identity(path: Path) -> Keys:
    """The key pair that a node is told by, made now if it has none yet."""
    return _make_key(path, _IDENTITY)


def _make_key(path: Path, form: str) -> Keys:
    found = load_key(path)
    if found is not None:
        return found
    keys = sockets.new_keys()
    with contextlib.suppress(FileExistsError):  # somebody was faster: theirs is the key
        _write(path, form.format(public=keys.public.decode(), secret=keys.secret.decode()), 0o600)
    found = load_key(path)
    if found is None:
        raise ConfigError(f"the key file {path} was removed while it was made")
    return found


def make_client_key(path: Path, server: bytes, role: str) -> Path:
    """Make a key for a user, and beside it the file that lets it in; returns that file's path.

    FileExistsError if one of them is there already: nothing is overwritten.
    """
    keys = sockets.new_keys()
    public, secret = keys.public.decode(), keys.secret.decode()
    card = path.with_name(path.name + ".pub")
    if card.exists():
        raise FileExistsError(card)
    _write(path, _CLIENT_KEY.format(public=public, secret=secret, server=server.decode()), 0o600)
    _write(card, _AUTHORIZED_KEY.format(public=public, role=role), 0o644)
    return card


def stranger() -> Keys:
    """Keys that nobody knows, which expect a node that nobody is: for who has no key, and must not speak plainly."""
    keys = sockets.new_keys()
    return Keys(keys.public, keys.secret, sockets.new_keys().public)


def role_named(name: object) -> Role | None:
    """The role of that name, if it is one that can be given."""
    return _ROLES.get(name) if isinstance(name, str) else None


class Keyring:
    """Whom a node lets in, and as what: its mesh key, and the keys in a folder, which is read again when it changes."""

    def __init__(self, keys: Keys, folder: Path, complain: Callable[[str], None]) -> None:
        self._mesh = keys.public.decode()
        self._folder = folder
        self._complain = complain
        self._roles: dict[str, Role] = {}
        self._seen: object = ()
        self._shut_out: set[str] = set()
        self._introduced: dict[str, None] = {}
        self.refresh()

    def role_of(self, public: str) -> Role | None:
        """What the holder of a public key (Z85) may do; None if it is not known."""
        return Role.NODE if public == self._mesh or public in self._introduced else self._roles.get(public)

    def introduce(self, identity: str) -> None:
        """Let a node in by its own key as well: it has named it over a connection that it had by the mesh's key.

        Not for longer than this process lives: once the mesh's key was changed, the old one lets nobody in.
        """
        self._introduced.pop(identity, None)
        self._introduced[identity] = None
        if len(self._introduced) > _INTRODUCED_MAX:
            del self._introduced[next(iter(self._introduced))]

    def refresh(self) -> None:
        """Look at the folder again. Where that can't be done now, for want of files or memory, all stays as it is."""
        try:
            seen = self._look()
            if seen == self._seen:
                return
            roles = dict(self._read())
        except OSError as error:
            if error.errno in _NOT_NOW:
                return
            seen, roles = error.errno, {}
            if seen != self._seen:
                self._complain(f"nobody is let in by {self._folder}: {error.strerror}")
        self._seen, before, self._roles = seen, self._roles, roles
        self._shut_out |= {public for public in before if public not in roles}

    def take_shut_out(self) -> set[str]:
        """The public keys that have been taken out of the folder since this was asked last."""
        found, self._shut_out = self._shut_out, set()
        return found

    def _look(self) -> object:
        """What changes when a file of the folder does; None if there is no folder."""
        try:
            found: list[tuple[str, tuple[int, ...]]] = [(".", _marks(self._folder.stat()))]
            with os.scandir(self._folder) as entries:
                found += [(one.name, _marks_of(one)) for one in entries if not one.name.startswith(".")]
        except FileNotFoundError:
            return None
        return sorted(found)

    def _read(self) -> Iterator[tuple[str, Role]]:
        try:
            at = self._folder.stat()
        except FileNotFoundError:
            return
        if at.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            self._complain(f"nobody is let in by {self._folder}: others may write to it; 'chmod go-w' it")
            return
        for path in sorted(self._folder.iterdir()):
            if path.name.startswith("."):
                continue
            try:
                # Not is_file: in some versions of Python it raises where a link leads nowhere, in others it says no.
                if stat.S_ISREG(path.stat().st_mode):
                    yield self._entry(path)
            except (OSError, ConfigError) as error:
                if isinstance(error, OSError) and error.errno in _NOT_NOW:
                    raise
                why = error.strerror if isinstance(error, OSError) else error
                self._complain(f"nobody is let in by {path}: {why}")

    def _entry(self, path: Path) -> tuple[str, Role]:
        if path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise ConfigError("others may write to it; 'chmod go-w' it")
        with path.open("rb") as file:
            values = _parse(file.read(_FILE_MAX), path, "authorized key")
        if "secret" in values:
            raise ConfigError("it has a secret key, which belongs to its user alone: put the .pub file here")
        role = role_named(values.get("role"))
        if role is None:
            raise ConfigError(f"role must be one of {', '.join(_ROLES)}")
        return _key(values, "public", path).decode(), role


def _marks(at: os.stat_result) -> tuple[int, ...]:
    # The time of change as well: the others can be as before where a file was written over, and its time set back.
    return at.st_ino, at.st_size, at.st_mtime_ns, at.st_ctime_ns, at.st_mode


def _marks_of(entry: os.DirEntry[str]) -> tuple[int, ...]:
    """The marks of one file; its errno where it has none, so that a bad link hides no change of the others."""
    try:
        return _marks(entry.stat())
    except OSError as error:
        if error.errno in _NOT_NOW:
            raise
        return (error.errno or 0,)


class Zap:
    """Answers libzmq's question whether to let a key in (RFC 27). `refused` hears of each that is not."""

    def __init__(self, keyring: Keyring, refused: Callable[[str, str], None]) -> None:
        self.socket = sockets.zap_listener()
        self._keyring = keyring
        self._refused = refused

    def receive(self) -> None:
        """Answer what was asked."""
        while (frames := transfer.receive_nowait(self.socket)) is not None:
            # [who asks, blank, version, request id, domain, address, routing id, mechanism, credentials…]
            if len(frames) < 9 or frames[2] != b"1.0":
                continue
            public = _z85(frames[8]) if frames[7] == b"CURVE" else ""
            if self._keyring.role_of(public) is None:
                self._keyring.refresh()  # its file may have been put there this very second
            known = self._keyring.role_of(public) is not None
            if not known:
                self._refused(frames[5].decode(errors="replace"), public)
            words = [b"200", b"OK", public.encode()] if known else [b"400", b"unknown key", b""]
            transfer.send_nowait(self.socket, [frames[0], b"", b"1.0", frames[3], *words, b""])

    def close(self) -> None:
        """Let nobody in any more."""
        sockets.close(self.socket)


def is_key(text: str) -> bool:
    """Whether this may be a public key in Z85."""
    return len(text) == _KEY_LENGTH and not set(text.encode()) - set(_Z85)


_Z85 = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"  # RFC 32


def _z85(raw: bytes) -> str:
    """32 bytes as the 40 characters of Z85; blank for anything else."""
    if len(raw) != 32:
        return ""
    found = bytearray()
    for at in range(0, 32, 4):
        number = int.from_bytes(raw[at : at + 4])
        found += bytes(_Z85[number // 85**power % 85] for power in (4, 3, 2, 1, 0))
    return found.decode()


_LINE = re.compile(rb'[ \t]*(?:#[ -~\t]*|([a-z]+)[ \t]*=[ \t]*"([ !#-\\[\]-~]*)"[ \t]*(?:#[ -~\t]*)?)?')
"""A line of TOML as `mks keygen` writes it: blank, a comment, or a text without escapes."""


def _parse(raw: bytes, path: Path, what: str) -> dict[str, object]:
    found = [_LINE.fullmatch(line) for line in raw.splitlines()]
    names = [line[1] for line in found if line and line[1]]
    if all(found) and len(names) == len(set(names)):
        return {line[1].decode(): line[2].decode() for line in found if line and line[1]}
    try:
        # Somebody wrote it in another way. Each call of `mks` reads a key file, and TOML takes its time to import.
        values: dict[str, object] = import_module("tomllib").loads(raw.decode())
        return values
    except ValueError:
        # The error of the parser would quote what it could not read: perhaps a secret.
        raise ConfigError(f"{path} is no {what}: it must be TOML, as 'mks keygen' writes it") from None


def _key(values: dict[str, object], name: str, path: Path) -> bytes:
    value = values.get(name)
    if not isinstance(value, str) or not is_key(value):
        raise ConfigError(f"{path}: {name} must be a key of {_KEY_LENGTH} characters, as 'mks keygen' writes it")
    return value.encode()


def _write(path: Path, text: str, mode: int) -> None:
    """Make a file, at once and whole. FileExistsError if there is one; ConfigError if it can't be made."""
    part = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        try:
            with os.fdopen(fd, "w") as file:
                file.write(text)
                file.flush()
                os.fsync(fd)
            os.link(part, path)  # fails where there is one, as a rename would not
        finally:
            part.unlink()
    except FileExistsError:
        raise
    except OSError as error:
        raise ConfigError(f"the key file {path} can't be made: {error.strerror}") from error
