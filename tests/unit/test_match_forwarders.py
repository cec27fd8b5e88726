"""Routes whose networks are compared with whom forwarders name."""

from __future__ import annotations

import itertools

from shared.http.forwarding import forwarders_of
from tests.helpers.http_routes import ENDED, http_route, request, takes
from tests.helpers.routes import matcher, plain, route, silent, tls, winner

NEAR, FAR = ("10.0.0.1/32",), ("10.0.0.0/8", "fd00::/8")


def test_each_list_of_forwarders_names_its_own_client() -> None:
    """A route's networks are compared with the client by its own list; the best rank wins."""
    routes = [
        http_route("near", 0, client_ips=("192.0.2.0/24",), trusts=NEAR),
        http_route("far", 1, client_ips=("192.0.2.0/28",), trusts=FAR),
        http_route("nobody's", 2, client_ips=("192.0.2.0/26",)),
        http_route("rest", 3, trusts=NEAR),
    ]
    inside, outside = (4, 0xC0000201), (4, 1)
    for shuffled in itertools.permutations(routes):
        found = matcher(*shuffled)
        assert set(found.forwarders) == {forwarders_of(NEAR), forwarders_of(FAR)}
        for near, far, own, name in [
            (inside, inside, "192.0.2.1", "far"),
            (inside, outside, "192.0.2.1", "nobody's"),
            (inside, outside, "10.0.0.1", "near"),
            (outside, outside, "10.0.0.1", "rest"),
            (None, None, "", "rest"),
        ]:
            said = {forwarders_of(NEAR): near, forwarders_of(FAR): far}
            named = [said[one] for one in found.forwarders]
            assert takes(found, request(), own, named=named) == name
    assert takes(found, request(), "192.0.2.1") == "far"  # every list without the client


def test_lists_of_forwarders_that_decide_nothing() -> None:
    """None is asked for where no route has networks, or what has them reads no request."""
    assert matcher(http_route("a", trusts=NEAR), route("b", 1, client_ips=FAR)).forwarders == ()
    passes = http_route("c", 2, "a.test", client_ips=FAR, trusts=NEAR, tls=True)
    assert matcher(passes).forwarders == ()
    assert not matcher(passes).at_accept(plain("10.0.0.1").client).value
    both = http_route("d", 3, client_ips=FAR, trusts=NEAR)
    assert matcher(both, both).forwarders == (forwarders_of(NEAR),)
    turned = http_route("e", 4, client_ips=NEAR, trusts=FAR[::-1])
    assert len(matcher(http_route("f", 5, client_ips=NEAR, trusts=FAR), turned).forwarders) == 1


def test_a_forwarder_may_bring_anybody() -> None:
    """Until a request is read it is let in where a route believes it, by that route's best rank."""
    office = http_route("office", 0, client_ips=("192.0.2.0/28", "fd01::/16"), trusts=FAR)
    waits = matcher(office)
    for ip, is_awaited in [("10.9.9.9", True), ("fd00::1", True), ("11.0.0.1", False), ("", False)]:
        client = silent(ip).client
        assert (waits.at_accept(client).wait, waits.awaits_http(client)) == (is_awaited, is_awaited)
    wider = matcher(office, route("wider", 1, client_ips=("10.0.0.0/24",)))
    assert wider.awaits_http(plain("10.0.0.1").client)
    longer = matcher(office, route("longer", 1, client_ips=("10.0.0.1/32",)))
    assert not longer.awaits_http(plain("10.0.0.1").client)
    assert longer.at_accept(plain("10.0.0.1").client).value == "longer"


def test_a_handshake_for_whomever_a_forwarder_brings() -> None:
    """What ends TLS is found for a forwarder's connection; what passes it on is not."""
    ended = http_route("ended", 0, "a.test", client_ips=("192.0.2.0/24",), trusts=NEAR,
                       terminate=ENDED, tls=True)  # fmt: skip
    passed = http_route("passed", 1, "b.test", client_ips=("192.0.2.0/24",), trusts=NEAR)
    found = matcher(ended, passed)
    assert winner(found, tls("a.test", "10.0.0.1")) == "ended"
    assert winner(found, tls("a.test", "10.0.0.2")) is None
    assert winner(found, tls("b.test", "10.0.0.1")) is None
    assert winner(found, tls("b.test", "192.0.2.1")) == "passed"
    nameless = http_route("nameless", 2, client_ips=("192.0.2.0/24",), trusts=NEAR,
                          terminate=ENDED, tls=True)  # fmt: skip
    assert winner(matcher(nameless), tls("", "10.0.0.1")) == "nameless"
    assert winner(matcher(nameless), tls("", "10.0.0.2")) is None
