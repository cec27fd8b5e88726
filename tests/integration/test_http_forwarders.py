"""Whom a route believes about its clients, and which route takes a request by that."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.plan import AnswerPlan, HttpPlan, ListenerPlan, ProxyPolicy, RoutePlan, TlsPlan
from tests.helpers.certificates import Authority
from tests.helpers.http_talk import HOST, Served, Talker, get, route, serving
from tests.helpers.tls_pairs import certificate_plan

SELF = ("127.0.0.1/32",)
FROM_OFFICE = "X-Forwarded-For: 203.0.113.9"
OTHERS = ("10.0.0.0/8",)
WITH_PROXY = ("127.0.0.0/8", "198.51.100.7/32")


@pytest.fixture
def plane() -> Iterator[Served]:
    """A data plane."""
    with serving() as plane:
        yield plane


def says_its_name(
    listener: ListenerPlan,
    name: str,
    *client_ips: str,
    order: int = 0,
    trusts: tuple[str, ...],
    **settings: object,
) -> RoutePlan:
    """A route that answers with its name to these clients, and believes these forwarders."""
    said = AnswerPlan(status=200, body=name.encode())
    plan = HttpPlan(trusted_forwarders=trusts, answer=said)
    return route(name, listener, order=order, client_ips=client_ips, http=plan, **settings)


def taken_by(plane: Served, listener: ListenerPlan, *forwarded: str, before: bytes = b"") -> str:
    """Name of the route that takes a request with these forwarding fields; "": none does.

    ``before``: bytes ahead of the request.
    """
    client = plane.client(listener)
    client.send(before + get("/", *forwarded))
    found = name_said(client)
    client.close()
    return found


def name_said(client: Talker) -> str:
    """By the next answer; "" for 404."""
    found = client.message()
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
    assert taken_by(plane, listener, FROM_OFFICE) == ""
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


def test_a_route_that_nobody_reaches_but_behind_a_forwarder(plane: Served) -> None:
    """A forwarder is heard where no route is for its own address; who is none is not."""
    listener = plane.listen()
    plane.commit(says_its_name(listener, "only", "203.0.113.0/24", trusts=SELF))
    assert taken_by(plane, listener, FROM_OFFICE) == "only"
    assert taken_by(plane, listener) == ""
    stranger = Talker(plane.connect(listener, source="127.0.0.2"))
    assert stranger.is_cut()
    plane.commit(says_its_name(listener, "only", "203.0.113.0/24", trusts=OTHERS))
    assert plane.client(listener).is_cut()


@pytest.mark.parametrize("trusts", [(), OTHERS])
def test_a_better_route_of_another_list_hides_nothing(
    plane: Served, trusts: tuple[str, ...]
) -> None:
    """One that does not believe this forwarder is not for the client that this one names."""
    listener = plane.listen()
    plane.commit(
        says_its_name(listener, "better", "203.0.113.0/24", trusts=trusts),
        says_its_name(listener, "all", order=1, trusts=SELF),
    )
    assert taken_by(plane, listener, FROM_OFFICE) == "all"


def test_a_route_for_the_forwarder_hides_nothing(plane: Served) -> None:
    """One that is for the forwarder's address alone leaves its clients to others."""
    listener = plane.listen()
    plane.commit(
        says_its_name(listener, "machine", "127.0.0.0/8", trusts=SELF),
        says_its_name(listener, "all", order=1, trusts=()),
    )
    assert taken_by(plane, listener, FROM_OFFICE) == "all"
    assert taken_by(plane, listener) == "machine"


@pytest.mark.parametrize("is_turned", [False, True])
def test_of_routes_of_several_lists_the_best_wins(plane: Served, is_turned: bool) -> None:
    """Each matches by its own list: the published order decides, whichever was there first."""
    listener = plane.listen()
    routes = [
        says_its_name(listener, "near", "198.51.100.0/24", order=0, trusts=SELF),
        says_its_name(listener, "far", "203.0.113.0/24", order=1, trusts=WITH_PROXY),
        says_its_name(listener, "same", "203.0.113.0/24", order=2, trusts=SELF),
        says_its_name(listener, "rest", order=9, trusts=()),
    ]
    plane.commit(*(reversed(routes) if is_turned else routes))
    assert taken_by(plane, listener, f"{FROM_OFFICE}, 198.51.100.7") == "near"
    assert taken_by(plane, listener, f"{FROM_OFFICE}, 198.51.100.8") == "near"
    assert taken_by(plane, listener, FROM_OFFICE) == "far"
    assert taken_by(plane, listener, "X-Forwarded-For: 192.0.2.1") == "rest"


def test_the_same_networks_behind_two_lists(plane: Served) -> None:
    """The one whose list finds the client takes it, though the other stands first."""
    listener = plane.listen()
    plane.commit(
        says_its_name(listener, "near", "203.0.113.0/24", order=0, trusts=SELF),
        says_its_name(listener, "far", "203.0.113.0/24", order=1, trusts=WITH_PROXY),
        says_its_name(listener, "rest", order=2, trusts=()),
    )
    assert taken_by(plane, listener, f"{FROM_OFFICE}, 198.51.100.7") == "far"
    assert taken_by(plane, listener, FROM_OFFICE) == "near"


def test_a_better_route_for_the_connection_itself(plane: Served) -> None:
    """One that trusts nobody takes by the connection's address, whatever the forwarder says."""
    listener = plane.listen()
    plane.commit(
        says_its_name(listener, "named", "203.0.113.0/24", order=1, trusts=SELF),
        says_its_name(listener, "machine", "127.0.0.1/32", order=0, trusts=()),
        says_its_name(listener, "rest", order=9, trusts=()),
    )
    assert taken_by(plane, listener, FROM_OFFICE) == "machine"


@pytest.mark.parametrize(
    ("forwarded", "name"),
    [
        (("X-Forwarded-For: ::ffff:203.0.113.9",), "office"),
        (("X-Forwarded-For: ::FFFF:cb00:7109",), "office"),
        (('Forwarded: for="[::ffff:203.0.113.9]:443"',), "office"),
        (("X-Forwarded-For: 2001:db8::1",), "v6"),
        (("X-Forwarded-For: 2001:0DB8:0::1, 127.0.0.1",), "v6"),
        (("X-Forwarded-For: 2001:db8::1, ::ffff:127.0.0.1",), "v6"),
        (('Forwarded: for="[2001:db8::1]"',), "v6"),
        (("X-Forwarded-For: 203.0.113.9, unknown",), "machine"),
        (("X-Forwarded-For: 203.0.113.9, 203.0.113.09",), "machine"),
        (("X-Forwarded-For: 203.0.113.9:4711, 127.0.0.1:80",), "office"),
        (("X-Forwarded-For: [2001:db8::1]:99",), "v6"),
        (("X-Forwarded-For: [2001:db8::1]",), "v6"),
        (("X-Forwarded-For: 203.0.113.9, 127.0.0.1:http",), "machine"),
        (("X-Forwarded-For: 203.0.113.9, 2001:db8::1%eth0",), "machine"),
        (("X-Forwarded-For: unknown, 203.0.113.9",), "office"),
        (("X-Forwarded-For: , 203.0.113.9 ,,",), "office"),
        (("X-Forwarded-For: 192.0.2.1", "X-Forwarded-For: 203.0.113.9"), "office"),
        (("X-Forwarded-For: 203.0.113.9", "X-Forwarded-For: 192.0.2.1"), "rest"),
        ((FROM_OFFICE, "Forwarded: for=2001:db8::1"), "office"),
        (("X-Real-IP: 203.0.113.9",), "machine"),
    ],
)
def test_how_a_client_is_named(plane: Served, forwarded: tuple[str, ...], name: str) -> None:
    """IPv4 in whatever dress, IPv6; what is no address ends the chain at who said it."""
    listener = plane.listen()
    plane.commit(
        says_its_name(listener, "machine", "127.0.0.0/8", trusts=SELF),
        says_its_name(listener, "office", "203.0.113.0/24", order=1, trusts=SELF),
        says_its_name(listener, "v6", "2001:db8::/32", order=2, trusts=SELF),
        says_its_name(listener, "rest", order=3, trusts=SELF),
    )
    assert taken_by(plane, listener, *forwarded) == name


def test_a_forwarder_on_ipv6(plane: Served) -> None:
    """It brings clients of both families; written as mapped IPv4 it is the IPv4 one."""
    listener = plane.listen(host="::1")
    plane.commit(says_its_name(listener, "only", "203.0.113.0/24", trusts=("::1/128",)))
    assert taken_by(plane, listener, FROM_OFFICE) == "only"
    other = plane.listen()
    plane.commit(says_its_name(other, "only", "2001:db8::/32", trusts=("::ffff:127.0.0.1/128",)))
    assert taken_by(plane, other, "X-Forwarded-For: 2001:db8::9") == "only"


def test_requests_of_one_connection(plane: Served) -> None:
    """A forwarder's connection carries many clients: each request goes by its own."""
    listener = plane.listen()
    plane.commit(
        says_its_name(listener, "office", "203.0.113.0/24", trusts=SELF),
        says_its_name(listener, "home", "198.51.100.0/24", order=1, trusts=SELF),
    )
    client = plane.client(listener)
    forwarded = [FROM_OFFICE, "X-Forwarded-For: 198.51.100.1", "X-Forwarded-For: 192.0.2.1"]
    client.send(*[get("/", field) for field in 2 * forwarded])
    assert [name_said(client) for _ in range(6)] == 2 * ["office", "home", ""]


def test_who_a_proxy_header_names_is_the_forwarder(plane: Served) -> None:
    """Forwarders are compared with whom a believed header names, not with who sent it."""
    listener = plane.listen(ProxyPolicy(trusted=SELF))
    header = b"PROXY TCP4 198.51.100.7 192.0.2.1 4000 80\r\n"
    plane.commit(says_its_name(listener, "only", "203.0.113.0/24", trusts=("198.51.100.7/32",)))
    assert taken_by(plane, listener, FROM_OFFICE, before=header) == "only"
    stranger = plane.client(listener)
    stranger.send(header.replace(b"100.7", b"100.8"))
    assert stranger.is_cut()
    plane.commit(says_its_name(listener, "only", "203.0.113.0/24", trusts=SELF))
    stranger = plane.client(listener)
    stranger.send(header)
    assert stranger.is_cut()
    assert taken_by(plane, listener, FROM_OFFICE, before=b"PROXY UNKNOWN\r\n") == "only"


def test_nobody_on_a_unix_socket_is_a_forwarder(plane: Served, tmp_path: Path) -> None:
    """It has no address: neither forwarders nor networks hold it."""
    listener = plane.listen(path=str(tmp_path / "s"))
    everyone = ("0.0.0.0/0", "::/0")
    office = says_its_name(listener, "office", "203.0.113.0/24", trusts=everyone)
    plane.commit(office)
    assert plane.client(listener).is_cut()
    plane.commit(office, says_its_name(listener, "rest", order=1, trusts=everyone))
    assert taken_by(plane, listener, FROM_OFFICE) == "rest"


def test_beside_a_route_that_relays(plane: Served) -> None:
    """A relay for the forwarder's address takes what no better route is for; so it does bytes that
    are no request.
    """
    listener, target = plane.listen(), plane.target()
    plane.commit(
        says_its_name(listener, "office", "203.0.113.0/24", trusts=SELF),
        route("relay", listener, target, order=1, client_ips=("127.0.0.0/8",)),
    )
    assert taken_by(plane, listener, FROM_OFFICE) == "office"
    for sent in (get("/", "X-Forwarded-For: 192.0.2.1"), b"\x00 no request"):
        client = plane.client(listener)
        client.send(sent)
        assert plane.accepted(target).exactly(len(sent)) == sent
        client.close()


def test_behind_a_handshake(plane: Served, tmp_path: Path) -> None:
    """A forwarder's handshake is made where no route is for its own address; its requests go by
    their clients, and without TLS they are told to come with it.
    """
    authority, listener = Authority(tmp_path, "ca"), plane.listen()
    two = (*SELF, "198.51.100.7/32")
    ended: dict[str, Any] = {
        "tls": True,
        "terminate": TlsPlan(certificates=(0,)),
        "domains": (HOST,),
    }
    certificate = certificate_plan(authority.leaf(HOST), [HOST])
    plane.commit(
        says_its_name(listener, "office", "203.0.113.0/24", trusts=SELF, **ended),
        says_its_name(listener, "home", "198.51.100.1/32", order=1, trusts=two, **ended),
        says_its_name(listener, "plain", "192.0.2.0/24", order=2, trusts=SELF),
        certificates=[certificate],
    )
    context = ssl.create_default_context(cafile=str(authority.cert))
    client = plane.tls_client(listener, context, HOST)
    forwarded = [FROM_OFFICE, "X-Forwarded-For: 198.51.100.1, 198.51.100.7", "Accept: */*"]
    client.send(*[get("/", field, host=HOST) for field in forwarded])
    assert [name_said(client) for _ in range(3)] == ["office", "home", ""]
    bare = plane.client(listener)
    assert [bare.ask(get("/", field, host=HOST)).status for field in forwarded] == [421, 421, 404]
    assert Talker(plane.connect(listener, source="127.0.0.2")).is_cut()


def test_forwarders_of_the_routes_of_now(plane: Served) -> None:
    """On a connection that is kept over a reload, the next request goes by the new lists."""
    listener = plane.listen()
    client: Talker | None = None
    for trusts, name in ((SELF, "office"), (OTHERS, "machine"), ((), "machine"), (SELF, "office")):
        plane.commit(
            says_its_name(listener, "office", "203.0.113.0/24", trusts=trusts),
            says_its_name(listener, "machine", "127.0.0.0/8", order=1, trusts=trusts),
        )
        client = client or plane.client(listener)
        client.send(get("/", FROM_OFFICE))
        assert name_said(client) == name
