"""Whom a route believes about its clients, and which route takes a request by that."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from shared.plan import AnswerPlan, HttpPlan, ListenerPlan, RoutePlan
from tests.helpers.http_talk import Served, get, route, serving

SELF = ("127.0.0.1/32",)
OTHERS = ("10.0.0.0/8",)
WITH_PROXY = ("127.0.0.0/8", "198.51.100.7/32")


@pytest.fixture
def plane() -> Iterator[Served]:
    """A data plane."""
    with serving() as plane:
        yield plane


def says_its_name(
    listener: ListenerPlan, name: str, *client_ips: str, order: int = 0, trusts: tuple[str, ...]
) -> RoutePlan:
    """A route that answers with its name to these clients, and believes these forwarders."""
    said = AnswerPlan(status=200, body=name.encode())
    plan = HttpPlan(trusted_forwarders=trusts, answer=said)
    return route(name, listener, order=order, client_ips=client_ips, http=plan)


def taken_by(plane: Served, listener: ListenerPlan, *forwarded: str) -> str:
    """Name of the route that takes a request with these forwarding fields; "": none does."""
    client = plane.client(listener)
    found = client.ask(get("/", *forwarded))
    client.close()
    assert found.status in (200, 404)
    return found.body.decode() if found.status == 200 else ""


@pytest.mark.parametrize(
    ("forwarded", "name"),
    [
        ((), "machine"),
        (("X-Forwarded-For: 127.0.0.1",), "machine"),
        (("X-Forwarded-For: 203.0.113.9",), "office"),
        (("X-Forwarded-For: 127.0.0.1, 203.0.113.9",), "office"),
        (("X-Forwarded-For: 127.0.0.1, 203.0.113.9, 127.0.0.1",), "office"),
        (("Forwarded: for=203.0.113.9",), "office"),
        (("X-Forwarded-For: 192.0.2.1",), "rest"),
        (("X-Forwarded-For: 203.0.113.9, 192.0.2.1",), "rest"),
    ],
)
def test_client_ips_behind_a_trusted_forwarder(
    plane: Served, forwarded: tuple[str, ...], name: str
) -> None:
    """They are compared with whom the forwarder names: it opens nothing to others by itself."""
    listener = plane.listen()
    plane.commit(
        says_its_name(listener, "machine", "127.0.0.0/8", trusts=SELF),
        says_its_name(listener, "office", "203.0.113.0/24", order=1, trusts=SELF),
        says_its_name(listener, "rest", order=2, trusts=SELF),
    )
    assert taken_by(plane, listener, *forwarded) == name


def test_a_forwarder_for_whom_there_is_no_route(plane: Served) -> None:
    """The address of the forwarder itself does not help a client that none is for."""
    listener = plane.listen()
    plane.commit(says_its_name(listener, "machine", "127.0.0.0/8", trusts=SELF))
    assert taken_by(plane, listener) == "machine"
    assert taken_by(plane, listener, "X-Forwarded-For: 203.0.113.9") == ""


def test_who_is_no_forwarder_names_nobody(plane: Served) -> None:
    """A route that trusts others, or nobody, goes by the connection's address."""
    listener = plane.listen()
    for trusts in (OTHERS, ()):
        plane.commit(
            says_its_name(listener, "machine", "127.0.0.0/8", trusts=trusts),
            says_its_name(listener, "office", "203.0.113.0/24", order=1, trusts=trusts),
        )
        assert taken_by(plane, listener, "X-Forwarded-For: 203.0.113.9") == "machine"


def test_each_route_believes_its_own_forwarders(plane: Served) -> None:
    """Beside a route that believes this one, another that does not goes by the connection."""
    listener = plane.listen()
    plane.commit(
        says_its_name(listener, "believes", "203.0.113.0/24", trusts=SELF),
        says_its_name(listener, "does not", "127.0.0.0/8", order=1, trusts=OTHERS),
    )
    assert taken_by(plane, listener, "X-Forwarded-For: 203.0.113.9") == "believes"
    assert taken_by(plane, listener, "X-Forwarded-For: 192.0.2.1") == "does not"
    assert taken_by(plane, listener) == "does not"
    plane.commit(
        says_its_name(listener, "believes", "127.0.0.0/8", trusts=SELF),
        says_its_name(listener, "does not", "203.0.113.0/24", order=1, trusts=OTHERS),
    )
    assert taken_by(plane, listener, "X-Forwarded-For: 203.0.113.9") == ""
    assert taken_by(plane, listener) == "believes"


@pytest.mark.parametrize(
    ("forwarded", "name"),
    [
        ("203.0.113.9", "far"),
        ("203.0.113.9, 198.51.100.7", "far"),  # the longer list knows one forwarder more
        ("203.0.113.9, 198.51.100.8", "rest"),
        ("198.51.100.9", "near"),
        ("203.0.113.9, 198.51.100.9", "near"),
        ("203.0.113.9, 192.0.2.1", "rest"),
        ("192.0.2.1, 198.51.100.7", "rest"),
    ],
)
def test_two_lists_that_both_have_the_forwarder(plane: Served, forwarded: str, name: str) -> None:
    """Each route goes by the client that its own list of forwarders finds behind the chain."""
    listener = plane.listen()
    plane.commit(
        says_its_name(listener, "near", "198.51.100.9/32", trusts=SELF),
        says_its_name(listener, "far", "203.0.113.0/24", order=1, trusts=WITH_PROXY),
        says_its_name(listener, "rest", order=2, trusts=()),
    )
    assert taken_by(plane, listener, f"X-Forwarded-For: {forwarded}") == name
