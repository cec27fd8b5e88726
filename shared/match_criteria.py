"""What of a route decides whether it matches, how specific that is, and why it does not.

A criterion about what the asking layer does not know does not hold: before a byte was read nobody
is a TLS client or another, and a client without TLS names no domain in its first bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar

from shared.by_network import Client
from shared.networks import Network
from shared.plan import RoutePlan
from shared.units import short

V = TypeVar("V")

# Priority, domain, client_ips, other criteria, port, place in the file; the smaller rank wins.
# Paths will stand behind the domain.
Rank = tuple[int, int, int, int, int, int]

LAST: Final[Rank] = (1 << 62, 0, 0, 0, 0, 0)  # behind every rank
_EXACT: Final = -1000  # before every wildcard, whose rank is its length
NO_DOMAIN: Final = 0
_NO_NETWORK: Final = 1
# What each part of a rank is called where it decides.
_PARTS: Final = (
    "has the higher priority",
    "has the more specific domain",
    "has the longer network in client_ips",
    "has more other criteria",
    "names the port by itself",
    "stands first in the file",
)

_ASCII_LOWER: Final = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


class Offer(Protocol):
    """What a ClientHello says; `shared.client_hello.ClientHello` is one."""

    @property
    def server_name(self) -> str | None:
        """The name that the client asks for, however it is written; None or "": none."""

    @property
    def versions(self) -> Collection[str]:
        """TLS versions, "1.3"."""

    @property
    def alpn(self) -> Collection[str]:
        """Application protocols, "h2"."""


def plain_domain(text: str) -> str:
    """A name as a client writes it, as names are compared: lower case, no port, no last dot.

    Takes any text and raises nothing; ``[::1]:443`` gives ``[::1]``.
    """
    if ":" in text:
        host, _, port = text.rpartition(":")
        is_port = not port or (port.isascii() and port.isdigit())
        if is_port and (":" not in host or host.endswith("]")):
            text = host
    if text.endswith("."):
        text = text[:-1]
    # Some letters beyond ASCII become ASCII ones in lower case: they are other names all the same.
    return text.lower() if text.isascii() else text.translate(_ASCII_LOWER)


def wildcard_key(pattern: str) -> str:
    """``*.example.com`` as ``.example.com``, ``example.*`` as ``example.``; else ValueError."""
    key = pattern[1:] if pattern.startswith("*") else pattern.removesuffix("*")
    if "*" in key or len(key) < 2 or (key[0] == ".") == (key[-1] == "."):
        raise ValueError(f"{short(pattern)} is no domain: a star stands for labels at one end")
    return key


def wildcard_keys(name: str, in_front: int, behind: int) -> Iterator[str]:
    """The keys of all wildcards that a name falls under.

    ``in_front``: dots at most in the key of a wildcard that begins with its star; ``behind``: of
    one that ends with it. At least one character is left for the star.
    """
    dot = len(name)
    for _ in range(in_front):
        dot = name.rfind(".", 0, dot)
        if dot <= 0:
            break
        yield name[dot:]
    dot = 0
    for _ in range(behind):
        dot = name.find(".", dot) + 1
        if dot <= 1 or dot == len(name):
            break
        yield name[:dot]


def tls_of(route: RoutePlan) -> bool | None:
    """True: for TLS clients only; False: for others only.

    Ending TLS implies the former, and so does what only a ClientHello offers; domains do not.
    """
    is_implied = route.terminate is not None or route.tls_versions or route.alpn
    return True if is_implied else route.tls


def needs_bytes(route: RoutePlan) -> bool:
    """Whether the client's first bytes must be read to know that the route matches."""
    return tls_of(route) is not None or bool(route.domains)


def needs_hello(route: RoutePlan) -> bool:
    """Whether the route asks for more of a ClientHello than its first byte."""
    has_rules = route.security is not None and bool(route.security.identities)
    tells_name = any(tlv.name == "authority" for tlv in route.send_proxy_tlvs)
    is_tls = route.terminate is not None or has_rules or (tells_name and tls_of(route) is True)
    return is_tls or bool(route.domains or route.tls_versions or route.alpn)


def is_for_tls(route: RoutePlan) -> bool:
    """Whether only TLS clients can match: no other layer tells a domain yet."""
    return needs_bytes(route) and tls_of(route) is not False


def criteria_of(route: RoutePlan) -> int:
    """How many criteria there are beside domains and client_ips."""
    return (tls_of(route) is not None) + bool(route.tls_versions) + bool(route.alpn)


def domain_rank(pattern: str) -> int:
    """Smaller is more specific: exact, then the longer wildcard, then NO_DOMAIN."""
    return -len(pattern) if "*" in pattern else _EXACT


def rank_of(
    route: RoutePlan, listener: int, domain: int = NO_DOMAIN, network: Network | None = None
) -> Rank:
    """The rank of a route on a listener (its id).

    ``domain``: the `domain_rank` of the domain that matched. ``network``: that of ``client_ips``.
    """
    return (
        -route.priority,
        domain,
        _NO_NETWORK if network is None else -network.prefix,
        -criteria_of(route),
        0 if listener in route.single_port else 1,
        route.order,
    )


def advantage(winner: Rank, loser: Rank) -> str:
    """What puts the one before the other, in words for the operator."""
    return next(
        (text for text, one, other in zip(_PARTS, winner, loser, strict=True) if one < other), ""
    )


class Candidate(Generic[V]):
    """A route for the clients of one network (None: all), under those of its domains that rank
    alike. ``checks``: what its place in the index does not settle.
    """

    __slots__ = ("checks", "network", "rank", "route", "value")

    def __init__(
        self,
        route: RoutePlan,
        value: V,
        rank: Rank,
        network: Network | None,
        checks: tuple[Check, ...],
    ) -> None:
        self.route = route
        self.value = value
        self.rank = rank
        self.network = network
        self.checks = checks


Check = Callable[[Candidate[Any], Client, bool | None, Offer | None], bool]


def _client_holds(
    candidate: Candidate[Any], client: Client, is_tls: bool | None, hello: Offer | None
) -> bool:
    network = candidate.network
    return network is None or (client is not None and network.contains(*client))


def _tls_holds(
    candidate: Candidate[Any], client: Client, is_tls: bool | None, hello: Offer | None
) -> bool:
    return tls_of(candidate.route) is is_tls


def _versions_hold(
    candidate: Candidate[Any], client: Client, is_tls: bool | None, hello: Offer | None
) -> bool:
    return _is_offered(candidate.route.tls_versions, hello.versions if hello is not None else None)


def _alpn_holds(
    candidate: Candidate[Any], client: Client, is_tls: bool | None, hello: Offer | None
) -> bool:
    return _is_offered(candidate.route.alpn, hello.alpn if hello is not None else None)


def _is_offered(wanted: Sequence[str], offered: Collection[str] | None) -> bool:
    return offered is not None and any(one in offered for one in wanted)


class Criterion(NamedTuple):
    """One key of ``match``; ``domains`` is not among them, the index settles it."""

    is_set: Callable[[RoutePlan], bool]
    holds: Check
    why_not: Callable[[RoutePlan, bool | None, Offer | None], str]


def _why_not_tls(route: RoutePlan, is_tls: bool | None, hello: Offer | None) -> str:
    wanted = "TLS clients only" if tls_of(route) else "clients without TLS only"
    return f"tls: for {wanted}" + (", and no byte has come" if is_tls is None else "")


def _why_not_versions(route: RoutePlan, is_tls: bool | None, hello: Offer | None) -> str:
    offered = _listed(hello.versions if hello is not None else ())
    return f"tls_versions: for {' or '.join(route.tls_versions)}; the client offers {offered}"


def _why_not_alpn(route: RoutePlan, is_tls: bool | None, hello: Offer | None) -> str:
    offered = _listed(hello.alpn if hello is not None else ())
    return f"alpn: for {' or '.join(route.alpn)}; the client offers {offered}"


def _listed(offered: Collection[str]) -> str:
    return ", ".join(map(ascii, offered)) or "none"


def why_not_domain(name: str, is_tls: bool | None) -> str:
    """Why none of a route's domains holds for a client that asks for ``name``, "" for none."""
    if is_tls:
        asked = f"the client asks for {short(name)}" if name else "the client names no server"
    else:
        asked = "no byte has come" if is_tls is None else "a client without TLS names none"
    return f"domains: {asked}"


IN_CLIENT_IPS: Final = Criterion(
    lambda route: bool(route.client_ips),
    _client_holds,
    lambda route, is_tls, hello: "client_ips: the client is in none of them",
)
# In this order they are asked, and named where several do not hold.
OF_FIRST_BYTES: Final = (
    Criterion(lambda route: tls_of(route) is not None, _tls_holds, _why_not_tls),
    Criterion(lambda route: bool(route.tls_versions), _versions_hold, _why_not_versions),
    Criterion(lambda route: bool(route.alpn), _alpn_holds, _why_not_alpn),
)


def judge(
    candidate: Candidate[Any],
    is_named: bool,
    name: str,
    client: Client,
    is_tls: bool | None,
    hello: Offer | None,
) -> tuple[int, str]:
    """How many of a candidate's criteria hold before the first that does not, and why that is."""
    route = candidate.route
    if not IN_CLIENT_IPS.holds(candidate, client, is_tls, hello):
        return 0, IN_CLIENT_IPS.why_not(route, is_tls, hello)
    tls, *others = OF_FIRST_BYTES
    if tls.is_set(route) and not tls.holds(candidate, client, is_tls, hello):
        return 1, tls.why_not(route, is_tls, hello)
    if not is_named:
        return 2, why_not_domain(name, is_tls)
    for held, criterion in enumerate(others, 3):
        if criterion.is_set(route) and not criterion.holds(candidate, client, is_tls, hello):
            return held, criterion.why_not(route, is_tls, hello)
    return 3 + len(others), ""
