"""A process that forks while it has a Client, as multiprocessing does: the child has no thread of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import meeseeks
from tests.support.nodes import mesh

PROGRAM = """
import gc, json, multiprocessing, os, queue, sys, time
from meeseeks import Client, Job, MeeseeksError

host, port = "127.0.0.1", int(sys.argv[1])
cached = Client(host, port, refresh=1, set_global=True)
asking = Client(host, port)
job = Job("sleep", "60", pool="p")
job.start()
ended = Job("true", pool="p")
ended.start()
ended.wait(30)
CALLS = {
    "submit_job": lambda: cached.submit_job(pool="p", args=["true"]),
    "kill_jobs": lambda: cached.kill_jobs(job.jid),
    "list_jobs": cached.list_jobs, "get": cached.get, "get_nodes": cached.get_nodes, "get_pools": cached.get_pools,
    "wait": cached.wait, "wait_for": lambda: cached.wait_for(job.jid), "get_job": lambda: cached.get_job(job.jid),
    "submit": lambda: asking.submit(pool="p", args=["true"]), "ls": asking.ls,
    "submit_many": lambda: asking.submit_many([{"pool": "p", "args": ["true"]}]),
    "is_alive": job.is_alive, "poll": job.poll,
}


def said(call):
    try:
        return repr(call())
    except MeeseeksError as error:
        return f"{type(error).__name__}: {error}"


def child(pipe):
    began = time.monotonic()
    told = {"calls": {name: said(call) for name, call in CALLS.items()}}
    told["ended"] = said(lambda: ended.rc)
    with cached:
        cached.close()
    asking.close()
    told["closed"], told["connected"] = cached.closed, cached.connected
    told["quick"] = time.monotonic() - began < 5
    notified = queue.Queue()
    new = Job("true", pool="p", notify=notified.put)
    new.start()
    told["new"] = new.wait(30)["state"]
    told["notified"] = notified.get(timeout=30).jid == new.jid
    told["own client"] = new.client is not cached and new.client is Job("true", pool="p").client
    new.client.close()
    gc.collect()
    pipe.send((new.jid, told))


def brief(jid):
    Client(host, port, refresh=1).submit_job(id=jid, pool="p", args=["true"])


parent, end = multiprocessing.Pipe()
forked = multiprocessing.get_context("fork").Process(target=child, args=(end,))
notified = queue.Queue()
last = Job("true", pool="p", hold=True, notify=notified.put)
last.start()
forked.start()
assert parent.poll(45), "the child says nothing"
jid, told = parent.recv()
forked.join()
told.update({"exit code": forked.exitcode, "pid": os.getpid()})
leaving = multiprocessing.get_context("fork").Process(target=brief, args=("brief",))
leaving.start()
leaving.join()
told["brief"] = (cached.wait_for("brief", 30)["brief"] or {}).get("state")
# The child has taken nothing of the parent's.
told["parent"] = cached.wait_for(jid, 30)[jid]["state"]
last.hold = False
told["parent notified"] = notified.get(timeout=30).jid == last.jid
told["parent asks"] = jid in asking.ls()
job.kill()
cached.close()
asking.close()
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory) -> dict:
    """What the parent and its child have seen."""
    root = str(Path(meeseeks.__file__).parent.parent)
    with mesh(tmp_path_factory.mktemp("fork"), 1, **{"pools.p.slots": 4}) as (node,):
        ran = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(node.port)],
            capture_output=True,
            text=True,
            timeout=55,
            env={**os.environ, "PYTHONPATH": root},
        )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def test_a_client_says_in_a_forked_child_that_it_is_of_no_use_there(told):
    sentence = f"ClientClosed: this Client was made in process {told['pid']}: make a new one after a fork"
    assert {name: said for name, said in told["calls"].items() if said != sentence} == {}
    assert (told["closed"], told["connected"]) == (True, False)
    assert told["quick"]
    assert told["ended"] == "0"


def test_a_job_in_a_forked_child_gets_a_global_client_of_its_own(told):
    assert told["own client"]
    assert told["new"] == "done"
    assert told["notified"]


def test_what_a_forked_child_submitted_last_is_delivered_although_it_closes_nothing(told):
    assert told["brief"] == "done"


def test_the_parent_of_a_forked_child_notices_nothing(told):
    assert told["exit code"] == 0
    assert (told["parent"], told["parent notified"], told["parent asks"]) == ("done", True, True)
