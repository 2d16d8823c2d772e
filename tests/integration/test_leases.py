"""A leased job and a node whose process is frozen: its executor keeps the lease by itself, on real nodes."""

from __future__ import annotations

from pathlib import Path

from meeseeks import Client
from tests.chaos.marks import SCRIPT, Marks, Run
from tests.support.nodes import mesh
from tests.support.wait import wait_until

CONFIG: dict[str, object] = {"state.timeout": 1.5, "state.lost_after": 8, "pools.p.slots": 4}
OWN: dict[str, dict[str, object]] = {"a": {"pools.p.slots": None}, "c": {"pools.p.drain": True}}


def run_of(marks: Marks, job: str, number: int) -> Run:
    return wait_until(lambda: marks.of(job)[number - 1 : number], 40, f"run {number} of {job}")[0]


def is_over(client: Client, job: str) -> bool:
    info = client.query(job)
    return info["state"] == "killed" and not info["active"]


def test_the_executor_of_a_frozen_node_keeps_its_leases(tmp_path: Path) -> None:
    script = tmp_path / "job.sh"
    script.write_text(SCRIPT)
    jobs = {"retried": {"retries": 1}, "resubmitted": {"resubmit": True}}
    with (
        mesh(tmp_path, 3, per_node=OWN, **CONFIG) as (a, b, c),
        Marks(tmp_path / "marks") as marks,
        a.client() as client,
    ):
        for job, asked in jobs.items():
            args = ["sh", str(script), job, str(marks.path), "1000", "0", "0"]
            client.submit(id=job, pool="p", args=args, **asked)
        client.submit(id="plain", pool="p", args=["sleep", "1000"])
        first = [run_of(marks, job, 1) for job in jobs]
        wait_until(lambda: client.query("plain")["state"] == "running", 20)
        with c.client() as admin:
            admin.request({"config": {"pools": {"p": {"drain": False}}}})
        wait_until(lambda: "c" in client.pools()["p"], 20, "room at c")
        b.freeze()
        try:
            wait_until(lambda: all(run.dead_at for run in first), 30, "an end of the leases")
            assert {run.node for run in first} == {"b"}, "nobody was there to end them but its executor"
            second = [run_of(marks, job, 2) for job in jobs]
            assert {run.node for run in second} == {"c"}
            for before, after in zip(first, second, strict=True):
                assert before.dead_at is not None
                assert before.dead_at < after.started_at
            info = client.query("plain")  # without a lease it runs on, and reads as lost
            assert wait_until(lambda: client.query("plain")["error"] == "node b lost", 20), info
        finally:
            b.thaw()
        wait_until(lambda: client.query("plain")["state"] == "running", 20, "the refutation")
        wait_until(lambda: client.nodes()["b"]["online"], 20)
        assert [client.query(job)["start_count"] for job in jobs] == [2, 2]
        assert [len(marks.of(job)) for job in jobs] == [2, 2]
        client.kill([*jobs, "plain"])
        wait_until(lambda: all(is_over(client, job) for job in (*jobs, "plain")), 30)
        assert not marks.overlaps
