"""Requests and their ends, against a ROUTER that answers as the test wants it."""

from __future__ import annotations

import contextlib
import gc
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from meeseeks import (
    AuthenticationFailed,
    Client,
    ClientClosed,
    InvalidRequest,
    NodeUnreachable,
    ProtocolError,
    RequestFailed,
    RequestTimeout,
)
from meeseeks.wire.messages import Reply
from tests.support.wait import wait_until


def test_an_answer_goes_to_the_caller_whose_request_it_is(stub):
    with Client("127.0.0.1", stub.port) as client, ThreadPoolExecutor(2) as pool:
        first, second = pool.submit(client.query, "x"), pool.submit(client.ls, pool="p")
        asked = [stub.receive(), stub.receive()]
        for peer, request in reversed(asked):
            result = {"id": "x"} if "query" in request.request else ["y"]
            stub.answer(peer, request, result)
        assert first.result() == {"id": "x"}
        assert second.result() == ["y"]


def test_what_methods_send(stub):
    cases = [
        (lambda c: c.query(["a", "b"]), {"query": ["a", "b"]}),
        (lambda c: c.query(tag="t", state="new"), {"query": {"tag": "t", "state": "new"}}),
        (lambda c: c.kill("a"), {"kill": "a"}),
        (lambda c: c.kill(node="n*"), {"kill": {"node": "n*"}}),
        (lambda c: c.ls(), {"ls": {}}),
        (lambda c: c.nodes(), {"nodes": {}}),
        (lambda c: c.pools(), {"pools": {}}),
        (lambda c: c.submit(id="j", pool="p", args=["true"]), {"submit": {"id": "j", "pool": "p", "args": ["true"]}}),
    ]
    with Client("127.0.0.1", stub.port) as client, ThreadPoolExecutor(1) as pool:
        for call, wanted in cases:
            future = pool.submit(call, client)
            peer, request = stub.receive()
            stub.answer(peer, request, {})
            future.result()
            assert request.request == wanted


def test_a_raw_request_returns_its_result_under_its_type(stub):
    with Client("127.0.0.1", stub.port) as client, ThreadPoolExecutor(1) as pool:
        future = pool.submit(client.request, {"config": {}})
        peer, request = stub.receive()
        stub.answer(peer, request, {"name": "stub"})
        assert future.result() == {"config": {"name": "stub"}}


def test_a_new_job_gets_its_id_from_the_client_and_no_rerun(stub):
    with Client("127.0.0.1", stub.port) as client, ThreadPoolExecutor(1) as pool:
        future = pool.submit(client.submit, pool="p", args=["true"], state="new")
        peer, request = stub.receive()
        stub.answer(peer, request, {})
        future.result()
        spec = request.request["submit"]
        assert len(spec["id"]) == 32
        assert "state" not in spec


@pytest.mark.parametrize(
    ("code", "kind"),
    [("invalid_request", InvalidRequest), ("request_failed", RequestFailed), ("of_a_later_version", RequestFailed)],
)
def test_an_error_reply_is_raised_as_what_it_is(stub, code, kind):
    with Client("127.0.0.1", stub.port) as client, ThreadPoolExecutor(1) as pool:
        future = pool.submit(client.query, "x")
        peer, request = stub.receive()
        stub.refuse(peer, request, code, "for this reason")
        with pytest.raises(kind, match="for this reason"):
            future.result()


def test_an_answer_to_something_else_is_a_protocol_error(stub):
    with Client("127.0.0.1", stub.port) as client, ThreadPoolExecutor(1) as pool:
        future = pool.submit(client.query, "x")
        peer, request = stub.receive()
        stub.reply(peer, Reply(id=request.id, node="stub", response={"ls": []}))
        with pytest.raises(ProtocolError):
            future.result()


def test_nobody_there_is_told_with_address_and_reason_by_the_deadline(free_port):
    port = free_port()
    with Client("127.0.0.1", port, timeout=0.3) as client:
        began = time.monotonic()
        with pytest.raises(NodeUnreachable) as caught:
            client.nodes()
        assert time.monotonic() - began < 3
    text = str(caught.value)
    assert f"127.0.0.1:{port}" in text
    assert "refused" in text
    assert isinstance(caught.value, ConnectionError)


def test_a_name_without_an_address_is_told():
    with Client("no-such-host.invalid", timeout=0.3) as client, pytest.raises(NodeUnreachable) as caught:
        client.nodes()
    assert "no-such-host.invalid:13700" in str(caught.value)


def test_a_silent_node_is_told_by_its_name_address_and_request(stub):
    with Client("127.0.0.1", stub.port, timeout=20) as client, ThreadPoolExecutor(1) as pool:
        future = pool.submit(client.ls)
        peer, request = stub.receive()
        stub.answer(peer, request, [])
        assert future.result() == []
        client._channel.timeout = 0.5
        with pytest.raises(RequestTimeout) as caught:
            client.query("x")
        assert str(caught.value) == f"node stub at 127.0.0.1:{stub.port} did not answer 'query' within 0.5 s"
        late = stub.receive()
        stub.answer(*late, {"id": "late"})
        client._channel.timeout = 20
        future = pool.submit(client.query, "y")
        peer, request = stub.receive()
        stub.answer(peer, request, False)
        assert future.result() is False


def test_a_port_that_accepts_and_says_nothing_is_told():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        with Client("127.0.0.1", listener.getsockname()[1], timeout=0.5) as client:
            with pytest.raises(NodeUnreachable) as caught:
                client.nodes()
    assert "nobody speaks" in str(caught.value)


def test_a_port_that_speaks_something_else_is_told_at_once():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        stop = threading.Event()

        def serve() -> None:
            listener.settimeout(0.1)
            while not stop.is_set():
                try:
                    peer, _ = listener.accept()
                except TimeoutError:
                    continue
                with peer:
                    peer.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n" * 10)
                    peer.settimeout(1)
                    with contextlib.suppress(OSError):
                        peer.recv(1000)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            with Client("127.0.0.1", listener.getsockname()[1], timeout=10) as client:
                began = time.monotonic()
                with pytest.raises((AuthenticationFailed, NodeUnreachable)):
                    client.nodes()
                assert time.monotonic() - began < 5
        finally:
            stop.set()
            thread.join()


def test_a_question_outlives_the_restart_of_its_node(stub):
    with Client("127.0.0.1", stub.port, timeout=20) as client, ThreadPoolExecutor(1) as pool:
        future = pool.submit(client.query, "x")
        stub.receive()
        stub.close()
        stub.open()
        peer, request = stub.receive()
        stub.answer(peer, request, {"id": "x"})
        assert future.result() == {"id": "x"}


def test_a_submit_is_sent_again_to_its_own_node_with_the_same_id(stub):
    with Client("127.0.0.1", stub.port, timeout=20) as client, ThreadPoolExecutor(1) as pool:
        future = pool.submit(client.submit, pool="p", args=["true"])
        _, first = stub.receive()
        stub.close()
        stub.open()
        peer, second = stub.receive()
        stub.answer(peer, second, {})
        future.result()
        assert first.request == second.request


def test_a_question_to_a_node_that_is_gone_is_told_as_that(stub):
    """Nothing came of it: that it was sent is of no use to anybody."""
    with Client("127.0.0.1", stub.port, timeout=1) as client, ThreadPoolExecutor(1) as pool:
        future = pool.submit(client.query, "x")
        stub.receive()
        stub.close()
        with pytest.raises(NodeUnreachable, match="is it running") as caught:
            future.result()
        assert "carried out" not in str(caught.value)


def test_a_rerun_is_not_sent_twice(stub):
    with Client("127.0.0.1", stub.port, timeout=20) as client, ThreadPoolExecutor(1) as pool:
        future = pool.submit(client.submit, id="j", state="new")
        stub.receive()
        stub.close()
        with pytest.raises(RequestTimeout, match="may have been carried out"):
            future.result()
        stub.open()
        assert stub.is_quiet(0.5)


def test_the_next_address_is_used_when_one_refuses(stub, free_port):
    addresses = [f"127.0.0.1:{free_port()}", f"127.0.0.1:{stub.port}"]
    with Client(addresses, timeout=20) as client, ThreadPoolExecutor(1) as pool:
        future = pool.submit(client.ls)
        stub.answer(*stub.receive(), [])
        assert future.result() == []


def test_all_refused_addresses_are_told(free_port):
    ports = free_port(), free_port()
    with Client([f"127.0.0.1:{port}" for port in ports], timeout=1) as client:
        with pytest.raises(NodeUnreachable) as caught:
            client.ls()
    assert all(str(port) in str(caught.value) for port in ports)


def test_a_question_moves_on_with_the_client_and_a_submit_does_not(stub, other_stub):
    addresses = [f"127.0.0.1:{stub.port}", f"127.0.0.1:{other_stub.port}"]
    with Client(addresses, timeout=4) as client, ThreadPoolExecutor(2) as pool:
        question = pool.submit(client.query, "x")
        stub.receive()
        submit = pool.submit(client.submit, pool="p", args=["true"])
        stub.receive()
        stub.close()
        peer, request = other_stub.receive()
        assert request.request == {"query": "x"}
        other_stub.answer(peer, request, False)
        assert question.result() is False
        with pytest.raises(RequestTimeout) as caught:
            submit.result()
        assert str(stub.port) in str(caught.value)
        assert other_stub.is_quiet(0.1)


def test_a_silent_node_is_left_in_time_to_ask_the_next_one(stub, other_stub):
    addresses = [f"127.0.0.1:{stub.port}", f"127.0.0.1:{other_stub.port}"]
    with Client(addresses, timeout=12) as client, ThreadPoolExecutor(2) as pool:
        question, submit = pool.submit(client.query, "x"), pool.submit(client.submit, pool="p", args=["true"])
        stub.receive(), stub.receive()
        began = time.monotonic()
        peer, request = other_stub.receive(12)
        assert time.monotonic() - began < 11
        assert request.request == {"query": "x"}
        other_stub.answer(peer, request, False)
        assert question.result() is False
        with pytest.raises(RequestTimeout, match=f"{stub.port} went away .* may have been carried out"):
            submit.result()
        assert other_stub.is_quiet(0.1)


def test_a_slow_node_that_still_speaks_is_not_left(stub, other_stub):
    addresses = [f"127.0.0.1:{stub.port}", f"127.0.0.1:{other_stub.port}"]
    with Client(addresses, timeout=6) as client, ThreadPoolExecutor(1) as pool:
        slow = client._channel.post("query", "slow", timeout=30)
        stub_asked = stub.receive()
        began = time.monotonic()
        while time.monotonic() - began < 4:
            future = pool.submit(client.query, "x")
            stub.answer(*stub.receive(), False)
            assert future.result() is False
            assert other_stub.is_quiet(0.2)
        stub.answer(*stub_asked, {"id": "slow"})
        assert client._channel.wait(slow) == {"id": "slow"}


def test_a_change_may_go_to_the_next_node(stub, other_stub):
    addresses = [f"127.0.0.1:{stub.port}", f"127.0.0.1:{other_stub.port}"]
    with Client(addresses, timeout=10) as client, ThreadPoolExecutor(1) as pool:
        change = pool.submit(client.submit, id="j", tags=["x"])
        stub.receive()
        stub.close()
        peer, request = other_stub.receive()
        assert request.request == {"submit": {"id": "j", "tags": ["x"]}}
        other_stub.answer(peer, request, {"j": {}})
        assert change.result() == {"j": {}}


def test_a_wait_ends_by_its_own_deadline_although_the_node_is_silent(stub):
    with Client("127.0.0.1", stub.port, timeout=20) as client:
        began = time.monotonic()
        with pytest.raises(RequestTimeout, match=f"0 of 1 jobs were over in time; .*127.0.0.1:{stub.port} did not"):
            client.wait_for("x", 0.3)
        assert time.monotonic() - began < 5


def test_too_large_a_request_is_refused_before_it_is_sent(stub):
    with Client("127.0.0.1", stub.port) as client:
        with pytest.raises(InvalidRequest, match="bytes"):
            client.request({"query": ["x" * 70_000_000]})
        with pytest.raises(InvalidRequest):
            client.request({"query": object()})
        assert stub.is_quiet(0.1)


def test_a_closed_client_says_so(stub):
    client = Client("127.0.0.1", stub.port)
    client.close()
    client.close()
    assert client.closed
    with pytest.raises(ClientClosed, match="closed"):
        client.ls()


def test_closing_ends_those_who_wait(stub):
    client = Client("127.0.0.1", stub.port)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(client.ls)
        stub.receive()
        client.close()
        with pytest.raises(ClientClosed):
            future.result()


def test_a_client_that_nobody_holds_ends_its_thread(stub):
    before = threading.active_count()
    client = Client("127.0.0.1", stub.port)
    assert threading.active_count() == before + 1
    del client
    gc.collect()
    wait_until(lambda: threading.active_count() == before)


def test_a_defect_of_the_thread_fails_what_waits_and_closes(stub, caplog):
    client = Client("127.0.0.1", stub.port)

    def broken(frame: bytes) -> bool:
        raise RuntimeError("no luck")

    client._channel.link.send = broken  # type: ignore[method-assign]
    with pytest.raises(ClientClosed, match="no luck"):
        client.ls()
    with pytest.raises(ClientClosed, match="no luck"):
        client.ls()


def test_exactly_one_way_to_name_jobs(stub):
    with Client("127.0.0.1", stub.port) as client:
        for wrong in (client.kill, lambda: client.query("x", tag="t"), lambda: client.kill([1])):
            with pytest.raises(InvalidRequest):
                wrong()


def test_a_submit_of_many_checks_all_before_it_sends_any(stub):
    with Client("127.0.0.1", stub.port) as client:
        with pytest.raises(InvalidRequest):
            client.submit_many([{"pool": "p", "args": ["true"]}, {"pool": "p", "args": [1]}])
        assert client.submit_many([]) == {}
        assert stub.is_quiet(0.1)


def test_cached_methods_need_a_cache(stub):
    with Client("127.0.0.1", stub.port) as client:
        for call in (client.wait, client.get_nodes, client.get_pools, client.list_jobs, client.submit_job):
            with pytest.raises(InvalidRequest, match=r"Client\(refresh="):
                call()


def test_many_short_lived_clients_do_not_stop_the_process(stub):
    # A monitor that is closed before its socket stops all of ZeroMQ within a few hundred of these.
    for _ in range(300):
        Client("127.0.0.1", stub.port).close()
