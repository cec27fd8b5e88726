"""The client behind trusted forwarders against a walk from scratch, on random chains."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st

from tests.helpers import http_heads as heads

PEER = "10.0.0.1"
PEER_PORT = 4000
TRUSTED = ("10.0.0.0/8", "2001:db8:ffff::/48")
JUNK = ["unknown", "_hidden", "192.0.2.1:", "[192.0.2.1]", "[2001:db8::1", "2001:db8::1]:80", "a.b"]
Entry = tuple[str, str, int]  # as it is written, its address ("": none), its port (0: none)


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    """An address, alone or with a port, IPv6 with brackets or without; or none."""
    ip = draw(
        st.sampled_from(["10.0.0.2", "192.0.2.1", "2001:db8::1", "2001:db8:ffff::2"])
        | st.ip_addresses(v=4).map(str)
        | st.sampled_from(JUNK)
    )
    if ip in JUNK:
        return ip, "", 0
    port = draw(st.just(0) | st.integers(1, 65535))
    is_v6 = isinstance(ip_address(ip), IPv6Address)
    written = f"[{ip}]" if is_v6 and (port or draw(st.booleans())) else ip
    return (f"{written}:{port}" if port else written), ip, port


def reference(chain: list[Entry]) -> tuple[str, int]:
    """Address and port of the rightmost that is no forwarder; of who said it where one is none."""
    found = PEER, PEER_PORT
    for _, ip, port in reversed(chain):
        if not ip:
            break
        found = ip, port
        if not any(ip_address(ip) in ip_network(one) for one in TRUSTED):
            break
    return found


@given(st.lists(entries(), max_size=5))
def test_the_client_and_the_reference_agree(chain: list[Entry]) -> None:
    """Address and port; and the target gets the entries as they came."""
    written = ", ".join(text for text, _, _ in chain)
    asked = heads.request("/", ("X-Forwarded-For", written))
    about = heads.about(asked, came=heads.origin(PEER), trusted=TRUSTED)
    assert about.believed is not None
    if about.client_ip != PEER:
        assert (about.client_ip, about.client_port) == reference(chain)
    else:
        assert reference(chain)[0] == PEER
    through = f"{written}, {PEER}" if chain else PEER
    assert f"X-Forwarded-For: {through}\r\n".encode() in about.believed.lines
