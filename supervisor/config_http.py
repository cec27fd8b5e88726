"""Checks of the keys that only HTTP has, and of whether a route's requests can be read at all.

Reads no file: see `supervisor/config_pages.py` and, across routes, `config_taken_tls.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from shared.config import Action, Config, Route, Tls
from shared.http.templates import check_template
from shared.path_index import PathPattern
from shared.units import short
from supervisor.config_findings import Findings
from supervisor.config_positions import Path
from supervisor.config_protocol import http_keys, is_for_tls_only, reads_http
from supervisor.config_taken_tls import TakenTls

REDIRECTS: Final = (301, 302, 303, 307, 308)
NO_BODY: Final = frozenset({204, 205, 304})  # RFC 9110 sections 15.3.5, 15.3.6 and 15.4.5

_TERMINATE_HINT: Final = "write tls: {mode: terminate, certificates: [...]}"
# Keys that do nothing with a type, each with what it does in the others.
_FORWARD_ONLY: Final = (
    "targets", "send_proxy", "send_proxy_tlvs", "upstream_tls", "rewrite", "host", "half_open",
)  # fmt: skip
_USELESS: Final = {
    "forward": ("to", "status", "body", "file"),
    "redirect": (*_FORWARD_ONLY, "body", "file"),
    "respond": (*_FORWARD_ONLY, "to"),
}
_NO_URL: Final = frozenset(' "<>\\^`|')


def check_http(config: Config, taken: TakenTls, found: Findings) -> None:
    """Everything that one route says about HTTP, route by route."""
    for index, route in enumerate(config.routes):
        path = found.route(index)
        _check_keys(route, path, found)
        _check_headers(route.action, (*path, "action", "headers"), found)
        _check_answer(route.action, (*path, "action"), found)
        _check_templates(route, path, found)
        if route.match.protocol == "tcp":
            for key in http_keys(route):
                name = f"type: {route.action.type}" if key[-1] == "type" else str(key[-1])
                message = f"{name} is of HTTP, and this route is protocol: tcp"
                found.error((*path, *key), message, "leave protocol out, or the key")
            continue
        if index not in taken.clashes:
            _check_readable(route, taken.tls.get(index), path, found)
        _check_auth(route, taken.tls.get(index), path, found)


def _check_keys(route: Route, path: Path, found: Findings) -> None:
    action = route.action
    for name in _USELESS[action.type]:
        if not _is_given(action, name):
            continue
        if name == "upstream_tls" and action.tls is not None and action.tls.mode not in (
            "passthrough", "terminate",
        ):  # fmt: skip
            message = f"mode: {action.tls.mode} needs targets, and type: {action.type} has none"
            found.error((*path, "action", "tls", "mode"), message, "write mode: terminate")
            continue
        message = f"{name} has no effect with type: {action.type}"
        found.error((*path, "action", name), message, "leave it out, or change the type")


def _is_given(action: Action, name: str) -> bool:
    value = getattr(action, name)
    return value is not None and value != []


def _check_headers(action: Action, path: Path, found: Findings) -> None:
    headers = action.headers
    if headers is None:
        return
    if action.type == "forward" and headers.fields is not None:
        message = "with type: forward the fields of requests and of answers are apart"
        found.error(path, message, "write headers: {request: {set: {...}}, response: {...}}")
    rules = headers.rules.request if headers.rules is not None else None
    if action.type != "forward" and rules and (rules.set or rules.add or rules.remove):
        message = f"no target gets the request with type: {action.type}"
        found.error((*path, "request"), message, "write headers: {NAME: TEXT} for the answer")
    if action.type == "redirect" and headers.fields is not None:
        for name, _ in headers.fields:
            if name.lower() == "location":
                found.error((*path, name), "Location of a redirect is `to`", "leave it out")


def _check_answer(action: Action, path: Path, found: Findings) -> None:
    """Status, body and destination of redirects and of answers."""
    if action.type == "redirect":
        if action.status is not None and action.status not in REDIRECTS:
            known = ", ".join(map(str, REDIRECTS))
            message = f"{action.status} is no status of a redirect"
            found.error((*path, "status"), message, f"one of: {known}", code="value")
        _check_location(str(action.to), (*path, "to"), found)
    elif action.type == "respond":
        if action.body is not None and action.file is not None:
            message = "body and file are both the answer's body"
            found.error((*path, "file"), message, "write one of them")
        for name in ("body", "file"):
            if action.status in NO_BODY and getattr(action, name):
                message = f"an answer with status {action.status} has no body"
                found.error((*path, name), message, "leave it out, or change the status")


def _check_location(to: str, path: Path, found: Findings) -> None:
    text = to.lower()
    if wrong := _NO_URL.intersection(to):
        message = f"{short(to)} is no URL: {short(min(wrong))} is not in one"
        found.error(path, message, "write its escape, as %20", code="value")
    elif not to.isascii():
        message = f"{short(to)} is no URL: it is ASCII"
        found.error(path, message, "write other letters as escapes, names as xn--", code="value")
    elif not text.startswith(("http://", "https://", "/", "{")):
        message = f"{short(to)} is no URL, nor a path of this host"
        found.error(path, message, "write https://example.com/ or /path", code="value")


def _check_templates(route: Route, path: Path, found: Findings) -> None:
    """Names in braces that nothing stands for."""
    texts = list(_templates(route.action))
    if not texts:
        return
    paths = [PathPattern(one).params for one in route.match.paths]
    params = set(paths[0]).intersection(*paths[1:]) if paths else set()
    for place, text in texts:
        try:
            check_template(text, params)
        except ValueError as error:
            found.error((*path, "action", *place), str(error), code="value")


def _templates(action: Action) -> Iterator[tuple[Path, str]]:
    """The texts of an action that may have names in braces, each with its place."""
    if action.to is not None:
        yield ("to",), str(action.to)
    headers = action.headers
    if headers is None:
        return
    for name, values in headers.fields or ():
        for value in values:
            yield ("headers", name), value
    if headers.rules is None:
        return
    for side in ("request", "response"):
        rules: Any = getattr(headers.rules, side)
        for name, value in rules.set:
            yield ("headers", side, "set", name), str(value)
        for name, values in rules.add:
            for value in values:
                yield ("headers", side, "add", name), value


def _check_readable(route: Route, taken: Tls | None, path: Path, found: Findings) -> None:
    """Requests within TLS can be read only where it ends."""
    tls = route.action.tls
    if not reads_http(route):
        return
    why = _why_http(route)
    if tls is not None and not tls.terminates:
        message = f"{why} is of HTTP, which cannot be read while TLS stays closed"
        found.error((*path, "action", "tls"), message, _TERMINATE_HINT)
    elif tls is None and taken is None and is_for_tls_only(route):
        name = next(one for one in ("tls", "tls_versions", "alpn") if getattr(route.match, one))
        message = f"{why} is of HTTP, and the TLS of these clients is not ended here"
        found.error((*path, "match", name), message, _TERMINATE_HINT)
    for names, place in _offered(route, taken):
        if "h2" in names:
            message = "HTTP/2 is not available yet: requests could not be read"
            found.error((*path, *place), message, "write alpn: [http/1.1]", code="not_available")


def _why_http(route: Route) -> str:
    keys = http_keys(route)
    if not keys:
        return "protocol: http"
    return f"type: {route.action.type}" if keys[0][-1] == "type" else str(keys[0][-1])


def _offered(route: Route, taken: Tls | None) -> Iterator[tuple[list[Any], Path]]:
    """Protocols that may be agreed on with a client or a target, each with its key."""
    tls, upstream = route.action.tls, route.action.upstream_tls
    if tls is not None:
        yield list(tls.alpn), ("action", "tls", "alpn")
    elif taken is not None:
        yield list(taken.alpn), ("match",)
    if upstream is not None:
        yield list(upstream.alpn), ("action", "upstream_tls", "alpn")


def _check_auth(route: Route, taken: Tls | None, path: Path, found: Findings) -> None:
    auth, tls = route.security.auth, route.action.tls
    if auth is None:
        return
    is_ended = tls is not None and tls.terminates
    is_taken = tls is None and taken is not None and is_for_tls_only(route)
    if not (is_ended or is_taken or auth.basic.allow_plain or tls is not None):
        found.error(
            (*path, "security", "auth", "basic"),
            "passwords would come over connections that are not encrypted",
            f"{_TERMINATE_HINT} in the action, or allow_plain: true in basic",
        )


def check_user_identity(route: Route, place: Path, found: Findings) -> None:
    """``user`` in a match of identities, at ``place``."""
    if route.security.auth is None:
        message = "user is who has given a password, and this route asks for none"
        hint = "write auth: {basic: {realm: TEXT, users_file: FILE}} in security"
        found.error((*place, "user"), message, hint)
