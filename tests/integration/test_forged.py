"""Forged records of one who has the mesh's key: they harm the job that they are about, and no other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import msgpack
import pytest

from meeseeks import Client
from meeseeks.errors import InvalidRequest
from tests.support.curve import identity
from tests.support.fuzz import Fuzzer
from tests.support.nodes import NodeProcess, mesh, wait_linked
from tests.support.wait import wait_until

FORGED = (2**47, 2**48 - 1, 2**48, 2**48 + 1, 2**53, 2**53 + 1, 2**64 - 1, -1)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[NodeProcess]]:
    with mesh(tmp_path_factory.mktemp("forged"), 2) as nodes:
        yield nodes


def record(jid: str, spec: dict[str, Any], **status: Any) -> dict[str, Any]:
    """A held job of node a, unassigned, with these fields forged."""
    asked = {"id": jid, "pool": "p", "args": ["true"], "hold": True, "submit_node": "a", "writer": "forger", **spec}
    return {"spec": asked, "status": {"epoch": [0, "a"], **status}}


def tell(forger: Fuzzer, seq: int, *records: dict[str, Any], beats: tuple[dict[str, Any], ...] = ()) -> None:
    update = {"node": "forger", "incarnation": identity("1")["incarnation"], "topic": "own", "prev": seq - 1}
    forger._pub.send_multipart([b"own", msgpack.packb({**update, "seq": seq, "records": records, "beats": beats})])


def forgeries(number: int) -> list[dict[str, Any]]:
    fields = ("lamport", "generation", "adoptions", "killed_generation")
    found = [record(f"{field}-{number}", {field: number}) for field in fields]
    found.append(record(f"lost-{number}", {"lost": [number, [number, "a"], number]}))
    found += [record(f"{field}-{number}", {}, **{field: number}) for field in ("rev", "start_count", "fail_count")]
    found.append(record(f"epoch-{number}", {"hold": False}, epoch=[number, "a"]))
    return found


@pytest.mark.parametrize("number", FORGED)
def test_what_others_change_goes_on_through_the_mesh(pair: list[NodeProcess], number: int) -> None:
    a, b = pair
    jid = f"honest-{number}"

    def reads(client: Client, jid: str, **wanted: object) -> bool:
        return wanted.items() <= (client.query(jid) or {}).items()

    with closing(Fuzzer(a, 1)) as forger, a.client() as at_a, b.client() as at_b:
        at_b.submit(id=f"early-{jid}", pool="p", args=["true"], hold=True)
        wait_until(lambda: at_a.query(f"early-{jid}"), 20)
        forger._meet()
        beat = {"node": "forger", "incarnation": identity("1")["incarnation"], "number": number % 2**32 + 1}
        tell(forger, 1, *forgeries(number), record(f"good-{jid}", {}), beats=({"node": 3}, beat))
        wait_until(lambda: at_a.query(f"good-{jid}"), 20, a.report)
        wait_until(lambda: at_b.query(f"good-{jid}"), 20, b.report)
        at_a.submit(id=jid, pool="p", args=["true"])
        at_a.submit(id=f"early-{jid}", tags=["changed"])
        wait_until(lambda: reads(at_b, jid, state="done"), 20, b.report)
        wait_until(lambda: reads(at_b, f"early-{jid}", tags=["changed"]), 20, b.report)
        at_b.submit(id=f"early-{jid}", tags=["again"])
        wait_until(lambda: reads(at_a, f"early-{jid}", tags=["again"]), 20, a.report)
        at_b.submit(id=f"by-b-{jid}", pool="p", args=["true"], node="a")
        wait_until(lambda: reads(at_a, f"by-b-{jid}", state="done"), 20, a.report)
    assert a.stderr.count("dropped what") <= 3


def test_the_forged_jobs_can_be_killed_and_the_others_outlive_a_restart(pair: list[NodeProcess]) -> None:
    a, b = pair
    with closing(Fuzzer(a, 2)) as forger, a.client() as client:
        client.submit(id="honest", pool="p", args=["true"])
        forger._meet()
        tell(forger, 1, *forgeries(2**48), *forgeries(2**48 + 1), record("last", {}))
        wait_until(lambda: client.query("last"), 20, a.report)
        forged = [jid for jid in client.ls() if jid.startswith("lamport-")]
        assert f"lamport-{2**48}" in forged
        assert f"lamport-{2**48 + 1}" not in forged
        with pytest.raises(InvalidRequest, match="its counters were forged"):
            client.submit(id=f"lamport-{2**48}", tags=["x"])
        client.kill(forged)
        honest = {jid for jid in client.ls() if "honest" in jid}
    with b.client() as client:
        wait_until(lambda: {client.query(jid)["state"] for jid in forged} == {"killed"}, 20)
    a.stop()
    a.restart()
    wait_linked([a, b])
    assert "is damaged" not in a.stderr
    with a.client() as client:
        assert honest <= set(client.ls())
