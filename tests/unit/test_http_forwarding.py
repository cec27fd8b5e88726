"""Who asks, whose word counts, and what a target is told of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.http.forwarded import Element, canonical_ip, read_forwarded, write_element
from shared.http.forwarding import About, Believed, Forwarders, Origin, describe, forwarders_of
from shared.http.memo import MEMO_ENTRIES, new_key, remember
from shared.http.request_ids import RequestIds
from tests.helpers import http_heads as heads

TRUSTED = ("10.0.0.0/8", "2001:db8:ffff::/48")


def told(lines: bytes) -> dict[str, str]:
    """The forwarding fields by name; each of them once."""
    found: dict[str, str] = {}
    for line in lines.decode("latin-1").split("\r\n")[:-1]:
        name, _, value = line.partition(": ")
        assert name not in found
        found[name] = value
    return found


def trusted(*lines: heads.Line, ip: str = "10.0.0.1") -> tuple[About, Believed]:
    """What is known of a request that a trusted forwarder passed on."""
    about = heads.about(heads.request("/", *lines), came=heads.origin(ip), trusted=TRUSTED)
    assert about.believed is not None
    return about, about.believed


def test_from_a_client() -> None:
    """Everything is made of what the connection shows."""
    assert told(heads.origin().lines("example.com:8080")) == {
        "X-Forwarded-For": "203.0.113.5",
        "X-Real-IP": "203.0.113.5",
        "X-Forwarded-Proto": "http",
        "X-Forwarded-Host": "example.com:8080",
        "Forwarded": 'for=203.0.113.5;host="example.com:8080";proto=http',
    }


def test_from_ipv6() -> None:
    """Bare in the X- fields; in brackets and quotes in Forwarded (RFC 7239 section 6)."""
    lines = told(heads.origin("2001:db8::5", scheme="https").lines("[::1]"))
    assert lines["X-Forwarded-For"] == lines["X-Real-IP"] == "2001:db8::5"
    assert lines["Forwarded"] == 'for="[2001:db8::5]";host="[::1]";proto=https'


@pytest.mark.parametrize(
    ("ip", "written"), [("::ffff:192.0.2.1", "192.0.2.1"), ("fe80::1%eth0", "fe80::1")]
)
def test_addresses_are_canonical(ip: str, written: str) -> None:
    """IPv4-mapped addresses are IPv4; zones mean nothing elsewhere."""
    assert told(heads.origin(ip).lines("x"))["X-Real-IP"] == written


def test_from_a_unix_socket() -> None:
    """Nobody's address is not made up."""
    assert told(Origin("", 0, "http", 0).lines("example.com")) == {
        "X-Forwarded-Proto": "http",
        "X-Forwarded-Host": "example.com",
        "Forwarded": "for=unknown;host=example.com;proto=http",
    }


def test_without_a_host() -> None:
    """HTTP/1.0 clients may name none."""
    lines = told(heads.origin().lines(""))
    assert "X-Forwarded-Host" not in lines
    assert lines["Forwarded"] == "for=203.0.113.5;proto=http"


def test_another_host_on_the_same_connection() -> None:
    """What was prepared for one host is not used for the next."""
    origin = heads.origin()
    first = origin.lines("a.example")
    assert origin.lines("a.example") is first
    assert told(origin.lines("b.example"))["X-Forwarded-Host"] == "b.example"
    assert origin.lines("a.example") == first


def test_a_client_is_not_believed() -> None:
    """Whoever is no trusted forwarder has its own address and our id."""
    asked = heads.request(
        "/", ("X-Forwarded-For", "192.0.2.1"), ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "evil.example"), ("X-Request-ID", "mine"), ("X-Forwarded-Port", "1"),
    )  # fmt: skip
    for forwarders in ((), TRUSTED):
        about = heads.about(asked, trusted=forwarders)
        assert about.believed is None
        seen = (about.client_ip, about.client_port, about.scheme, about.host, about.port)
        assert seen == ("203.0.113.5", 4000, "http", "example.com", 8080)
        assert about.request_id == about.trace_id == heads.REQUEST_ID


def test_a_unix_socket_is_no_forwarder() -> None:
    """It has no address that a network could hold."""
    origin = Origin("", 0, "http", 0)
    assert heads.about(came=origin, trusted=("0.0.0.0/0", "::/0")).believed is None


def test_a_forwarder_is_believed() -> None:
    """Address, scheme, host, port and id are the client's, for us and for the target."""
    about, believed = trusted(
        ("X-Forwarded-For", "192.0.2.1"), ("X-Forwarded-Proto", "HTTPS"),
        ("X-Forwarded-Host", "Shop.example:444"), ("X-Forwarded-Port", "444"),
        ("X-Request-ID", "abc-1"),
    )  # fmt: skip
    assert (about.client_ip, about.client_port, about.scheme) == ("192.0.2.1", 0, "https")
    assert (about.host, about.port, about.request_id) == ("shop.example", 444, "abc-1")
    assert about.trace_id == heads.REQUEST_ID
    assert told(believed.lines) == {
        "X-Forwarded-For": "192.0.2.1, 10.0.0.1",
        "X-Real-IP": "192.0.2.1",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "Shop.example:444",
        "Forwarded": 'for=192.0.2.1;host="Shop.example:444";proto=https,'
        " for=10.0.0.1;host=example.com;proto=http",
        "X-Forwarded-Port": "444",
    }


@pytest.mark.parametrize(
    ("listed", "client"),
    [
        (["192.0.2.1"], "192.0.2.1"),
        (["198.51.100.7, 192.0.2.1"], "192.0.2.1"),  # what is left of the client is its own word
        (["192.0.2.1, 10.0.0.2 ,10.0.0.3"], "192.0.2.1"),
        (["192.0.2.1", "10.0.0.2"], "192.0.2.1"),
        (["10.0.0.9, 10.0.0.2"], "10.0.0.9"),  # all trusted: the first of them
        (["::ffff:192.0.2.1"], "192.0.2.1"),
        (["2001:DB8::1, 2001:db8:ffff::2"], "2001:db8::1"),
        ([",, 192.0.2.1 ,"], "192.0.2.1"),
        ([""], "10.0.0.1"),
        (["unknown"], "10.0.0.1"),
        (["192.0.2.1, unknown, 10.0.0.2"], "10.0.0.2"),
        (["192.0.2.1, unknown"], "10.0.0.1"),
        (["192.0.2.1:80"], "192.0.2.1"),
        (["198.51.100.7:1, 192.0.2.1:80, 10.0.0.2:443"], "192.0.2.1"),
        (["[2001:db8::1]:80, [2001:db8:ffff::2]"], "2001:db8::1"),
        (["[::ffff:192.0.2.1]:80"], "192.0.2.1"),
        (["192.0.2.1:"], "10.0.0.1"),
        (["192.0.2.1:x"], "10.0.0.1"),
        (["192.0.2.1:80:80"], "10.0.0.1"),
        (["[192.0.2.1]:80"], "10.0.0.1"),
        (["[2001:db8::1"], "10.0.0.1"),
        (["[2001:db8::1]80"], "10.0.0.1"),
        (["_hidden"], "10.0.0.1"),
        (["192.0.2.01"], "10.0.0.1"),
        (["192.0.2"], "10.0.0.1"),
        (["[2001:db8::1]"], "2001:db8::1"),
        (["fe80::1%eth0"], "10.0.0.1"),
        (['"192.0.2.1"'], "10.0.0.1"),
    ],
)
def test_the_walk(listed: list[str], client: str) -> None:
    """From the right, over trusted ones, to the first that is not; a bad one ends it."""
    about, believed = trusted(*[("X-Forwarded-For", value) for value in listed])
    assert about.client_ip == client
    lines = told(believed.lines)
    assert lines["X-Real-IP"] == client
    entries = [part.strip(" ") for value in listed for part in value.split(",")]
    assert lines["X-Forwarded-For"].split(", ") == [*filter(None, entries), "10.0.0.1"]
    elements = read_forwarded([lines["Forwarded"]])
    assert elements is not None
    assert [element.ip for element in elements][-1] == "10.0.0.1"


def test_scheme_and_host_of_the_client_in_a_chain() -> None:
    """Where there is one entry for each address, the client's counts, else the forwarder's own."""
    chain = ("X-Forwarded-For", "198.51.100.7, 192.0.2.1, 10.0.0.2")
    about, _ = trusted(chain, ("X-Forwarded-Proto", "https, http, https"))
    assert about.scheme == "http"
    about, _ = trusted(chain, ("X-Forwarded-Proto", "http, https"))
    assert about.scheme == "https"
    about, _ = trusted(chain, ("X-Forwarded-Host", "a.example, b.example, c.example"))
    assert about.host == "b.example"


@pytest.mark.parametrize("value", ["ftp", "https://", "", "https http"])
def test_a_bad_scheme_is_not_believed(value: str) -> None:
    """Then it is the connection's."""
    about, believed = trusted(("X-Forwarded-Proto", value))
    assert about.scheme == "http"
    assert told(believed.lines)["X-Forwarded-Proto"] == "http"


def test_websocket_schemes() -> None:
    """Some forwarders write wss."""
    assert trusted(("X-Forwarded-Proto", "wss"))[0].scheme == "https"


@pytest.mark.parametrize("value", ["a b", "a/b", "u@h", "[::1", "a:b", 'a"b', "é", ""])
def test_a_bad_host_is_not_believed(value: str) -> None:
    """Then it is the one that the request names."""
    about, believed = trusted(("X-Forwarded-Host", value))
    assert about.host == "example.com"
    assert told(believed.lines)["X-Forwarded-Host"] == "example.com"


@pytest.mark.parametrize(
    ("value", "host"),
    [("[::1]:80", "[::1]"), ("A.Example.", "a.example"), ("1.2.3.4:5", "1.2.3.4")],
)
def test_hosts(value: str, host: str) -> None:
    """Without port, lower case, IPv6 in brackets."""
    assert trusted(("X-Forwarded-Host", value))[0].host == host


@pytest.mark.parametrize("value", ["0", "65536", "080", "x", "80, 81"])
def test_a_bad_port_is_not_believed(value: str) -> None:
    """It is not passed on either."""
    about, believed = trusted(("X-Forwarded-Port", value))
    assert about.port == 8080
    assert "X-Forwarded-Port" not in told(believed.lines)


@pytest.mark.parametrize("value", ["", "x" * 129, "a b", "a\tb", "é"])
def test_a_bad_request_id_is_replaced(value: str) -> None:
    """1 to 128 printable characters, or it is ours."""
    assert trusted(("X-Request-ID", value))[0].request_id == heads.REQUEST_ID
    assert trusted(("X-Request-ID", "x" * 128))[0].request_id == "x" * 128


def test_two_request_ids_are_none() -> None:
    """Nobody knows which one is meant."""
    about, _ = trusted(("X-Request-ID", "a"), ("X-Request-ID", "b"))
    assert about.request_id == heads.REQUEST_ID


def test_forwarded_alone_is_believed() -> None:
    """Then the other fields are made of it, its port included."""
    value = 'for=198.51.100.7, for="192.0.2.1:4711";proto=https;host="shop.example", for=10.0.0.2'
    about, believed = trusted(("Forwarded", value))
    seen = (about.client_ip, about.client_port, about.scheme, about.host)
    assert seen == ("192.0.2.1", 4711, "https", "shop.example")
    lines = told(believed.lines)
    assert lines["X-Forwarded-For"] == "198.51.100.7, 192.0.2.1, 10.0.0.2, 10.0.0.1"
    assert lines["Forwarded"] == f"{value}, for=10.0.0.1;host=example.com;proto=http"


def test_forwarded_that_agrees_is_passed_on() -> None:
    """As it came, with our own element behind it."""
    value = "for=192.0.2.1;by=_lb;proto=https"
    about, believed = trusted(("X-Forwarded-For", "192.0.2.1"), ("Forwarded", value))
    assert about.scheme == "https"
    own = "for=10.0.0.1;host=example.com;proto=http"
    assert told(believed.lines)["Forwarded"] == f"{value}, {own}"


def test_forwarded_that_differs_is_dropped() -> None:
    """A forwarder that writes X-Forwarded-For alone passes on what its client said."""
    about, believed = trusted(
        ("X-Forwarded-For", "192.0.2.1"), ("Forwarded", "for=127.0.0.1;proto=https")
    )
    assert (about.client_ip, about.scheme) == ("192.0.2.1", "http")
    assert "127.0.0.1" not in told(believed.lines)["Forwarded"]


def test_a_forwarder_that_says_nothing() -> None:
    """It is the client then; a scheme that it names still counts."""
    about, believed = trusted(("X-Forwarded-Proto", "https"))
    assert (about.client_ip, about.client_port, about.scheme) == ("10.0.0.1", 4000, "https")
    lines = told(believed.lines)
    assert lines["X-Forwarded-For"] == lines["X-Real-IP"] == "10.0.0.1"
    assert lines["Forwarded"] == "for=10.0.0.1;host=example.com;proto=https"


def test_a_chain_without_the_client() -> None:
    """The forwarder is the client then: what it says stands in its own element."""
    about, believed = trusted(
        ("X-Forwarded-For", "192.0.2.1, unknown"), ("X-Forwarded-Proto", "https")
    )
    assert about.scheme == "https"
    elements = told(believed.lines)["Forwarded"].split(", ")
    assert elements[:2] == ["for=192.0.2.1", "for=unknown"]
    assert elements[2] == "for=10.0.0.1;host=example.com;proto=https"


def test_a_field_block_is_read_once_for_each_forwarder() -> None:
    """What was believed of one peer is never taken for another's."""
    asked = heads.request("/", ("X-Forwarded-For", "192.0.2.1"))
    forwarders = Forwarders(TRUSTED)
    first = describe(heads.origin("10.0.0.1"), asked, forwarders, heads.REQUEST_ID)
    again = describe(heads.origin("10.0.0.1"), asked, forwarders, heads.REQUEST_ID)
    other = describe(heads.origin("10.0.0.7"), asked, forwarders, heads.REQUEST_ID)
    asked.authority = "b.example"
    elsewhere = describe(heads.origin("10.0.0.7"), asked, forwarders, heads.REQUEST_ID)
    over_tls = describe(heads.origin("10.0.0.7", scheme="https"), asked, forwarders, "")
    assert first.believed is again.believed
    assert other.believed is not None
    assert told(other.believed.lines)["X-Forwarded-For"] == "192.0.2.1, 10.0.0.7"
    assert elsewhere.believed is not None
    assert told(elsewhere.believed.lines)["X-Forwarded-Host"] == "b.example"
    assert over_tls.scheme == "https"
    assert describe(heads.origin("10.0.0.7"), asked, Forwarders(), "").believed is None


def test_trust_is_asked_once_for_each_list() -> None:
    """The same connection may be trusted on one route and not on another."""
    origin, asked = heads.origin("10.0.0.1"), heads.request()
    near, far = Forwarders(TRUSTED), Forwarders(("192.0.2.0/24",))
    outcomes = [describe(origin, asked, who, "").believed is None for who in (near, far, near)]
    assert outcomes == [False, True, False]


def test_routes_with_the_same_list_share_it() -> None:
    """And no others."""
    assert forwarders_of(TRUSTED) is forwarders_of(tuple(TRUSTED))
    assert forwarders_of(TRUSTED) is not forwarders_of(TRUSTED[:1])
    assert forwarders_of(()).is_empty


def test_memory_is_bounded() -> None:
    """However many routes a field block is seen on."""
    fields = heads.fields(("A", "b"))
    for _ in range(3 * MEMO_ENTRIES):
        key = new_key()
        remember(fields, key, key)
        assert fields.memo[key] == key
        assert len(fields.memo) <= MEMO_ENTRIES


def test_request_ids() -> None:
    """32 hex digits, no two the same; the seed alone decides."""
    ids = RequestIds(7)
    made = [ids.make() for _ in range(1000)]
    assert len(set(made)) == 1000
    assert all(len(one) == 32 and int(one[:16], 16) and int(one[16:], 16) for one in made)
    again = RequestIds(7)
    assert [again.make() for _ in range(3)] == made[:3]
    assert RequestIds(8).make() != made[0]


@pytest.mark.parametrize(
    ("value", "elements"),
    [
        ("for=192.0.2.43", [Element("192.0.2.43")]),
        ('For="[2001:db8:cafe::17]:4711"', [Element("2001:db8:cafe::17", 4711)]),
        ("for=192.0.2.60;proto=http;by=203.0.113.43", [Element("192.0.2.60", 0, "http")]),
        ("for=192.0.2.43, for=198.51.100.17", [Element("192.0.2.43"), Element("198.51.100.17")]),
        ("for=unknown", [Element()]),
        ("for=_hidden", [Element()]),
        ('for="_gazonk"', [Element()]),
        ("proto=https", [Element(proto="https")]),
        ('for="192.0.2.1";host="a\\"b"', [Element("192.0.2.1", 0, "", 'a"b')]),
        ('for="[192.0.2.1]"', [Element()]),
        ('for="2001:db8::1"', [Element()]),
        ('for="192.0.2.1:99999"', [Element("192.0.2.1")]),
        ("for=1.2.3.4;for=5.6.7.8", None),
        ("for=", None),
        ("for", None),
        ("for=a,", None),
        ("for=[2001:db8::1]", None),
        ('for="a', None),
        ('for="a"b', None),
        (";for=a", None),
        ("", None),
    ],
)
def test_reading_forwarded(value: str, elements: list[Element] | None) -> None:
    """RFC 7239 section 4, with its examples; all or nothing."""
    assert read_forwarded([value]) == elements


@given(st.text(st.sampled_from('for=;,"\\[]:. \t1a_'), max_size=30))
def test_any_forwarded_is_read_or_dropped(value: str) -> None:
    """Nothing else is raised, and addresses are ones."""
    for element in read_forwarded([value]) or []:
        assert element.ip == canonical_ip(element.ip)


@given(
    ip=st.ip_addresses().map(str),
    host=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20),
)
def test_what_is_written_is_read(ip: str, host: str) -> None:
    """Quoting and brackets are undone."""
    written = write_element(canonical_ip(ip), "https", host)
    assert read_forwarded([written]) == [Element(canonical_ip(ip), 0, "https", host)]
