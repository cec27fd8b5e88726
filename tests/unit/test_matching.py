"""Which route wins, and what can be said before and behind the first bytes."""

from __future__ import annotations

import itertools

import pytest

from shared.match_criteria import plain_domain, wildcard_key
from shared.matching import Matcher
from shared.plan import RoutePlan, TlsPlan
from tests.helpers.routes import Asked, Hello, matcher, plain, route, silent, tls, winner


def best(routes: list[RoutePlan], asked: Asked) -> str | None:
    """The winner, the same whatever order the routes are added in."""
    names = {winner(matcher(*shuffled), asked) for shuffled in itertools.permutations(routes)}
    assert len(names) == 1
    return names.pop()


def test_priority_beats_everything() -> None:
    """A higher priority wins over a more specific route."""
    routes = [
        route("narrow", 0, client_ips=("10.0.0.1/32",)),
        route("wide", 1, priority=1, listeners=(1, 2), single_port=frozenset()),
        route("named", 2, "a.example"),
    ]
    assert best(routes, silent()) == "wide"
    assert best(routes, tls("a.example")) == "wide"


def test_exact_domain_then_longer_wildcard_then_none() -> None:
    """The more specific domain wins, whichever end of a wildcard has the star."""
    routes = [
        route("any", 0),
        route("short", 1, "*.example"),
        route("end", 2, "a.www.*"),
        route("long", 3, "*.www.example"),
        route("exact", 4, "a.www.example"),
    ]
    assert best(routes, tls("a.www.example")) == "exact"
    assert best(routes, tls("b.www.example")) == "long"
    assert best(routes, tls("b.example")) == "short"
    assert best(routes, tls("a.www.test")) == "end"
    assert best(routes, tls("example")) == "any"
    assert best(routes[:4], tls("a.www.example")) == "long"
    assert best(routes[:3], tls("a.www.example")) == "short"  # 9 characters; a.www.* has 7
    assert best([routes[2], route("tie", 5, "*.test.e")], tls("a.www.test.e")) == "tie"


def test_a_route_for_all_of_tls_is_not_asked_about_each_offer() -> None:
    """But where one above it takes another offer, or a reload adds one, the offer counts."""
    found = matcher(route("all", 0, tls=True))
    assert [winner(found, tls(name)) for name in ("a.test", "", "b.test")] == ["all"] * 3
    assert winner(found, plain()) is None
    above = matcher(route("all", 0, tls=True), route("h2", 1, alpn=("h2",), priority=1))
    assert winner(above, tls("a.test")) == "all"
    assert winner(above, tls("a.test", alpn=("h2",))) == "h2"
    near = matcher(route("all", 0, tls=True), route("near", 1, client_ips=("10.0.0.0/8",)))
    assert winner(near, tls(ip="192.0.2.1")) == "all"
    assert winner(near, tls(ip="10.0.0.1")) == "near"
    assert winner(found, tls("a.test")) == "all"
    found.add(route("named", 1, "a.test"), 1, "named")
    assert winner(found, tls("a.test")) == "named"


@pytest.mark.parametrize(
    ("pattern", "name", "is_match"),
    [
        ("*.example.com", "a.example.com", True),
        ("*.example.com", "c.b.a.example.com", True),
        ("*.example.com", "example.com", False),
        ("*.example.com", ".example.com", False),
        ("*.example.com", "aexample.com", False),
        ("*.example.com", "a.example.com.org", False),
        ("example.*", "example.com", True),
        ("example.*", "example.co.uk", True),
        ("example.*", "example", False),
        ("example.*", "example.", False),
        ("example.*", "www.example.com", False),
        ("www.example.*", "www.example.org", True),
        ("www.example.*", "www.test.org", False),
        ("example.com", "EXAMPLE.Com.", True),
        ("example.com", "example.com:443", True),
        ("*.example.com", "A.EXAMPLE.COM.", True),
        ("k.example", "\u212a.example", False),
        ("example.com", "", False),
    ],
)
def test_domains(pattern: str, name: str, is_match: bool) -> None:
    """A star stands for one label or more at its end; case, port and last dot do not count."""
    found = matcher(route("r", 0, pattern))
    assert winner(found, tls(name)) == ("r" if is_match else None)


@pytest.mark.parametrize(
    ("text", "plain_text"),
    [
        ("Example.COM", "example.com"),
        ("example.com.", "example.com"),
        ("example.com..", "example.com."),
        ("example.com:8443", "example.com"),
        ("example.com.:443", "example.com"),
        ("example.com:", "example.com"),
        ("example.com:x", "example.com:x"),
        ("[2001:DB8::1]:443", "[2001:db8::1]"),
        ("2001:db8::1", "2001:db8::1"),
        ("\u212aILO.\u00dc", "\u212ailo.\u00dc"),
        ("a:\u0664", "a:\u0664"),
        ("", ""),
        (".", ""),
        (":", ""),
    ],
)
def test_plain_domain(text: str, plain_text: str) -> None:
    """What clients write in more than one way; letters beyond ASCII stay what they are."""
    assert plain_domain(text) == plain_text


@pytest.mark.parametrize("pattern", ["*", "a.*.b", "*a.b", "a.b*", "*.a.*", "*.", ".*", "**.a"])
def test_patterns_that_are_none(pattern: str) -> None:
    """A star elsewhere than for the labels at one end is an error, not a name."""
    with pytest.raises(ValueError, match="is no domain"):
        wildcard_key(pattern)
    with pytest.raises(ValueError, match="is no domain"):
        matcher(route("r", 0, pattern))


def test_longer_prefix_then_none() -> None:
    """The longest prefix that holds the client wins, and no client_ips comes last."""
    routes = [
        route("all", 0),
        route("eight", 1, client_ips=("10.0.0.0/8",)),
        route("sixteen", 2, client_ips=("10.1.0.0/16",)),
    ]
    assert best(routes, silent("10.1.0.1")) == "sixteen"
    assert best(routes, silent("10.2.0.1")) == "eight"
    assert best(routes, silent("11.0.0.1")) == "all"
    assert best(routes, silent("::ffff:10.1.0.1")) == "sixteen"
    assert best(routes, silent("")) == "all"


def test_each_network_of_a_route_counts_by_itself() -> None:
    """With several networks, the one that holds this client gives the rank, not the longest."""
    for domains in ((), ("a.example",)):
        mixed = route("mixed", 0, *domains, client_ips=("10.0.0.0/8", "192.168.1.1/32"))
        middle = route("middle", 1, *domains, client_ips=("10.1.0.0/16", "192.168.1.0/24"))
        for ip, name in (
            ("10.1.0.1", "middle"),
            ("10.2.0.1", "mixed"),
            ("192.168.1.1", "mixed"),
            ("192.168.1.2", "middle"),
            ("8.8.8.8", None),
        ):
            assert best([mixed, middle], tls("a.example", ip)) == name


def test_domain_beats_network_beats_criteria_beats_port() -> None:
    """What is compared first decides, whatever the rest says."""
    routes = [
        route("port", 0),
        route("criteria", 1, tls=True, single_port=frozenset()),
        route("network", 2, client_ips=("10.0.0.0/8",), single_port=frozenset()),
        route("domain", 3, "*.example", single_port=frozenset()),
    ]
    asked = tls("a.example")
    assert best(routes, asked) == "domain"
    assert best(routes[:3], asked) == "network"
    assert best(routes[:2], asked) == "criteria"
    assert best(routes[:2], plain()) == "port"


def test_each_other_criterion_counts_one() -> None:
    """More of tls, tls_versions and alpn wins; the last two imply the first, as ending TLS does."""
    routes = [
        route("tls", 0, tls=True),
        route("alpn", 1, alpn=("h2", "h3")),
        route("both", 2, alpn=("h2",), tls_versions=("1.3",)),
    ]
    assert best(routes, tls(alpn=("h2", "http/1.1"))) == "both"
    assert best(routes, tls(versions=("1.2",), alpn=("h3",))) == "alpn"
    assert best(routes, tls(versions=("1.2",))) == "tls"
    ends = route("ends", 1, terminate=TlsPlan(certificates=()))
    assert best([route("any", 0), ends], tls()) == "ends"
    assert best([route("any", 0), ends], plain()) == "any"
    assert best([routes[0], ends], tls()) == "tls"


def test_versions_and_alpn_hold_when_one_is_offered() -> None:
    """Any of the list is enough; what was not read holds nothing."""
    found = matcher(route("r", 0, tls_versions=("1.2", "1.3"), alpn=("redis",)))
    assert winner(found, tls(versions=("1.1", "1.2"), alpn=("x", "redis"))) == "r"
    assert winner(found, tls(versions=("1.1",), alpn=("redis",))) is None
    assert winner(found, tls(versions=("1.3",))) is None
    assert winner(found, Asked(tls=True)) is None
    assert winner(found, plain()) is None


def test_single_port_beats_range_then_file_order() -> None:
    """A port of its own wins over a range; equal ranks go by the file."""
    routes = [route("range", 0, single_port=frozenset()), route("one", 1), route("two", 2)]
    assert best(routes, silent()) == "one"
    assert best([routes[0]], silent()) == "range"


def test_other_listeners_have_no_candidates() -> None:
    """A route is asked on its own listeners only."""
    one = route("one", 0, listeners=(2,))
    assert winner(matcher(one, listener=2), silent()) == "one"
    assert winner(matcher(one), silent()) is None
    assert matcher(one).only is None


def test_a_network_that_is_none() -> None:
    """A plan that makes no sense is said, not served."""
    with pytest.raises(ValueError, match="no IP address"):
        matcher(route("r", 0, client_ips=("10.0.0.0/99",)))


def test_only_is_who_needs_nothing_and_comes_first() -> None:
    """`only` is set exactly while the best of all takes everyone without a byte."""
    found: Matcher[str] = Matcher()
    for name, is_only, settings in (
        ("first", True, {}),
        ("later", True, {"order": 9}),
        ("domain", False, {"domains": ("a.example",)}),
        ("above", True, {"priority": 2}),
        ("network", False, {"priority": 2, "client_ips": ("10.0.0.0/8",)}),
        ("top", True, {"priority": 3}),
        ("tls", False, {"priority": 4, "tls": True}),
        ("end", True, {"priority": 5}),
    ):
        one = route(name, **{"order": 5, **settings})  # type: ignore[arg-type]
        found.add(one, 1, name)
        assert (found.only is not None) == is_only
        if found.only is not None:
            assert found.at_accept(silent().client).value == found.only
            assert not found.at_accept(silent().client).wait


def test_at_accept_waits_for_those_above() -> None:
    """Bytes are awaited while one that needs them ranks above, as long as the longest of those."""
    found = matcher(
        route("a", 0, "a.example", initial_data=5.0),
        route("b", 1, "*.example", initial_data=9.0),
        route("late", 2, "c.example", initial_data=50.0, priority=-1),
        route("any", 3),
    )
    opening = found.at_accept(silent().client)
    assert (opening.value, opening.wait, opening.initial_data) == ("any", True, 9.0)
    alone = matcher(route("late", 2, "c.example", initial_data=50.0, priority=-1), route("any", 3))
    opening = alone.at_accept(silent().client)
    assert (opening.value, opening.wait, opening.initial_data) == ("any", False, 0.0)
    nobody = Matcher[str]().at_accept(silent().client)
    assert (nobody.value, nobody.wait) == (None, False)


def test_at_accept_asks_who_the_client_is() -> None:
    """Only those wait whom a route that needs bytes could get."""
    found = matcher(
        route("inside", 0, "a.example", client_ips=("10.0.0.0/8", "fd00::/8"), initial_data=7.0),
        route("office", 1, client_ips=("10.1.0.0/16",)),
        route("any", 2),
    )
    seen = {
        ip: (opening.value, opening.wait)
        for ip in ("10.2.0.1", "10.1.0.1", "fd00::1", "8.8.8.8", "")
        for opening in [found.at_accept(silent(ip).client)]
    }
    assert seen == {
        "10.2.0.1": ("any", True),
        "10.1.0.1": ("office", True),  # a domain is compared before the network
        "fd00::1": ("any", True),
        "8.8.8.8": ("any", False),
        "": ("any", False),
    }


def test_what_is_added_later_counts() -> None:
    """An answer that was remembered is forgotten when a route comes."""
    found = matcher(route("any", 5))
    assert not found.at_accept(silent().client).wait
    found.add(route("named", 0, "a.example"), 1, "named")
    assert found.at_accept(silent().client).wait
    found.add(route("first", 1, priority=1), 1, "first")
    assert found.at_accept(silent().client).value == "first"


def test_without_bytes_only_those_win_that_need_none() -> None:
    """Nothing came in time: domains, tls and the rest are out."""
    routes = [
        route("named", 0, "a.example"),
        route("tls", 1, tls=True),
        route("plain", 2, tls=False),
        route("any", 3),
    ]
    assert best(routes, silent()) == "any"
    assert best(routes[:3], silent()) is None
    assert best(routes, plain()) == "plain"
    assert best(routes, tls("b.example")) == "tls"
    assert best(routes, Asked(tls=True)) == "tls"


def test_ports_for_one_kind_of_client() -> None:
    """Where all candidates of a client are for TLS, or all for others, that can be told."""
    mixed = matcher(
        route("named", 0, "a.example", client_ips=("10.0.0.0/8",)),
        route("tls", 1, tls=True, client_ips=("10.0.0.0/8",)),
        route("plain", 2, tls=False, client_ips=("10.1.0.0/16", "192.168.0.0/16")),
        route("any", 3, client_ips=("192.168.1.0/24",)),
    )
    kinds = {
        ip: (mixed.tls_only(client), mixed.plain_only(client))
        for ip in ("10.0.0.1", "10.1.0.1", "192.168.0.1", "192.168.1.1", "8.8.8.8")
        for client in [silent(ip).client]
    }
    assert kinds == {
        "10.0.0.1": (True, False),
        "10.1.0.1": (False, False),
        "192.168.0.1": (False, True),
        "192.168.1.1": (False, False),
        "8.8.8.8": (False, False),  # has no candidate at all
    }
    assert not Matcher[str]().tls_only(silent().client)


def test_thousands_of_domains_of_one_route_share_a_candidate() -> None:
    """They are found one by one, and another route on one of them disturbs no other."""
    names = [f"d{number}.example" for number in range(5000)]
    found = matcher(
        route("many", 1, *names, "*.wild.example", "d7.example"),
        route("one", 0, "d7.example"),
        route("after", 2, "d8.example"),
    )
    assert winner(found, tls("d4999.example")) == "many"
    assert winner(found, tls("d7.example")) == "one"
    assert winner(found, tls("d8.example")) == "many"
    assert winner(found, tls("x.wild.example")) == "many"
    assert winner(found, tls("d5000.example")) is None


def test_explain_tells_why_the_others_lost() -> None:
    """Each route but the winner has one reason, the best of them first."""
    found = matcher(
        route("top", 0, "a.example", client_ips=("192.168.0.0/16",), priority=3),
        route("winner", 1, "a.example", tls=True),
        route("same", 2, "a.example", tls=True),
        route("fewer", 3, "a.example"),
        route("wide", 4, "*.example", "b.example"),
        route("other", 5, "b.example", "c.example"),
        route("h2", 6, "a.example", alpn=("h2",), tls_versions=("1.3",)),
        route("h3", 7, "a.example", alpn=("h3",)),
        route("plain", 8, tls=False),
        route("any", 9, priority=-1),
    )
    told = found.explain(
        silent().client, True, Hello("A.example", versions=("1.2",), alpn=("h2", "x"))
    )
    assert (told.value, told.name) == ("winner", "winner")
    assert dict(told.lost) == {
        "top": "client_ips: the client is in none of them",
        "same": "'winner' stands first in the file",
        "fewer": "'winner' has more other criteria",
        "wide": "'winner' has the more specific domain",
        "other": "domains: the client asks for 'a.example'",
        "h2": "tls_versions: for 1.3; the client offers '1.2'",
        "h3": "alpn: for h3; the client offers 'h2', 'x'",
        "plain": "tls: for clients without TLS only",
        "any": "'winner' has the higher priority",
    }
    assert told.lost[0][0] == "top"


def test_explain_where_nobody_wins() -> None:
    """Reasons name what is not known as well as what does not fit."""
    found = matcher(route("tls", 0, tls=True), route("named", 1, "a.example"))
    told = found.explain(silent().client)
    assert (told.value, told.name) == (None, "")
    assert dict(told.lost) == {
        "tls": "tls: for TLS clients only, and no byte has come",
        "named": "domains: no byte has come",
    }
    told = found.explain(silent().client, False)
    assert dict(told.lost)["named"] == "domains: a client without TLS names none"
    told = matcher(route("named", 1, "a.example")).explain(None, True, Hello())
    assert told.lost == [("named", "domains: the client names no server")]
