"""`tls` and `upstream_tls` of routes to plans; each certificate is kept once."""

from __future__ import annotations

import hashlib
from typing import Final, Literal, cast

import msgspec
from msgspec import structs

from shared.config import AuthorityFile, CertificateFile, Route, Tls, UpstreamTls
from shared.plan import AuthorityPlan, CertificatePlan, RoutePlan, TlsPlan, UpstreamTlsPlan
from supervisor.config_protocol import is_for_tls_only, reads_http

_DIGEST_BYTES: Final = 16
_encode: Final = msgspec.msgpack.Encoder(order="deterministic").encode


class TlsPlans:
    """Compiles TLS of one generation; the lists are what its plans name by place.

    Expects files that were read (`supervisor/config_certificates.py`).
    """

    def __init__(self) -> None:
        self.certificates: list[CertificatePlan] = []
        self.authorities: list[AuthorityPlan] = []
        # By path as well as content: the path is the name under which it is counted and shown.
        self._places: dict[tuple[str, str, str], int] = {}
        self._policies: dict[tuple[str, str], str] = {}

    def terminate(self, tls: Tls | None) -> TlsPlan | None:
        """How TLS of clients ends; None where it does not."""
        if tls is None or not tls.terminates:
            return None
        auth = tls.client_auth
        ca = self._authority(auth.ca) if auth.mode != "none" else None
        return TlsPlan(
            certificates=tuple(self._certificate(one.cert) for one in tls.certificates),
            min_version=cast(Literal["1.2", "1.3"], tls.min_version or "1.2"),
            ciphers=tls.ciphers,
            alpn=tuple(dict.fromkeys(map(str, tls.alpn))),
            client_auth=auth.mode,
            client_ca=ca,
            policy=self._policy(auth.mode, "" if ca is None else self.authorities[ca].digest),
        )

    def upstream(self, tls: UpstreamTls | None) -> UpstreamTlsPlan | None:
        """How targets are spoken to over TLS; None where they get plain bytes."""
        if tls is None:
            return None
        return UpstreamTlsPlan(
            verify=tls.verify,
            ca=self._authority(tls.ca) if tls.verify and tls.ca is not None else None,
            server_name=tls.server_name,
            certificate=None if tls.cert is None else self._certificate(tls.cert),
            alpn=tuple(dict.fromkeys(map(str, tls.alpn))),
        )

    def content(self, plan: RoutePlan) -> bytes:
        """Equal exactly for equal TLS, in whatever place its certificates are."""
        ended, begun = plan.terminate, plan.upstream_tls
        if ended is None and begun is None:
            return b""
        digests: list[str | None] = []
        if ended is not None:
            digests += (self.certificates[place].digest for place in ended.certificates)
            digests.append(self._digest_of(ended.client_ca))
            ended = structs.replace(ended, certificates=(), client_ca=None)
        if begun is not None:
            at = begun.certificate
            digests.append(None if at is None else self.certificates[at].digest)
            digests.append(self._digest_of(begun.ca))
            begun = structs.replace(begun, certificate=None, ca=None)
        return _encode((digests, ended, begun))

    def _digest_of(self, authority: int | None) -> str | None:
        return None if authority is None else self.authorities[authority].digest

    def _certificate(self, file: CertificateFile) -> int:
        key = "certificate", file.plan.name, file.plan.digest
        place = self._places.setdefault(key, len(self.certificates))
        if place == len(self.certificates):
            self.certificates.append(file.plan)
        return place

    def _authority(self, file: AuthorityFile | None) -> int | None:
        if file is None:
            return None
        key = "authority", file.plan.name, file.plan.digest
        place = self._places.setdefault(key, len(self.authorities))
        if place == len(self.authorities):
            self.authorities.append(file.plan)
        return place

    def _policy(self, mode: str, ca_digest: str) -> str:
        """Of nothing else: a certificate's renewal must not end resumption (design section 8)."""
        if (mode, ca_digest) not in self._policies:
            content = _encode((mode, ca_digest))
            digest = hashlib.blake2b(content, digest_size=_DIGEST_BYTES).hexdigest()
            self._policies[mode, ca_digest] = digest
        return self._policies[mode, ca_digest]


def is_for_tls(route: Route, taken: Tls | None = None) -> bool | None:
    """``RoutePlan.tls``: what only a TLS client can meet makes the route one for TLS clients.

    ``taken``: the `tls` of others that it takes (`supervisor/config_taken_tls.py`); without it a
    route that reads requests and ends no TLS is for other clients. With domains alone it stays
    open, since clients without TLS may name one too.
    """
    if is_for_tls_only(route):
        return True
    if taken is None and reads_http(route):
        return False
    return route.match.tls
