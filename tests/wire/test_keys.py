"""The files of keys: how they are made, who may read them, and what is refused."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import platformdirs
import pytest

from meeseeks.errors import ConfigError
from meeseeks.wire import sockets
from meeseeks.wire.curve import Keyring, default_key_path, load_key, make_client_key, make_mesh_key
from meeseeks.wire.keys import Role


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_mesh_key_is_for_its_user_alone(tmp_path):
    path = tmp_path / "new" / "mesh.key"
    keys = make_mesh_key(path)
    assert (mode_of(path), mode_of(path.parent)) == (0o600, 0o700)
    assert keys.is_mesh_key
    assert sockets.public_of(keys.secret) == keys.public
    assert make_mesh_key(path) == load_key(path) == keys
    assert keys.secret.decode() not in repr(keys)
    assert list(path.parent.iterdir()) == [path]


def test_of_many_first_starts_one_makes_the_key(tmp_path):
    path = tmp_path / "folder" / "mesh.key"
    program = (
        "import sys, pathlib\nfrom meeseeks.wire.curve import make_mesh_key\n"
        "sys.stdin.read()\nprint(make_mesh_key(pathlib.Path(sys.argv[1])).public.decode())"
    )
    command = [sys.executable, "-c", program, str(path)]
    many = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(8)]
    for one in many:
        assert one.stdin is not None
        one.stdin.close()
        one.stdin = None
    said = {one.communicate(timeout=30)[0] for one in many}
    assert len(said) == 1
    assert said == {load_key(path).public.decode() + "\n"}
    assert [one.returncode for one in many] == [0] * 8


def test_where_it_is_found(monkeypatch, tmp_path):
    monkeypatch.delenv("MEESEEKS_KEY", raising=False)
    for value in (str(tmp_path), None):
        monkeypatch.setenv("XDG_CONFIG_HOME", value) if value else monkeypatch.delenv("XDG_CONFIG_HOME")
        assert default_key_path() == platformdirs.user_config_path("meeseeks") / "mesh.key"
    monkeypatch.setenv("MEESEEKS_KEY", "~/k")
    assert default_key_path() == Path("~/k").expanduser()


def test_the_key_of_a_user_knows_the_mesh_s(tmp_path):
    mesh = make_mesh_key(tmp_path / "mesh.key")
    card = make_client_key(tmp_path / "ann.key", mesh.server, "read")
    ann = load_key(tmp_path / "ann.key")
    assert ann.server == mesh.public != ann.public
    assert not ann.is_mesh_key
    assert mode_of(tmp_path / "ann.key") == 0o600
    assert ann.secret.decode() not in card.read_text()
    with pytest.raises(FileExistsError):
        make_client_key(tmp_path / "ann.key", mesh.server, "read")


def broken(tmp_path: Path) -> dict[str, str]:
    one, other = make_mesh_key(tmp_path / "1"), make_mesh_key(tmp_path / "2")
    half = f'public = "{one.public.decode()}"'
    return {
        "": "public must be a key of 40 characters",
        "\udcff": "it must be TOML",
        half: "secret must be a key",
        f'{half}\nsecret = "{other.secret.decode()}"': "do not belong together",
        f'{half}\nsecret = "{one.secret.decode()}"\nserver = "x"': "server must be a key",
        f"{half}\nsecret = {one.secret.decode()}": "it must be TOML",
        f'{half}\nsecret = "{"é" * 40}"': "secret must be a key",
    }


def test_what_is_no_key_file_is_refused_and_not_quoted(tmp_path):
    for text, said in broken(tmp_path).items():
        path = tmp_path / "bad"
        path.write_text(text, errors="surrogateescape")
        path.chmod(0o600)
        with pytest.raises(ConfigError, match=said) as refused:
            load_key(path)
        assert not any(len(word) == 40 and word in str(refused.value) for word in text.replace('"', " ").split())


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_key_that_others_can_read_is_refused(tmp_path, mode):
    make_mesh_key(tmp_path / "k")
    (tmp_path / "k").chmod(mode)
    with pytest.raises(ConfigError, match="chmod 600"):
        load_key(tmp_path / "k")


def test_a_folder_of_keys_is_read_when_it_changes(tmp_path):
    mesh = make_mesh_key(tmp_path / "mesh.key")
    folder, said = tmp_path / "authorized", []
    ring = Keyring(mesh, folder, said.append)
    assert ring.role_of(mesh.public.decode()) is Role.NODE
    folder.mkdir()
    card = make_client_key(tmp_path / "ann", mesh.server, "submit")
    ann = load_key(tmp_path / "ann").public.decode()
    text = card.read_text()
    target = folder / "ann.pub"
    target.write_text(text)
    ring.refresh()
    assert ring.role_of(ann) is Role.SUBMIT
    target.write_text(text.replace("submit", "read"))
    os.utime(target, (1, 1))
    ring.refresh()
    assert ring.role_of(ann) is Role.READ
    assert ring.take_shut_out() == set()
    target.unlink()
    ring.refresh()
    assert ring.role_of(ann) is None
    assert ring.take_shut_out() == {ann}
    assert said == []
    (folder / "secret").write_text((tmp_path / "ann").read_text())
    folder.chmod(0o777)
    ring.refresh()
    assert "chmod go-w" in said.pop()
    folder.chmod(0o700)
    ring.refresh()
    assert "belongs to its user alone" in said.pop()


@pytest.mark.parametrize("target", ["gone.pub", "bad.pub"], ids=["dangling", "looping"])
def test_a_bad_link_in_the_folder_is_no_matter_of_the_other_keys(tmp_path, target):
    mesh = make_mesh_key(tmp_path / "mesh.key")
    folder, said = tmp_path / "authorized", []
    folder.mkdir()
    names = ("ann", "bob", "zoe")
    cards = {name: make_client_key(tmp_path / name, mesh.server, "read") for name in names}
    keys = {name: load_key(tmp_path / name).public.decode() for name in names}
    for name in ("ann", "zoe"):
        cards[name].rename(folder / f"{name}.pub")
    ring = Keyring(mesh, folder, said.append)
    (folder / "bad.pub").symlink_to(folder / target)
    ring.refresh()
    assert [ring.role_of(keys[name]) for name in names] == [Role.READ, None, Role.READ]
    assert len(said) == 1
    assert f"nobody is let in by {folder / 'bad.pub'}: " in said[0]
    (folder / "ann.pub").unlink()
    cards["bob"].rename(folder / "bob.pub")
    ring.refresh()
    assert [ring.role_of(keys[name]) for name in names] == [None, Role.READ, Role.READ]
    assert ring.take_shut_out() == {keys["ann"]}
    said.clear()
    ring.refresh()
    assert said == []


def test_while_no_file_can_be_looked_at_all_stays_as_it_is(tmp_path, monkeypatch):
    mesh = make_mesh_key(tmp_path / "mesh.key")
    folder, said = tmp_path / "authorized", []
    folder.mkdir()
    make_client_key(tmp_path / "ann", mesh.server, "read").rename(folder / "ann.pub")
    ann = load_key(tmp_path / "ann").public.decode()
    ring = Keyring(mesh, folder, said.append)
    (folder / "bad.pub").symlink_to(folder / "gone")

    def no_files(_path):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", no_files)
        ring.refresh()
    assert (ring.role_of(ann), ring.take_shut_out(), said) == (Role.READ, set(), [])


def test_a_key_that_is_changed_in_place_is_noticed(tmp_path):
    """With the size and the time of before: as rsync or an editor may leave it."""
    mesh = make_mesh_key(tmp_path / "mesh.key")
    folder = tmp_path / "authorized"
    folder.mkdir()
    card = make_client_key(tmp_path / "ann", mesh.server, "admin")
    ann = load_key(tmp_path / "ann").public.decode()
    file = folder / "ann.pub"
    card.rename(file)
    ring = Keyring(mesh, folder, pytest.fail)
    before = file.stat()
    file.write_text(file.read_text().replace('"admin"', '"read" '))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    ring.refresh()
    assert ring.role_of(ann) is Role.READ
