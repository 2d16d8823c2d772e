from __future__ import annotations

import stat

from meeseeks.wire.curve import make_mesh_key
from tests.cli.conftest import call


def test_a_mesh_key_is_made_once(tmp_path):
    path = tmp_path / "folder" / "k"
    assert call(None, "keygen", str(path)).code == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = call(None, "keygen", str(path))
    assert (again.code, again.out) == (2, "")
    assert "there already" in again.err


def test_without_a_name_it_is_made_where_it_is_looked_for(tmp_path):
    assert call(None, "keygen", env={"MEESEEKS_KEY": str(tmp_path / "mine")}).code == 0
    assert (tmp_path / "mine").exists()
    assert call(None, "keygen", env={"XDG_CONFIG_HOME": str(tmp_path)}).code == 0
    assert (tmp_path / "meeseeks" / "mesh.key").exists()


def test_the_key_of_a_user(nodes, tmp_path):
    assert call(None, "keygen", "--client", str(tmp_path / "k"), "--role", "read").code == 0
    assert 'role = "read"' in (tmp_path / "k.pub").read_text()
    answer = call(nodes[0], "ls", env={"MEESEEKS_KEY": str(tmp_path / "k")})
    assert (answer.code, answer.out) == (4, "")
    assert "security.authorized" in answer.err


def test_not_let_in_is_4_and_says_what_to_do(nodes, tmp_path):
    make_mesh_key(tmp_path / "other")
    for key, said in (("other", "another mesh"), ("none", "there is no key")):
        answer = call(nodes[0], "nodes", env={"MEESEEKS_KEY": str(tmp_path / key)})
        assert (answer.code, answer.out) == (4, "")
        assert said in answer.err
        assert answer.err.count("\n") == 1


def test_wrong_usage(tmp_path):
    for args in (["--client"], ["--role", "read", "x"], ["--client", "--role", "king", "x"]):
        assert call(None, "keygen", *args).code == 2
    answer = call(None, "keygen", "--client", "x", cwd=tmp_path, env={"MEESEEKS_KEY": str(tmp_path / "none")})
    assert (answer.code, answer.out) == (2, "")
    assert "--mesh" in answer.err
