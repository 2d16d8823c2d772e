"""What runs a node as a service: its unit, and its log for programs."""

from __future__ import annotations

import configparser
import json
import shutil
import signal
import subprocess

import pytest

from tests.cli.conftest import COMMAND, ROOT, TIMEOUT, environment

UNIT = ROOT / "conf" / "meeseeks.service"


def test_the_unit_lets_jobs_outlive_what_is_no_stop():
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str
    unit.read(UNIT)
    service = unit["Service"]
    assert service["KillMode"] == "process"  # a crash of the node must not end its executor and jobs
    assert "-HUP" in service["ExecReload"]
    assert service["Restart"] == "on-failure"
    assert "PrivateTmp" not in service


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
def test_systemd_takes_the_unit(tmp_path):
    unit = tmp_path / "meeseeks.service"
    unit.write_text(UNIT.read_text().replace("/usr/local/bin/mks", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", unit], capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_log_of_json_has_an_object_a_line(tmp_path):
    words = ["node", "name=50%d", "listen.port=0", "--log-format", "json", f"state.dir={tmp_path}", "refresh=1"]
    with subprocess.Popen(
        [*COMMAND, *words], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as node:
        assert node.stdout.readline().startswith("ready 50%d ")
        node.send_signal(signal.SIGTERM)
        _, log = node.communicate(timeout=TIMEOUT)
    assert node.returncode == 0
    lines = [json.loads(line) for line in log.splitlines()]
    assert {line["node"] for line in lines} == {"50%d"}
    assert lines[0]["level"] == "WARNING"
    assert "refresh does nothing" in lines[0]["message"]
    assert all(isinstance(line["ts"], float) for line in lines)
