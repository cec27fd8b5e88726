"""Checks of `tls` and `upstream_tls`, of criteria about TLS clients, and of `identities`.

Reads no file: see `supervisor/config_certificates.py` and, across routes, `config_overlap.py`.
"""

from __future__ import annotations

from typing import Final

from shared.config import Config, Route, Tls, UpstreamTls
from shared.config.identities import CERTIFICATE_FIELDS
from shared.units import parse_ports, short
from supervisor.config_ciphers import check_ciphers
from supervisor.config_findings import Findings
from supervisor.config_http import check_user_identity
from supervisor.config_positions import Path
from supervisor.config_protocol import reads_http, speaks_http
from supervisor.config_taken_tls import TakenTls

_HTTPS_PORT: Final = 443
_REENCRYPT_HINT: Final = "write tls: {mode: terminate-and-reencrypt, certificates: [...]}"

CipherVerdicts = dict[str, tuple[str, list[str]]]


def check_tls(config: Config, taken: TakenTls, found: Findings) -> None:
    """Everything that one route says about TLS, route by route."""
    verdicts: CipherVerdicts = {}  # the same list stands in many routes
    for index, route in enumerate(config.routes):
        _check_match(route, found.route(index, "match"), found)
        tls, upstream = route.action.tls, route.action.upstream_tls
        path = found.route(index, "action")
        if tls is not None and tls.terminates:
            _check_terminate(tls, (*path, "tls"), verdicts, found)
            if route.enabled and not speaks_http(route):
                _warn_of_https(route, found.route(index, "match", "ports"), found)
        elif tls is not None:
            _check_passthrough(tls, (*path, "tls"), found)
        if upstream is not None:
            _check_upstream(route, upstream, (*path, "upstream_tls"), found)
        ended = taken.tls.get(index) if tls is None else tls
        _check_identities(route, ended, found.route(index, "security", "identities"), found)


def _is_for_tls(route: Route) -> bool:
    """Whether TLS clients can get the route, and who else gets it names a domain in Host."""
    match = route.match
    if match.tls is False:
        return False
    wants = bool(match.tls or match.domains or match.tls_versions or match.alpn)
    return wants or route.action.tls is not None


def _check_match(route: Route, path: Path, found: Findings) -> None:
    match = route.match
    if match.tls is not False:
        return
    given = [name for name in ("tls_versions", "alpn") if getattr(match, name)]
    if route.action.tls is not None:
        given.append("the tls of its action")
    if given:
        message = f"{' and '.join(given)} can only be for TLS clients, and tls: false wants others"
        found.error((*path, "tls"), message, "leave tls out of match")
    elif match.domains and match.protocol == "tcp":
        message = "clients without TLS name a domain in HTTP alone, and this is protocol: tcp"
        found.error((*path, "tls"), message, "leave tls out of match, or protocol")


def _check_passthrough(tls: Tls, path: Path, found: Findings) -> None:
    """Keys that would do nothing, since TLS stays closed."""
    given = {
        "certificates": tls.certificates,
        "min_version": tls.min_version,
        "ciphers": tls.ciphers,
        "alpn": tls.alpn,
        "client_auth": tls.client_auth.mode != "none" or tls.client_auth.ca is not None,
    }
    for name, value in given.items():
        if value:
            message = f"{name} has no effect with mode: passthrough, where TLS stays closed"
            found.error((*path, name), message, "write mode: terminate, or leave it out")


def _check_terminate(tls: Tls, path: Path, verdicts: CipherVerdicts, found: Findings) -> None:
    if not tls.certificates:
        message = f"mode: {tls.mode} needs certificates"
        hint = "write certificates: [{cert: FILE, key: FILE}]"
        found.error((*path, "certificates"), message, hint, code="missing_field")
    _check_ciphers(tls, (*path, "ciphers"), verdicts, found)
    auth = tls.client_auth
    if auth.mode != "none" and auth.ca is None:
        message = f"mode: {auth.mode} needs ca, the authorities that sign clients' certificates"
        hint = "write client_auth: {mode: ..., ca: FILE}"
        found.error((*path, "client_auth"), message, hint, code="missing_field")
    elif auth.mode == "none" and auth.ca is not None:
        message = "ca has no effect: no client is asked for a certificate"
        found.error((*path, "client_auth", "ca"), message, "write mode: required, or optional")


def _check_ciphers(tls: Tls, path: Path, verdicts: CipherVerdicts, found: Findings) -> None:
    if tls.ciphers is None:
        return
    if tls.min_version == "1.3":
        message = "ciphers are those of TLS 1.2, which min_version excludes"
        found.error(path, message, "leave them out")
        return
    if tls.ciphers not in verdicts:
        verdicts[tls.ciphers] = check_ciphers(tls.ciphers)
    why, useless = verdicts[tls.ciphers]
    if why:
        hint = "a list as OpenSSL writes it, such as ECDHE+AESGCM:ECDHE+CHACHA20"
        found.error(path, f"{short(tls.ciphers)}: {why}", hint, code="value")
    for part in useless:
        found.warn(path, f"{short(part)} selects no cipher of TLS 1.2", "see `openssl ciphers`")


def _warn_of_https(route: Route, path: Path, found: Findings) -> None:
    for number, entry in enumerate(route.match.ports):
        if _HTTPS_PORT in parse_ports(entry).numbers():
            found.warn(
                (*path, number),
                f"route {short(str(route.name))} ends TLS on port 443 and relays what is inside as"
                " tcp: requests are not looked at, and a kept connection stays with one target",
                code="tcp_on_443",
            )
            return


def _check_upstream(route: Route, upstream: UpstreamTls, path: Path, found: Findings) -> None:
    tls = route.action.tls
    if tls is not None and not tls.terminates:
        message = "upstream_tls has no effect with mode: passthrough, where TLS stays closed"
        found.error(path, message, _REENCRYPT_HINT)
    elif tls is None and _is_for_tls(route) and not reads_http(route):
        message = "the client's TLS is not ended here, and would go to the target inside another"
        found.error(path, message, _REENCRYPT_HINT)
    if upstream.cert is None:
        for name in ("key", "password_file"):
            if getattr(upstream, name) is not None:
                message = f"{name} is without its certificate"
                found.error((*path, name), message, "write cert too", code="missing_field")
    if not upstream.verify:
        if route.enabled:
            found.warn(
                (*path, "verify"),
                f"route {short(str(route.name))} believes any certificate of its targets: whoever"
                " is in between can read and change everything",
                "write ca: FILE in place of verify: false",
                code="not_verified",
            )
        return
    if upstream.server_name is None:
        for number, target in enumerate(route.action.targets):
            if target.address.path:
                message = f"{short(target.name)} has no host name that a certificate could be for"
                place = (*path[:-1], "targets", number)
                found.error(place, message, "write server_name in upstream_tls")


def _check_identities(route: Route, tls: Tls | None, path: Path, found: Findings) -> None:
    """``tls``: the route's own, or what it takes of others."""
    tells_name = _is_for_tls(route) and (tls is not None or not reads_http(route))
    asks = tls is not None and tls.terminates and tls.client_auth.mode != "none"
    for number, identity in enumerate(route.security.identities):
        place = (*path, number, "match")
        given = [name for name, _ in identity.match.given()]
        if not given:
            message = "an empty match would be for everyone"
            hint = "name the client: sni, cn, san, subject, issuer, fingerprint or user"
            found.error(place, message, hint)
        for name in given:
            if name in CERTIFICATE_FIELDS and not asks:
                message = f"{name} is of a client's certificate, and this route asks for none"
                hint = "write tls: {mode: terminate, client_auth: {mode: required, ca: FILE}}"
                found.error((*place, name), message, hint)
            elif name == "user":
                check_user_identity(route, place, found)
            elif name == "sni" and not tells_name:
                message = "sni is of TLS clients, and this route is for others too"
                found.error((*place, name), message, "write tls: true in match")
