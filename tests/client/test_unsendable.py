"""What can't be sent is refused before it is, with the key, the value and what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from meeseeks import Client, InvalidRequest

ENDLESS: list[object] = []
ENDLESS.append(ENDLESS)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (
            {"stdout": Path("/tmp/x")},
            r"submit: stdout must be a path, as a non-empty string, not PosixPath\('/tmp/x'\)",
        ),
        ({"retries": 10**30}, "submit: retries must be a whole number from 0 to 1000000, not 1000000000"),
        ({"args": ["true", "\udcff"]}, r"submit: args\[1\] must be text that UTF-8 has, not '\\udcff'"),
        ({"config": {"env": {"A": "\udcff"}}}, r"submit: config.env.A must be text that UTF-8 has, not '\\udcff'"),
        ({"config": {"cwd": Path("/")}}, r"submit: config.cwd must be a path, as a non-empty string, not PosixPath"),
        (
            {"pool": "__config", "args": {"state": {"dir": Path("/")}}},
            r"args.state.dir must be a text, a number, true, false or null, not PosixPath\('/'\)",
        ),
        ({"args": ENDLESS}, r"submit: args\[0\] must be a string, not"),
    ],
)
def test_a_submit_names_its_key(stub, keys, said):
    with Client("127.0.0.1", stub.port) as client, pytest.raises(InvalidRequest, match=said):
        client.submit(**{"pool": "p", "args": ["true"], **keys})


def test_so_do_other_requests(stub):
    with Client("127.0.0.1", stub.port) as client:
        with pytest.raises(InvalidRequest, match="ls: stdout can't be sent, it is PosixPath"):
            client.ls(stdout=Path("/tmp/x"))
        with pytest.raises(InvalidRequest, match=r"query: \[1\] must be text that UTF-8 has, not '\\udcff'"):
            client.query(["a", "\udcff"])
        with pytest.raises(InvalidRequest, match="query: the text must be text that UTF-8 has"):
            client.query("\udcff")
