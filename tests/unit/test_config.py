"""Configurations: what is accepted, and what is refused with which words."""

from __future__ import annotations

import json
import socket
import tomllib
from pathlib import Path

import pytest

from meeseeks import config
from meeseeks.errors import ConfigError

CONF = Path(__file__).parents[2] / "conf"

ORIGINAL = {
    "name": "headA",
    "logging": {"level": 10, "filename": "/var/log/meeseeks.log"},
    "defaults": {"refresh": 1, "max_runtime": 60},
    "listen": {"port": 13801, "ssl": {}},
    "state": {"expire": 60, "refresh": 1, "checkpoint": 10, "expire_active_jobs": True},
    "nodes": {"nodeA1": {"port": 13701, "refresh": 1, "poll": 10, "timeout": 10, "ssl": None}, "nodeA2": {}},
    "pools": {"q1": {"slots": None, "max_runtime": None, "refresh": 1, "update": 30}, "q2": {"slots": 2}},
}


def flat(values, prefix=""):
    """The dotted keys of a configuration, with NAME for the names of nodes and pools."""
    for key, value in values.items():
        if isinstance(value, dict) and key not in ("defaults", "ssl"):
            named = prefix + key in ("nodes", "pools")
            for name, below in value.items() if named else [("", value)]:
                del name
                yield from flat(below, f"{prefix}{key}.{'NAME.' if named else ''}")
        else:
            yield prefix + key


# --- defaults and files


def test_no_configuration_at_all_is_a_node_with_defaults():
    found = config.load()
    assert found.name == socket.gethostname()
    assert (found.listen.address, found.listen.port, found.pub_port) == ("localhost", 13700, 23700)
    assert found.pools == {} and found.peers() == [] and found.warnings == ()
    assert found.state_dir.name == found.name
    settings = found.settings()
    assert (settings.heartbeat, settings.timeout, settings.lost_after, settings.expire) == (1, 15, 300, 86400)
    assert settings.discover is True


@pytest.mark.parametrize("file", sorted(CONF.glob("*.toml")), ids=lambda file: file.name)
def test_every_example_loads_without_a_warning(file):
    found = config.load([file], ["name=n1"] if file.stem == "compute" else [])
    assert found.warnings == ()
    assert found.name != socket.gethostname() or file.stem == "single"


def test_the_reference_has_every_setting_and_no_other():
    values = tomllib.loads((CONF / "reference.toml").read_text())
    assert sorted(flat(values)) == sorted(setting.key for setting in config.explain())


def test_the_reference_shows_the_defaults():
    shown = config.to_dict(config.load([CONF / "reference.toml"]))
    for setting in config.explain():
        if setting.default is None or setting.key == "defaults":
            continue
        value = shown
        for part in setting.key.split("."):
            value = value[part] if part != "NAME" else next(iter(value.values()))
        assert value == setting.default, setting.key


def test_every_setting_is_explained_in_full():
    for setting in config.explain():
        assert setting.description.endswith("."), setting.key
        assert setting.allowed, setting.key


def test_a_configuration_of_the_original_runs_as_it_is(tmp_path):
    file = tmp_path / "headA.cfg"
    file.write_text(json.dumps(ORIGINAL))
    found = config.load([file])
    assert (found.name, found.logging.level, found.listen.port) == ("headA", 10, 13801)
    assert found.peers() == [("nodeA1", 13701), ("nodeA2", 13700)]
    assert found.pools["q1"].slots == 0 and found.pools["q2"].slots == 2
    assert found.pools["q2"].runtime == 60
    said = "\n".join(found.warnings)
    for key in ("logging.filename", "defaults.refresh", "state.checkpoint", "nodes.nodeA1.poll", "pools.q1.update"):
        assert f"{file}: {key} does nothing: " in said
    assert "ssl" not in said and "max_runtime" not in said


def test_later_files_and_arguments_win(tmp_path):
    first, second = tmp_path / "1.toml", tmp_path / "2.json"
    first.write_text('name = "one"\n[pools.p]\nslots = 1\ngrace = 2\n[pools.q]\n[pools.r]\n')
    second.write_text('{"name": "two", "pools": {"p": {"slots": 2}, "q": null}}')
    found = config.load([first, second], ["pools.p.slots=3", "pools.p.slots=4", "pools.r=null"])
    assert found.name == "two"
    assert list(found.pools) == ["p"]
    assert (found.pools["p"].slots, found.pools["p"].grace) == (4, 2)


def test_defaults_fill_every_section_that_has_the_key_and_does_not_set_it():
    pairs = ["defaults.port=14000", "defaults.grace=9", "nodes.b.port=14001", "nodes.c={}", "pools.p={}"]
    found = config.load([], pairs)
    assert found.listen.port == 14000 and found.pub_port == 24000
    assert found.peers() == [("b", 14001), ("c", 14000)]
    assert found.pools["p"].grace == 9
    assert config.change(found, {"pools": {"q": {}}}).pools["q"].grace == 9


def test_all_nodes_of_a_mesh_may_share_one_file():
    assert config.load([], ["name=b", "nodes={a = {}, b = {}, c = {}}"]).peers() == [("a", 13700), ("c", 13700)]


def test_lost_after_follows_a_long_timeout():
    assert config.load([], ["state.timeout=200"]).settings().lost_after == 400


def test_paths_are_absolute(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", "/home/u")
    monkeypatch.chdir(tmp_path)
    found = config.load([], ["state.dir=~/s", "state.history=h.jsonl"])
    assert found.state_dir == Path("/home/u/s")
    assert found.state.history == str(tmp_path / "h.jsonl")


# --- arguments


@pytest.mark.parametrize(
    ("pair", "expected"),
    [
        ("name=7", "7"),
        ("name=true", "true"),
        ('name="x"', "x"),
        ("name=2026-01-01", "2026-01-01"),
        ("name=n=1", "n=1"),
        ("use_loadavg=true", True),
        ("heartbeat=0.5", 0.5),
        ("heartbeat=2", 2.0),
        ("defaults={grace = 1}", {"grace": 1}),
        ('defaults={"grace": 1}', {"grace": 1}),
    ],
)
def test_values_of_arguments(pair, expected):
    assert getattr(config.load([], [pair]), pair.partition("=")[0]) == expected


def test_a_name_with_a_dot_stands_in_quotes():
    assert config.load([], ['nodes."n1.example.org".port=5']).peers() == [("n1.example.org", 5)]


def test_a_value_with_a_line_break_is_one_value():
    with pytest.raises(ConfigError, match="use_loadavg must be true or false, not 'true.nname=1'"):
        config.load([], ["use_loadavg=true\nname=1"])


@pytest.mark.parametrize(
    ("join", "expected"),
    [
        ("h", ("h", 13700)),
        ("h:1", ("h", 1)),
        ("10.0.0.1:65535", ("10.0.0.1", 65535)),
        ("[::1]:5", ("::1", 5)),
        ("[::1]", ("::1", 13700)),
        ("fe80::1", ("fe80::1", 13700)),
    ],
)
def test_joins(join, expected):
    assert config.load([], [], [join, join]).peers() == [expected]


@pytest.mark.parametrize("join", ["", ":5", "h:", "h:x", "h:0", "h:65536", "h:123456", "a b:5", "h:²"])
def test_wrong_joins(join):
    with pytest.raises(ConfigError, match="--join"):
        config.load([], [], [join])


# --- what is refused

WRONG = [
    ("nane=x", "unknown key 'nane'; did you mean 'name'?"),
    ("zzz=1", "unknown key 'zzz'; known: name, logging, defaults, listen, "),
    ("joins=[]", "unknown key 'joins'"),
    ("warnings=[]", "unknown key 'warnings'"),
    ("pools.p.slot=1", "unknown pools.p key 'slot'; did you mean 'slots'?"),
    ("state.expires=1", "unknown state key 'expires'; did you mean 'expire'?"),
    ("nodes.b.adress=x", "unknown nodes.b key 'adress'; did you mean 'address'?"),
    ("defaults.graze=1", "unknown defaults key 'graze'; did you mean 'grace'?"),
    ("defaults.insecure=true", "unknown defaults key 'insecure'"),
    ("defaults.slots=x", "defaults.slots must be a whole number from 0 to 1000000, not 'x'"),
    ("pools.p.slots=-1", "pools.p.slots must be a whole number from 0 to 1000000, not -1"),
    ("pools.p.slots=true", "pools.p.slots must be a whole number from 0 to 1000000, not True"),
    ("pools.p.slots=1.5", "pools.p.slots must be a whole number from 0 to 1000000, not 1.5"),
    ("pools.p.hold=1", "pools.p.hold must be true or false, not 1"),
    ("pools.p.runtime=0", "pools.p.runtime must be a number above 0, 1000000000 at most, not 0"),
    ("pools.p.runtime=nan", "pools.p.runtime must be a number above 0, 1000000000 at most, not nan"),
    ("pools.p.runtime=inf", "pools.p.runtime must be a number above 0, 1000000000 at most, not inf"),
    ("pools.p.grace=-1", "pools.p.grace must be a number from 0 to 86400, not -1"),
    ("pools.p.grace=true", "pools.p.grace must be a number from 0 to 86400, not True"),
    ("pools.p.plugin=x.Y", "pools.p.plugin can't be set: pool plugins are not available in this version"),
    ("pools.p=5", "pools.p must be a table of settings, not 5"),
    ("pools=[1]", "pools must be a table of settings, not [1]"),
    ("pools.__config.slots=1", "'__config' can't be used: a name has 1 to 255 characters"),
    ("pools={'a b' = {}}", "'a b' can't be used: a name has"),
    ("pools={'' = {}}", "'' can't be used: a name has"),
    ("name=a*", "'a*' can't be used: a name has"),
    ("name=a/b", "'a/b' can't be used: a name has"),
    ("name=a@b", "'a@b' can't be used: a name has"),
    ("name=a b", "'a b' can't be used: a name has"),
    ("name=", "name must be a non-empty text, not ''"),
    ("nodes.a*.port=1", "'a*' can't be used: a name has"),
    ("nodes.b.port=0", "nodes.b.port must be a whole number from 1 to 65535, not 0"),
    ("nodes.b.ssl.verify=3", "nodes.b.ssl.verify must be none, optional or required, not 3"),
    ("nodes.b.ssl.certs=x", "unknown nodes.b.ssl key 'certs'; did you mean 'cert'?"),
    ("listen.ssl.cafle=x", "unknown listen.ssl key 'cafle'; did you mean 'cafile'?"),
    ("listen.ssl.key=x", "listen.ssl.key is the private key of listen.ssl.cert"),
    ("listen.ssl=true", "listen.ssl must be a table of settings, not True"),
    ("ssl.cert=x", "give it to listen and to nodes.NAME, or to defaults"),
    ("listen.port=65536", "listen.port must be a whole number from 0 to 65535, not 65536"),
    ("listen.port=http", "listen.port must be a whole number from 0 to 65535, not 'http'"),
    ("listen.port=60000", "listen.port 60000 leaves no port 10000 above it: give listen.pub_port too"),
    ("listen.pub_port=13700", "listen.pub_port must be another port than listen.port (13700)"),
    ("security.mode=x", "security.mode must be 'curve' or 'none', not 'x'"),
    ("security.keys=k", "did you mean 'key'?"),
    ("state.sync=never", "state.sync must be 'acks', 'all', 'memory' or 'os', not 'never'"),
    ("state.lost_after=20", "state.lost_after must be at least twice state.timeout (15), not 20"),
    ("state.timeout=2", "state.timeout is wrong: three heartbeats (1 s each) must fit into state.timeout (2 s)"),
    ("heartbeat=10", "heartbeat is wrong: three heartbeats (10 s each) must fit into state.timeout (15 s)"),
    ("heartbeat=0", "heartbeat must be a number above 0"),
    ("state.inline_output=1048577", "state.inline_output must be a whole number from 0 to 1048576, not 1048577"),
    ("logging.level=LOUD", "logging.level must be a whole number from 0 to 50 or 'CRITICAL', 'DEBUG', "),
    ("logging.level=51", "logging.level must be a whole number from 0 to 50 or "),
    ("user=nobody", "user can't be set: start the node as that user instead"),
    ("discover=yes", "discover must be true or false, not 'yes'"),
]


@pytest.mark.parametrize(("pair", "said"), WRONG, ids=[pair for pair, _ in WRONG])
def test_what_is_wrong_is_refused_by_name(pair, said):
    with pytest.raises(ConfigError) as refused:
        config.load([], [pair])
    assert said in str(refused.value)
    assert str(refused.value).startswith(f"argument {pair!r}: ")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "pair",
    [
        "listen.ssl.pass=hush",
        "nodes.b.ssl.pass=7",
        "nodes.b={ssl={pass='hush'}}",
        'listen={"ssl": {"pass": "hush"}}',
        "defaults.ssl={pass='hush'}",
    ],
)
def test_a_password_is_no_argument_and_is_not_repeated(pair):
    with pytest.raises(
        ConfigError, match=r"ssl\.pass can't be an argument, .*configuration file.*chmod 600"
    ) as refused:
        config.load([], [pair])
    assert "hush" not in str(refused.value)


def test_a_password_in_a_file_that_others_may_read_is_warned_of(tmp_path):
    file = tmp_path / "tls.toml"
    file.write_text('[defaults.ssl]\ncert = "c"\nkey = "k"\npass = "hush"\n')
    file.chmod(0o644)
    (warning,) = config.load([file]).warnings
    assert "defaults.ssl.pass" in warning
    assert "chmod 600" in warning
    assert "hush" not in warning
    file.chmod(0o600)
    assert config.load([file]).warnings == ()


def test_a_password_that_can_not_change_now_is_not_repeated():
    before = config.load([], ["listen.ssl.cert=c"])
    with pytest.raises(ConfigError, match=r"listen\.ssl\.pass can't change while the node runs") as refused:
        config.change(before, {"listen": {"ssl": {"pass": "hush"}}})
    assert "hush" not in str(refused.value)
    with pytest.raises(ConfigError, match=r"listen\.ssl can't change while the node runs") as refused:
        config.change(config.load(), {"listen": {"ssl": {"cert": "c", "pass": "hush"}}})
    assert "hush" not in str(refused.value)
    with pytest.raises(ConfigError, match=r"must be a non-empty text, not something else"):
        config.change(before, {"listen": {"ssl": {"pass": 7}}})


@pytest.mark.parametrize("pair", ["x", "=1", ".a=1", "a..b=1", 'a"b=1'])
def test_what_is_no_pair_is_refused(pair):
    with pytest.raises(ConfigError, match="^argument"):
        config.load([], [pair])


def test_an_error_names_the_file_that_has_the_key(tmp_path):
    good, bad = tmp_path / "good.toml", tmp_path / "bad.toml"
    good.write_text("[pools.p]\nslots = 1\n")
    bad.write_text('[pools.p]\ngrace = "long"\n')
    with pytest.raises(ConfigError) as refused:
        config.load([good, bad], ["pools.p.hold=true"])
    assert str(refused.value) == f"{bad}: pools.p.grace must be a number from 0 to 86400, not 'long'"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"name = ", "is no valid TOML: "),
        (b'{"name": ', "is no valid JSON: "),
        (b"[" * 100_000, "is no valid TOML: "),
        (b'{"a":' * 100_000, "is no valid JSON: "),
        (b"\xff\xfe", "is no text in UTF-8"),
    ],
)
def test_a_file_that_cannot_be_parsed(tmp_path, content, said):
    file = tmp_path / "x.cfg"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as refused:
        config.load([file])
    assert str(refused.value).startswith(f"{file} {said}")


def test_a_file_that_is_not_there_or_no_table(tmp_path):
    with pytest.raises(ConfigError, match="can't be read: No such file"):
        config.load([tmp_path / "none.toml"])
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(ConfigError, match=r"must be a table of settings, not \[1\]"):
        config.load([tmp_path / "list.json"])


@pytest.mark.parametrize("address", ["localhost", "127.0.0.1", "127.8.9.1", "::1", "LOCALHOST"])
def test_loopback_needs_no_word_about_security(address):
    assert config.load([], [f"listen.address={address}"]).warnings == ()


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "example.org", "*"])
def test_what_others_reach_is_encrypted_or_refused(address):
    assert config.load([], [f"listen.address={address}"]).warnings == ()
    with pytest.raises(ConfigError) as refused:
        config.load([], [f"listen.address={address}", "security.mode=none"])
    assert f"listen.address '{address}' is not loopback, and with security.mode none anybody" in str(refused.value)
    assert "set security.insecure=true" in str(refused.value)


@pytest.mark.parametrize(("address", "more"), [("localhost", []), ("0.0.0.0", ["security.insecure=true"])])
def test_an_open_node_says_so(address, more):
    found = config.load([], [f"listen.address={address}", "security.mode=none", *more])
    assert found.warnings == (
        f"security.mode is none: whoever reaches {address} may run commands as the user of this node",
    )


def test_files_of_keys_are_paths():
    found = config.load([], ["security.key=~/k", "security.authorized=a"]).security
    assert found.key == str(Path("~/k").expanduser())
    assert found.authorized == str(Path("a").absolute())


def test_free_ports_are_free_for_both_sockets():
    assert config.load([], ["listen.port=0"]).pub_port == 0
    assert config.load([], ["listen.port=0", "listen.pub_port=5"]).pub_port == 5
