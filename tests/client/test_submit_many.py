"""More jobspecs than one request takes: each request is carried out as a whole, and what that means for all is told."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from meeseeks import Client, InvalidRequest, RequestFailed


def asked(stub):
    peer, request = stub.receive()
    return peer, request, [spec["id"] for spec in request.request["submit_many"]]


def answer(stub, peer, request, ids):
    stub.answer(peer, request, {jid: {"id": jid} for jid in ids})


@pytest.fixture
def sending(stub):
    """`sending(4500)` is the future of a submit of so many jobspecs."""
    with Client("127.0.0.1", stub.port) as client, ThreadPoolExecutor(1) as pool:
        yield lambda count, **keys: pool.submit(client.submit_many, [{"id": f"j{i}", **keys} for i in range(count)])


def test_a_request_has_as_many_as_a_node_takes(stub, sending):
    future = sending(4500, hold=False)
    for count in (2000, 2000, 500):
        peer, request, ids = asked(stub)
        assert len(ids) == count
        answer(stub, peer, request, ids)
    assert list(future.result()) == [f"j{i}" for i in range(4500)]


def test_large_ones_are_sent_in_parts_that_fit_into_a_message(stub, sending):
    future = sending(80, pool="p", args=["true", "x" * 1_000_000])
    counts = []
    while sum(counts) < 80:
        peer, request, ids = asked(stub)
        counts.append(len(ids))
        answer(stub, peer, request, ids)
    assert len(future.result()) == 80
    assert max(counts) < 40


def test_all_refused_is_a_refusal(stub, sending):
    future = sending(2500, hold=False)
    for _ in range(2):
        peer, request, _ids = asked(stub)
        stub.refuse(peer, request, "invalid_request", "no")
    with pytest.raises(InvalidRequest, match=r"^no$"):
        future.result()


@pytest.mark.parametrize("refused", [0, 1])
def test_where_a_part_is_refused_it_is_told_how_many_are_carried_out(stub, sending, refused):
    future = sending(4500, hold=False)
    for at in range(2 if refused == 0 else 3):
        peer, request, ids = asked(stub)
        if at == refused:
            stub.refuse(peer, request, "invalid_request", "no")
        else:
            answer(stub, peer, request, ids)
    left = "j0 to j1999, j4000 to j4499" if refused == 0 else "j2000 to j3999"
    done = 2000 if refused == 0 else 2500
    with pytest.raises(RequestFailed, match=f"^no; of 4500 jobs {done} are submitted or changed, and not {left}$"):
        future.result()
