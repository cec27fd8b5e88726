"""What of a route decides whether it matches, and how specific that is.

A criterion about what the asking layer does not know does not hold: before a byte was read nobody
is a TLS client or another, and a client without TLS names no domain in its first bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar

from shared.by_network import Client
from shared.networks import Network
from shared.path_index import NO_PATH, path_rank
from shared.plan import HttpMatch, RoutePlan
from shared.units import short

V = TypeVar("V")

# Priority, domain, path, client_ips, other criteria, port, place in the file; the smaller wins.
Rank = tuple[int, int, int, int, int, int, int]

LAST: Final[Rank] = (1 << 62, 0, 0, 0, 0, 0, 0)  # behind every rank
_EXACT: Final = -1000  # before every wildcard, whose rank is its length
NO_DOMAIN: Final = 0
_NO_NETWORK: Final = 1
_NO_CRITERIA: Final = HttpMatch()
# What each part of a rank is called where it decides.
_PARTS: Final = (
    "has the higher priority",
    "has the more specific domain",
    "has the more specific path",
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
        """The name that the client asks for, as names are compared; None or "": none."""

    @property
    def versions(self) -> Collection[str]:
        """TLS versions, "1.3"."""

    @property
    def alpn(self) -> Collection[str]:
        """Application protocols, "h2"."""


def plain_domain(text: str) -> str:
    """A Host as a client writes it, as names are compared: lower case, no port, no last dot.

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


def domain_holds(pattern: str, name: str) -> bool:
    """Whether a name, as `plain_domain` gives it, is this domain or falls under this wildcard."""
    if "*" not in pattern:
        return name == pattern
    key = wildcard_key(pattern)
    has_star_text = len(name) > len(key)
    return has_star_text and (name.endswith(key) if key[0] == "." else name.startswith(key))


def tls_of(route: RoutePlan) -> bool | None:
    """True: for TLS clients only; False: for others only.

    What only a ClientHello offers implies the former, and so does ending TLS where all bytes are
    relayed. A route that speaks HTTP may end TLS for some clients and serve others without.
    """
    is_ended = route.terminate is not None and route.http is None
    return True if is_ended or route.tls_versions or route.alpn else route.tls


def needs_bytes(route: RoutePlan) -> bool:
    """Whether the client's first bytes must be read to know that the route matches."""
    return route.http is not None or tls_of(route) is not None or bool(route.domains)


def needs_hello(route: RoutePlan) -> bool:
    """Whether the route asks for more of a ClientHello than its first byte."""
    if route.http is not None and not is_for_tls(route):
        return False
    has_rules = route.security is not None and bool(route.security.identities)
    tells_name = any(tlv.name == "authority" for tlv in route.send_proxy_tlvs)
    is_tls = route.terminate is not None or has_rules or (tells_name and tls_of(route) is True)
    return is_tls or bool(route.domains or route.tls_versions or route.alpn)


def is_for_tls(route: RoutePlan) -> bool:
    """Whether TLS clients can match one that needs bytes: if it speaks HTTP, by what it ends or
    by passing bytes on.
    """
    if tls_of(route) is False:
        return False
    return route.http is None or route.terminate is not None or passes_tls(route)


def is_for_plain(route: RoutePlan) -> bool:
    """Whether clients without TLS can match one that needs bytes: only HTTP tells a domain then."""
    if route.http is None:
        return tls_of(route) is False and not route.domains
    return tls_of(route) is not True


def passes_tls(route: RoutePlan) -> bool:
    """Whether a route that speaks HTTP gets TLS clients by their SNI too, their bytes unread:
    it must ask for nothing, and do nothing, that takes reading them.
    """
    http = route.http
    if http is None or not route.domains or route.terminate is not None:
        return False
    is_read = http.match != _NO_CRITERIA or http.answer is not None or http.auth is not None
    return tls_of(route) is not False and not is_read


def match_of(route: RoutePlan) -> HttpMatch:
    """What it asks of a request."""
    return _NO_CRITERIA if route.http is None else route.http.match


def criteria_of(route: RoutePlan) -> int:
    """How many criteria there are beside domains, paths and client_ips; of headers, query and
    cookies each entry is one.
    """
    count = (tls_of(route) is not None) + bool(route.tls_versions) + bool(route.alpn)
    match = match_of(route)
    fields = len(match.headers) + len(match.query) + len(match.cookies)
    return count + bool(match.methods) + fields


def best_path(route: RoutePlan) -> int:
    """The rank of the most specific of its paths; ValueError for one that is none."""
    return min(map(path_rank, match_of(route).paths), default=NO_PATH)


def domain_rank(pattern: str) -> int:
    """Smaller is more specific: exact, then the longer wildcard, then NO_DOMAIN."""
    return -len(pattern) if "*" in pattern else _EXACT


def rank_of(
    route: RoutePlan,
    listener: int,
    domain: int = NO_DOMAIN,
    network: Network | None = None,
    path: int = NO_PATH,
) -> Rank:
    """The rank of a route on a listener (its id).

    ``domain``, ``path``: the `domain_rank` of the domain that matched, the `path_rank` of the path.
    ``network``: that of ``client_ips``.
    """
    return (
        -route.priority,
        domain,
        path,
        _NO_NETWORK if network is None else -network.prefix,
        -criteria_of(route),
        0 if listener in route.single_port else 1,
        route.order,
    )


def ranks_of(
    route: RoutePlan, listener: int, domain: int, path: int
) -> Callable[[Network | None], Rank]:
    """`rank_of` for each network of a route, which may have thousands: of each only the prefix
    counts, and those that rank alike share one object.
    """
    known: dict[int, Rank] = {}

    def rank(network: Network | None) -> Rank:
        prefix = -1 if network is None else network.prefix
        found = known.get(prefix)
        if found is None:
            found = known[prefix] = rank_of(route, listener, domain, network, path)
        return found

    return rank


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
    route = candidate.route
    return (route.http is not None or tls_of(route)) is is_tls


def _versions_hold(
    candidate: Candidate[Any], client: Client, is_tls: bool | None, hello: Offer | None
) -> bool:
    return versions_hold(candidate.route, hello)


def _alpn_holds(
    candidate: Candidate[Any], client: Client, is_tls: bool | None, hello: Offer | None
) -> bool:
    return alpn_holds(candidate.route, hello)


def versions_hold(route: RoutePlan, hello: Offer | None) -> bool:
    """Whether the client offers one of the TLS versions, if the route names some."""
    wanted = route.tls_versions
    return not wanted or (hello is not None and any(one in hello.versions for one in wanted))


def alpn_holds(route: RoutePlan, hello: Offer | None) -> bool:
    """Whether the client offers one of the application protocols, if the route names some."""
    wanted = route.alpn
    return not wanted or (hello is not None and any(one in hello.alpn for one in wanted))


class Criterion(NamedTuple):
    """One key of ``match`` that is asked of a client; the index settles ``domains``."""

    is_set: Callable[[RoutePlan], bool]
    holds: Check


IN_CLIENT_IPS: Final = Criterion(lambda route: bool(route.client_ips), _client_holds)
# In this order they are asked. What speaks HTTP takes first bytes from TLS clients only.
OF_FIRST_BYTES: Final = (
    Criterion(lambda route: route.http is not None or tls_of(route) is not None, _tls_holds),
    Criterion(lambda route: bool(route.tls_versions), _versions_hold),
    Criterion(lambda route: bool(route.alpn), _alpn_holds),
)
