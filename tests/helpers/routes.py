"""Routes and clients for tests of matching, with no more in them than matching asks for."""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import force_setattr

from shared.match_criteria import plain_domain
from shared.matching import Matcher
from shared.networks import split_ip
from shared.plan import RoutePlan, Timeouts

LISTENER = 1


class Hello(Struct, frozen=True):
    """What a ClientHello offers, as far as matching asks; names may be written as clients do."""

    server_name: str = ""
    versions: tuple[str, ...] = ("1.3", "1.2")
    alpn: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """`shared.client_hello` tells the name so."""
        force_setattr(self, "server_name", plain_domain(self.server_name))


class Asked(Struct, frozen=True):
    """A client and its first bytes. ``tls`` None: no byte has come. ``ip`` "": a Unix socket."""

    ip: str = "10.0.0.1"
    tls: bool | None = None
    hello: Hello | None = None

    @property
    def client(self) -> tuple[int, int] | None:
        """As a matcher takes it."""
        return split_ip(self.ip) if self.ip else None


def tls(name: str = "", ip: str = "10.0.0.1", **offer: tuple[str, ...]) -> Asked:
    """A TLS client that asks for this name."""
    return Asked(ip, True, Hello(name, **offer))


def plain(ip: str = "10.0.0.1") -> Asked:
    """A client that sends something else than TLS."""
    return Asked(ip, False)


def silent(ip: str = "10.0.0.1") -> Asked:
    """A client that has sent nothing."""
    return Asked(ip)


def route(
    name: str, order: int = 0, *domains: str, initial_data: float = 60.0, **keys: object
) -> RoutePlan:
    """A route on LISTENER, by a port of its own unless said otherwise."""
    settings: dict[str, object] = {
        "listeners": (LISTENER,),
        "single_port": frozenset({LISTENER}),
        "domains": domains,
        "timeouts": Timeouts(initial_data=initial_data),
        **keys,
    }
    return RoutePlan(name=name, order=order, **settings)  # type: ignore[arg-type]


def matcher(*routes: RoutePlan, listener: int = LISTENER) -> Matcher[str]:
    """A matcher that finds the names of these routes."""
    made: Matcher[str] = Matcher()
    for one in routes:
        made.add(one, listener, one.name)
    return made


def winner(found: Matcher[str], asked: Asked) -> str | None:
    """Name of the route that wins."""
    return found.with_first_bytes(asked.client, asked.tls, asked.hello)
