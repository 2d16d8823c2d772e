from __future__ import annotations

import pytest

from meeseeks import InvalidRequest
from meeseeks.cli import views, words
from meeseeks.cli.output import clean


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("90", 90), ("90s", 90), ("5m", 300), ("2h", 7200), ("1h30m", 5400), ("1.5m", 90), ("1d", 86400), ("0.25", 0.25)],
)
def test_a_time_is_seconds_or_has_units(text, wanted):
    assert words.seconds(text) == wanted


@pytest.mark.parametrize("text", ["", "0", "x", "5x", "m5", "-1", "1h-", "1e3", "5 minutes"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(InvalidRequest, match="is no time"):
        words.seconds(text)


def test_words_are_ids_or_filters():
    assert words.selection(["a", "b", "a"]) == (["a", "b"], {})
    assert words.selection(["tag=x", "node=b*"]) == ([], {"tag": "x", "node": "b*"})
    assert words.selection(["job-*"]) == ([], {"id": "job-*"})
    assert words.selection(["error=a=b"]) == ([], {"error": "a=b"})
    assert words.selection([]) == ([], {})
    for word in ("state=run*", "state=*", "active=True", "rc=none", "rc=-9", "fail_count=1", "pool=0", "stdin=none"):
        assert words.selection([word]).filters == {word.partition("=")[0]: word.partition("=")[2]}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["a", "tag=x"], "not both"),
        (["a", "b*"], "not both"),
        (["tag=x", "tag=y"], "given twice"),
        (["=x"], "no filter"),
        (["tag="], "has no value"),
        (["state=runing"], "no job has state=runing: allowed are new, running, done, failed, killed"),
        (["state=x*"], "no job has"),
        (["active=yes"], "true and false"),
        (["hold=*"], "true and false"),
        (["rc=0*"], "a number and none"),
        (["retries=some"], "a number and none"),
        (["tags=x"], "'tags' is no filter; 'tag=x' matches"),
        (["args=true"], "'args' is no filter; .* use 'tag='"),
        (["config=x*"], "'config' is no filter; .* use 'tag='"),
    ],
)
def test_other_words_are_refused(given, said):
    with pytest.raises(InvalidRequest, match=said):
        words.selection(given)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("p", ("p", None)),
        ("p@b", ("p", "b")),
        ("p@*", ("p", "*")),
        ("p@a,b*", ("p", ["a", "b*"])),
        ("p@b@c", ("p", "b@c")),
    ],
)
def test_a_target_is_a_pool_and_perhaps_nodes(text, wanted):
    assert words.target(text) == wanted


@pytest.mark.parametrize("text", ["", "@", "p@", "@b"])
def test_what_is_no_target_is_refused(text):
    with pytest.raises(InvalidRequest, match="POOL"):
        words.target(text)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("hold=false", ("hold", False)),
        ("retries=3", ("retries", 3)),
        ("runtime=5m", ("runtime", 300)),
        ("tags=a,b", ("tags", ["a", "b"])),
        ("tags=", ("tags", None)),
        ("node=a,b", ("node", ["a", "b"])),
        ("node=a", ("node", "a")),
        ("state=new", ("state", "new")),
        ("args=echo 'a b'", ("args", ["echo", "a b"])),
        ('config={"cwd": "/"}', ("config", {"cwd": "/"})),
        ("unknown=1", ("unknown", "1")),
    ],
)
def test_a_change_has_the_type_of_its_key(text, wanted):
    assert words.job_change(text) == wanted


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hold=maybe", "hold: 'maybe' is neither true nor false"),
        ("retries=many", "retries: 'many' is no whole number"),
        ("runtime=x", "runtime: 'x' is no time: give seconds, or"),
        ("args='", "args: .* is no command line as a shell has it"),
        ("config={bad", "config: '{bad' is no JSON"),
        ("=1", "NAME=VALUE"),
        ("hold", "NAME=VALUE"),
    ],
)
def test_a_change_that_can_not_be_is_refused_with_its_key(text, said):
    with pytest.raises(InvalidRequest, match=f"^{said}" if said[0].islower() else said):
        words.job_change(text)


@pytest.mark.parametrize(
    ("elapsed", "wanted"),
    [
        (None, "-"),
        (-1, "0.0s"),
        (0.31, "0.3s"),
        (45, "45s"),
        (59.7, "1m00s"),
        (185, "3m05s"),
        (7800, "2h10m"),
        (367200, "4d06h"),
    ],
)
def test_a_duration_is_short(elapsed, wanted):
    assert views.duration(elapsed) == wanted


def test_no_more_run_in_a_pool_than_it_has_slots():
    pools = {"p": {"running": 4, "slots": 2, "hold": False, "drain": False}}
    pools["u"] = {**pools["p"], "slots": 0}
    status = {"state": "online", "online": True, "address": "h", "port": 1, "loadavg": 0.0, "version": "1"}
    assert views.nodes({"a": {**status, "pools": pools}}).rows[0][-1] == "p:2/2 u:4/unlimited"


def test_text_of_others_stays_on_its_line():
    assert clean("a\tb\nc\x1b[2Jd é") == "a\\tb\\nc\\x1b[2Jd é"
