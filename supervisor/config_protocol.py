"""Whether a route speaks HTTP, and which of its keys say so (design section 4)."""

from __future__ import annotations

from shared.config import Route
from supervisor.config_positions import Path

_CRITERIA = ("paths", "methods", "headers", "query", "cookies")
_OF_ACTION = ("headers", "rewrite", "host")


def http_keys(route: Route) -> list[Path]:
    """The keys of a route that only HTTP has, each as its path within the route."""
    keys: list[Path] = [("match", name) for name in _CRITERIA if getattr(route.match, name)]
    if route.action.type != "forward":
        keys.append(("action", "type"))
    keys += [("action", name) for name in _OF_ACTION if getattr(route.action, name) is not None]
    if route.security.auth is not None:
        keys.append(("security", "auth"))
    if route.http is not None:
        keys.append(("http",))
    return keys


def has_criteria(route: Route) -> bool:
    """Whether something of a request decides, beside its Host."""
    match = route.match
    return bool(match.paths or match.methods or match.headers or match.query or match.cookies)


def reads_http(route: Route) -> bool:
    """Whether the route is for requests that are read, and so never for TLS that stays closed."""
    protocol = route.match.protocol
    if protocol is not None:
        return protocol == "http"
    # Asked many times of thousands of routes: as `http_keys`, without a list of them.
    action = route.action
    return (
        has_criteria(route)
        or action.type != "forward"
        or route.http is not None
        or route.security.auth is not None
        or not (action.headers is None and action.rewrite is None and action.host is None)
    )


def speaks_http(route: Route) -> bool:
    """Whether requests are read where the client's bytes can be.

    With domains alone that is so for clients without TLS, who name one in Host; those with TLS
    name it by SNI, and their bytes pass as they are.
    """
    if route.match.protocol == "tcp":
        return False
    return reads_http(route) or (bool(route.match.domains) and not is_for_tls_only(route))


def is_for_tls_only(route: Route) -> bool:
    """Whether a key of the route is about TLS clients alone."""
    match = route.match
    return bool(match.tls or match.tls_versions or match.alpn or route.action.tls is not None)
