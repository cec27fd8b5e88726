"""Routes that speak HTTP and requests, with no more in them than matching asks for."""

from __future__ import annotations

from collections.abc import Sequence

from shared.by_network import Client
from shared.http.head import Fields, Request
from shared.match_criteria import plain_domain
from shared.matching import Matcher
from shared.networks import split_ip
from shared.plan import FieldMatch, HttpMatch, HttpPlan, RoutePlan, TlsPlan
from tests.helpers.routes import Hello, route

ENDED = TlsPlan(certificates=())
MATCH = ("paths", "methods", "headers", "query", "cookies")


def field(name: str, *values: str, regex: str = "") -> FieldMatch:
    """What a header, query parameter or cookie must be; without values it must be there."""
    return FieldMatch(name=name, values=values, regex=regex)


def http_route(name: str, order: int = 0, *domains: str, **keys: object) -> RoutePlan:
    """A route that speaks HTTP; ``paths``, ``methods`` and so on are criteria of it, ``trusts`` are
    the forwarders whom it believes.
    """
    match = {key: keys.pop(key) for key in MATCH if key in keys}
    plan = HttpPlan(
        match=HttpMatch(**match),  # type: ignore[arg-type]
        trusted_forwarders=keys.pop("trusts", ()),  # type: ignore[arg-type]
    )
    return route(name, order, *domains, http=plan, **keys)  # type: ignore[arg-type]


def request(target: str = "/", host: str = "", method: str = "GET", **fields: str) -> Request:
    """A request for ``path?query``; ``fields`` by name, with _ for -, lines apart by |."""
    path, mark, query = target.partition("?")
    made = Request(method, path, query if mark else None, host, plain_domain(host), is_11=True)
    lines = [
        (name.replace("_", "-").encode(), value.encode())
        for name, values in fields.items()
        for value in values.split("|")
    ]
    made.fields = Fields(tuple(lines))
    return made


def takes(
    found: Matcher[str],
    asked: Request,
    ip: str = "10.0.0.1",
    *,
    is_tls: bool = False,
    hello: Hello | None = None,
    named: Sequence[Client] = (),
) -> str | None:
    """Name of the route that takes a request."""
    client = split_ip(ip) if ip else None
    one = found.with_request(client, is_tls, hello, asked, named)
    return None if one is None else one.value


def params(found: Matcher[str], asked: Request) -> dict[str, str]:
    """What parameters of the path stand for, in the route that takes a request."""
    one = found.with_request(split_ip("10.0.0.1"), False, None, asked)
    assert one is not None
    return dict(one.params)
