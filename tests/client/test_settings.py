"""A Client's arguments, before anything is opened."""

from __future__ import annotations

import pytest

from meeseeks import Client, InvalidRequest
from meeseeks.client.settings import Address, ClientSettings, parse_address, parse_environment

TIMES = {"timeout": 10, "refresh": 0, "poll": 10, "expire": 60}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (None, Address("127.0.0.1", 7)),
        ("host", Address("host", 7)),
        ("host:9", Address("host", 9)),
        ("::1", Address("::1", 7)),
        ("[::1]:9", Address("::1", 9)),
        ("[::1]", Address("::1", 7)),
    ],
)
def test_an_address_may_be_written_in_each_usual_form(text, wanted):
    assert parse_address(text, 7) == wanted


@pytest.mark.parametrize("text", ["", "host:", ":9", "host:0", "host:70000", "tcp://host", "[::1", 5, b"host", "a b"])
def test_what_is_no_address_is_refused_by_name(text):
    with pytest.raises(InvalidRequest) as caught:
        parse_address(text)
    assert str(caught.value)


def test_a_name_is_resolved_to_addresses_ipv4_first():
    assert Address("localhost", 1).resolve()[0] == "127.0.0.1"
    assert Address("::1", 1).resolve() == ["::1"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"timeout": 0}, "timeout"),
        ({"timeout": "soon"}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
        ({"refresh": -1}, "refresh"),
        ({"refresh": 10, "poll": 10}, "poll (10 s) must be more than refresh (10 s)"),
        ({"refresh": 1, "poll": 60, "expire": 60}, "expire (60 s) must be more than poll (60 s)"),
        ({"port": "x"}, "port"),
        ({"port": True}, "port"),
        ({"address": []}, "empty list"),
        ({"ssl": {"verfy": True}}, "ssl key"),
        ({"refersh": 1}, "'refersh' is not known; the nearest is 'refresh'"),
    ],
)
def test_a_wrong_argument_is_refused_in_one_sentence(arguments, said):
    with pytest.raises(InvalidRequest) as caught:
        Client(**arguments)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_poll_and_expire_matter_only_to_a_cache():
    assert ClientSettings.check(None, 1, {**TIMES, "poll": 100}, {}).poll == 100


def test_several_addresses_are_kept_in_order_without_doubles():
    settings = ClientSettings.check(["b", "a:5", "b"], 1, TIMES, {})
    assert settings.addresses == (Address("b", 1), Address("a", 5))
    settings = ClientSettings.check("b, a:5,b,[::1]:2", 1, TIMES, {})
    assert settings.addresses == (Address("b", 1), Address("a", 5), Address("::1", 2))


def test_the_environment_gives_typed_values():
    found = parse_environment("address=h port=13701 refresh=1.5  set_global=true")
    assert found == {"address": "h", "port": 13701, "refresh": 1.5, "set_global": True}
    assert parse_environment("address=h:1,h:2") == {"address": "h:1,h:2"}
    assert parse_environment("") == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("address", "'address' is not of the form key=value"),
        ("prot=1", "nearest is 'port'"),
        ("port=1 port.x=2", "has a value already"),
    ],
)
def test_a_wrong_environment_is_refused(text, said):
    with pytest.raises(InvalidRequest) as caught:
        parse_environment(text)
    assert said in str(caught.value)
