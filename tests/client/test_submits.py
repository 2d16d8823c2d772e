"""What a `submit_many` comes down to on the wire; a ROUTER that the test answers by hand."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from meeseeks import Client
from meeseeks.wire.messages import MAX_MESSAGE_BYTES

SMALL = {"pool": "p", "args": ["true"]}


def test_jobspecs_that_are_too_much_for_one_message_travel_in_several(stub):
    large = {"pool": "p", "args": ["x" * 1_000_000]}
    assert MAX_MESSAGE_BYTES < 100 * 1_000_000
    with Client("127.0.0.1", stub.port, timeout=30) as client, ThreadPoolExecutor(1) as pool:
        submitting = pool.submit(client.submit_many, [SMALL] * 1000 + [large] * 100)
        sizes: list[int] = []
        while sum(sizes) < 1100:
            peer, request = stub.receive(20)
            specs = request.request["submit_many"]
            sizes.append(len(specs))
            stub.answer(peer, request, {spec["id"]: {} for spec in specs})
        assert sizes[0] > 1000  # as many as fit, and the rest in as many requests as it takes
        assert max(sizes[1:]) < 40
        assert len(submitting.result(20)) == 1100
