"""What a Client refuses before anything is sent, and what it changes of several jobs, or not, at once."""

from __future__ import annotations

import pytest

from meeseeks import InvalidRequest, Job
from tests.support.wait import wait_until


@pytest.mark.parametrize(
    ("spec", "said"), [({"args": {"a", "b"}}, "args"), ({"tags": {"x"}}, "tags"), ({"node": frozenset("a")}, "node")]
)
def test_a_set_has_no_order(either, spec, said):
    """It would travel as a list."""
    for submit in (either.submit, either.submit_job if either.has_cache else either.submit):
        with pytest.raises(InvalidRequest, match=f"^{said} must be"):
            submit(**{"pool": "p", "args": ["true"], "hold": True, **spec})


def test_what_is_no_id(either):
    with pytest.raises(InvalidRequest, match="submit_many takes jobspecs, not None"):
        either.submit_many(None)
    for wrong in (None, 5, [["x"]]):
        with pytest.raises(InvalidRequest, match="wait_for: job ids are strings"):
            either.wait_for(wrong)
    if either.has_cache:
        with pytest.raises(InvalidRequest, match="id must be"):
            either.submit_job(id=["x"], pool="p", args=["true"])
        with pytest.raises(InvalidRequest, match="get_job takes a job id"):
            either.get_job(["x"])


def test_a_change_of_a_job_that_is_not_there_says_so(either):
    for change in ({"state": "killed"}, {"tags": ["x"]}, {"hold": False}):
        with pytest.raises(InvalidRequest, match="^no job has id 'typo', and a new job needs 'pool'$"):
            either.submit(id="typo", **change)


def test_a_tuple_is_as_good_as_a_list_in_a_filter(either, tag):
    (jid,) = either.submit(pool="p", args=["true"], tags=["of", tag])
    either.wait_for(jid, 20)
    assert either.ls(tags=("of", tag)) == [jid]
    if either.has_cache:
        assert either.list_jobs(tags=("of", tag), args=("true",)) == [jid]


def test_several_jobs_are_changed_together_or_not_at_all(either, place):
    nodes = sorted(either.pools()["p"])
    job = Job("sleep", "60", pool="p", node=nodes, client=either)
    first, *rest = job.start()
    wait_until(lambda: set(job.state.values()) == {"running"}, 20)
    either.kill(first)
    either.wait_for(first, 20)
    if rest:
        with pytest.raises(InvalidRequest, match="is active on"):
            job.state = "new"
        assert either.query(first)["state"] == "killed"
        assert either.query(first)["generation"] == 1
    job.tags = ["new"]
    assert set(map(tuple, job.tags.values())) == {("new",)}
    job.kill()
    job.wait(20)
    job.state = "new"
    assert {info["generation"] for info in either.query(job.jid).values()} == {2}
    job.kill()
    job.wait(20)
