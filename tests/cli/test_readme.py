"""Every command of the README is run, in its order; those that set up an environment by `.ci/run`."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import COMMAND, ROOT, environment
from tests.support.ports import free_ports

README = ROOT / "README.md"
SET_UP = [
    "python3 -m venv .venv && .venv/bin/pip install -q . && .venv/bin/mks demo",
    "python3 -m venv .venv && .venv/bin/pip install -q '.[dev]' && .venv/bin/python -m pytest -q -n 6",
]

pytestmark = pytest.mark.skipif(not README.exists(), reason="the README is in a checkout only")

# `mks` for the README's session: as installed, but each node on free ports, in a folder of the test.
SHIM = """#!/bin/sh
case "$1 $2" in
"node name=a") shift; exec {mks} node listen.port={a} listen.pub_port={a_pub} state.dir={folder}/a "$@" ;;
"node name=b") exec {mks} node name=b listen.port={b} listen.pub_port={b_pub} state.dir={folder}/b pools.p.slots=2 \\
    --join localhost:{a} ;;
*) MEESEEKS_CONF=port={a} exec {mks} "$@" ;;
esac
"""


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)


def script_of(commands):
    """Commands as a script: after a node is started, wait until it is seen, as its user waits for its ready line."""
    lines = []
    for line in commands:
        lines.append(line)
        node = re.match(r".*mks node name=(\w+) .*&", line)
        if node:
            lines.append(f"until mks nodes 2>/dev/null | grep -q '^{node[1]}\tonline'; do sleep 0.1; done")
    return "\n".join(["set -e", "trap 'kill $(jobs -p); wait' EXIT", *lines])


# `ssh HOST` and `scp`: a machine is a folder, in which its home, state and keys are.
SSH = """#!/bin/sh
host=$1; shift
mkdir -p {folder}/$host && cd {folder}/$host && HOME={folder}/$host exec sh -c "exec $*"
"""
SCP = """#!/bin/sh
[ "$1" = -q ] && shift
host=${{2%%:*}}
mkdir -p {folder}/$host && exec cp -p "$1" {folder}/$host/${{2#*:}}
"""
# `mks` on these machines: what is a host there is a port here.
REMOTE = """#!/bin/sh
case "$*" in
"node name=head "*) shift; exec {mks} node "$@" listen.address=127.0.0.1 listen.port={port} \\
    listen.pub_port={pub_port} state.dir=state ;;
"node "*" --join head") shift; for last; do :; done
    exec {mks} node "$1" "$3" "$4" listen.port=0 listen.pub_port=0 state.dir=state --join localhost:{port} ;;
"--address head "*) shift 2; exec {mks} --address localhost:{port} "$@" ;;
nodes) MEESEEKS_KEY=mesh.key exec {mks} --address localhost:{port} nodes ;;
*) exec {mks} "$@" ;;
esac
"""


def test_the_readme_is_short_and_has_the_commands_that_set_up():
    assert len(README.read_text().splitlines()) < 200
    found = [block.strip() for block in blocks("sh")]
    assert [block for block in found if "venv" in block] == SET_UP
    assert len(found) == 3
    assert len(blocks("console")) == len(blocks("python")) == 1


@pytest.fixture
def place(tmp_path):
    """A folder with `mks` in it, and its environment."""
    a, b, a_pub, b_pub = free_ports(4)
    shim = tmp_path / "mks"
    shim.write_text(SHIM.format(mks=shlex.join(COMMAND), a=a, b=b, a_pub=a_pub, b_pub=b_pub, folder=tmp_path))
    shim.chmod(0o755)
    return {**environment(), "PATH": f"{tmp_path}:{os.environ['PATH']}", "PORT": str(a)}, tmp_path


def play(place, script):
    env, folder = place
    done = subprocess.run(
        ["bash", "-c", script], env=env, cwd=folder, capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_session_is_what_happens(place):
    (session,) = blocks("console")
    lines = session.splitlines()
    assert len(lines) <= 15
    said = play(place, script_of([line.removeprefix("$ ") for line in lines if line.startswith("$ ")])).splitlines()
    shown = [line for line in lines if not line.startswith("$ ")]
    assert [line for line in said if line in shown] == shown
    assert sum(line.startswith("stdout_data\t") and "load average" in line for line in said) == 2


def test_three_machines_are_a_mesh_in_five_commands(tmp_path):
    (deploy,) = [block for block in blocks("sh") if block.strip() not in SET_UP]
    commands = deploy.splitlines()
    assert len(commands) == 5
    port, pub_port = free_ports(2)
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    values = {"mks": shlex.join(COMMAND), "folder": tmp_path, "port": port, "pub_port": pub_port}
    for name, text in {"ssh": SSH, "scp": SCP, "mks": REMOTE}.items():
        (bin_folder / name).write_text(text.format(**values))
        (bin_folder / name).chmod(0o755)
    env = {**environment(), "PATH": f"{bin_folder}:{os.environ['PATH']}"}
    (said,) = re.findall(r"`(MEESEEKS_KEY=mesh.key mks --address head nodes)`", README.read_text())
    online = play((env, tmp_path), script_of([*commands, said]))
    assert re.findall(r"^(\w+)\tonline", online, re.MULTILINE) == ["head", "n1", "n2"]
    assert {path.name for path in tmp_path.iterdir()} == {"bin", "head", "n1", "n2", "mesh.key"}


def test_the_python_example_does_what_it_says(place):
    (example,) = blocks("python")
    program = Path(place[1], "example.py")
    program.write_text(example.replace("Client(", f"Client(port={place[0]['PORT']}, "))
    node = script_of(["mks node name=a pools.p.slots=2 &"])
    said = play(place, f"{node}\n{shlex.quote(sys.executable)} {program}")
    assert re.search(r"^\S+ failed 3$", said, re.MULTILINE)
    assert "1 job, started 2 times" in said


def test_every_command_and_option_of_the_readme_is_there():
    from meeseeks.cli.jobspec import _OPTIONS
    from meeseeks.cli.main import _COMMANDS

    text = README.read_text()
    named = set(re.findall(r"`mks (\w+)", text))
    assert named == set(_COMMANDS)
    options = re.search(r"for each key of a job: `([^`]*)`", text)
    assert options
    import click

    @click.command()
    def sample(**_: object) -> None: ...

    for option in _OPTIONS:
        option(sample)
    known = {name for param in sample.params for name in param.opts}
    assert set(options[1].split()) == known - {"--no-cwd"}
