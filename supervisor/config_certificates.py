"""The files of certificates and keys that a config names: read and checked with it.

What they hold goes into the config's own values, as with list files, so that compiling a config
opens nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import structs

from shared.config import (
    AuthorityFile,
    Certificate,
    ClientAuth,
    Config,
    Tls,
    UpstreamTls,
    decode_hook,
)
from shared.errors import CertificateError
from shared.units import short
from supervisor.config_ciphers import serves
from supervisor.config_findings import Findings
from supervisor.config_positions import Path, path_text
from supervisor.config_walk import REFUSALS

if TYPE_CHECKING:
    from supervisor.certificates import CertificateStore


class CertificateFiles:
    """The certificates of one config. ``directory``: where relative paths start."""

    def __init__(self, directory: FilePath) -> None:
        self._directory = directory
        self._store: CertificateStore | None = None

    def fill(
        self, files: Certificate | UpstreamTls, path: Path, found: Findings, *, is_client: bool
    ) -> bool:
        """Read a certificate and its key and give them to ``files.cert``; False: an error.

        ``path`` is that of the mapping. ``is_client``: we show it to a target.
        """
        if files.cert is None:
            return True
        cert, key, password = (
            self._directory / name if name is not None else None
            for name in (files.cert, files.key, files.password_file)
        )
        assert cert is not None
        store = self._opened()
        seen = len(store.warnings)
        where = (*path, "cert")
        try:
            plan = store.certificate(cert, key, password, path_text(where), is_client=is_client)
        except CertificateError as error:
            names = {str(password): "password_file", str(key): "key", str(cert): "cert"}
            self._refuse(error, (*path, names.get(error.path, "cert")), found)
            return False
        self._pass_on(store, seen, where, found)
        # The label in counters is the path as it is written, wherever the config lies.
        files.cert.fill(structs.replace(plan, name=str(files.cert)))
        return True

    def fill_authority(self, file: AuthorityFile | None, path: Path, found: Findings) -> None:
        """The same for authorities; ``path`` is that of their key."""
        if file is None:
            return
        store = self._opened()
        seen = len(store.warnings)
        place = self._directory / file if file else None
        try:
            plan = store.authority(place, path_text(path))
        except CertificateError as error:
            self._refuse(error, path, found)
            return
        self._pass_on(store, seen, path, found)
        file.fill(structs.replace(plan, name=str(file)) if file else plan)

    def _opened(self) -> CertificateStore:
        if self._store is None:
            # Only now: the library costs 20 MiB and a tenth of a second, and many need none of it.
            from supervisor.certificates import CertificateStore

            self._store = CertificateStore()
        return self._store

    @staticmethod
    def _refuse(error: CertificateError, path: Path, found: Findings) -> None:
        found.error(path, f"{error.path}: {error.reason}", error.hint, code="certificate")

    @staticmethod
    def _pass_on(store: CertificateStore, seen: int, path: Path, found: Findings) -> None:
        for problem in store.warnings[seen:]:
            found.warn(path, problem.message, problem.hint, code=problem.code)


def read_certificates(config: Config, found: Findings, files: CertificateFiles) -> None:
    """Fill all that enabled routes name; certificates for none of a route's domains, and ciphers
    for none of its certificates, warn.
    """
    for index, route in enumerate(config.routes):
        if not route.enabled:
            continue  # as if it were not written: its files may be missing
        tls = route.action.tls
        if tls is not None and tls.terminates:
            path = found.route(index, "action", "tls")
            filled = [
                files.fill(one, (*path, "certificates", number), found, is_client=False)
                for number, one in enumerate(tls.certificates)
            ]
            if tls.client_auth.mode != "none":
                files.fill_authority(tls.client_auth.ca, (*path, "client_auth", "ca"), found)
            if filled and all(filled):
                names = {name for one in tls.certificates for name in one.cert.plan.names}
                _check_names(route.match.domains, names, index, found)
                _check_ciphers(tls, (*path, "ciphers"), found)
        upstream = route.action.upstream_tls
        if upstream is not None:
            path = found.route(index, "action", "upstream_tls")
            files.fill(upstream, path, found, is_client=True)
            files.fill_authority(upstream.ca, (*path, "ca"), found)


def read_damaged(action: object, path: Path, found: Findings, files: CertificateFiles) -> None:
    """As `read_certificates`, for an ``action`` as it stands in the file that is damaged elsewhere.

    Only errors come of it.
    """
    if not isinstance(action, dict):
        return
    tls = action.get("tls")
    if isinstance(tls, dict) and tls.get("mode", "passthrough") != "passthrough":
        given = tls.get("certificates")
        for number, each in enumerate(given if isinstance(given, list) else []):
            one = _sound(each, Certificate)
            if one is not None:
                place = (*path, "tls", "certificates", number)
                files.fill(one, place, found, is_client=False)
        auth = _sound(tls.get("client_auth"), ClientAuth)
        if auth is not None and auth.mode != "none":
            files.fill_authority(auth.ca, (*path, "tls", "client_auth", "ca"), found)
    upstream = _sound(action.get("upstream_tls"), UpstreamTls)
    if upstream is not None:
        files.fill(upstream, (*path, "upstream_tls"), found, is_client=True)
        files.fill_authority(upstream.ca, (*path, "upstream_tls", "ca"), found)


def _sound(value: object, kind: type[Any]) -> Any:
    """The value as this type; None where it is wrong, which the walker reports."""
    try:
        return msgspec.convert(value, kind, dec_hook=decode_hook)
    except REFUSALS:
        return None


def _check_ciphers(tls: Tls, path: Path, found: Findings) -> None:
    """Ciphers that need another kind of key than there is: TLS 1.2 would fail, and only then."""
    kinds = {one.cert.plan.key_algorithm for one in tls.certificates}
    if tls.ciphers is None or any(serves(tls.ciphers, kind) for kind in kinds):
        return
    found.warn(
        path,
        "no certificate of the route has a key that its ciphers can be used with",
        f"clients get in with TLS 1.3 only; the kinds of key are {', '.join(sorted(kinds))}",
        code="certificate",
    )


def _check_names(domains: Iterable[str], names: set[str], index: int, found: Findings) -> None:
    """Domains for which there is no certificate: clients would be shown the default."""
    missing = [(at, str(one)) for at, one in enumerate(domains) if not _is_named(str(one), names)]
    if missing:
        number, first = missing[0]
        others = f" and {len(missing) - 1} more of its domains" if len(missing) > 1 else ""
        found.warn(
            found.route(index, "match", "domains", number),
            f"no certificate of the route is for {short(first)}{others}",
            "clients are shown the first one, and most refuse it",
            code="certificate",
        )


def _is_named(domain: str, names: set[str]) -> bool:
    """Whether a certificate is for this domain, or for some name that a wildcard stands for.

    A wildcard of a certificate stands for one label (RFC 6125 section 6.4.3).
    """
    if domain.startswith("*."):
        return any(name.endswith(domain[1:]) for name in names)
    if domain.endswith(".*"):
        return any(name.removeprefix("*.").startswith(domain[:-1]) for name in names)
    return domain in names or f"*.{domain.partition('.')[2]}" in names
