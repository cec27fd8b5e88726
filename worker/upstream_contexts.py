"""TLS towards targets: one context for each content.

Sessions with targets are not resumed: in CPython 3.11 each look at a connection's `session` copies
it and leaks the copy, some 6 KiB, so that a worker would grow with every new session.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, MutableMapping
from typing import Final

from shared.plan import AuthorityPlan, CertificatePlan, UpstreamTlsPlan
from worker.tls_material import (
    Steps,
    TlsObject,
    finish,
    load_authority,
    load_chain,
    new_context,
    wrap,
)

# digest of the authority (None: nothing is verified), of our certificate, and ALPN
Key = tuple[str | None, str | None, tuple[str, ...]]


class Verified:
    """A context of the client's side, as long as somebody uses it."""

    __slots__ = ("__weakref__", "ctx")

    def __init__(self, ctx: ssl.SSLContext) -> None:
        self.ctx: Final = ctx


class UpstreamContext:
    """How one route speaks TLS to its targets. The context itself is shared by equal content.

    With the system's authorities it takes 731 KiB and 15 ms to build, hence at most once each.
    """

    __slots__ = ("_authority", "_cache", "_certificate", "_context", "_key", "_plan")

    def __init__(
        self,
        cache: MutableMapping[Key, Verified],
        plan: UpstreamTlsPlan,
        certificate: CertificatePlan | None,
        authority: AuthorityPlan | None,
    ) -> None:
        self._cache = cache
        self._plan = plan
        self._certificate = certificate
        self._authority = authority
        self._key: Key = (
            None if authority is None else authority.digest,
            None if certificate is None else certificate.digest,
            plan.alpn,
        )
        self._context = cache.get(self._key)

    @property
    def ctx(self) -> ssl.SSLContext:
        """The context, built where there is none; OSError, ssl.SSLError among them, as `wrap`."""
        return (self._context or finish(self._build())).ctx

    def wrap(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, host: str) -> TlsObject:
        """Our end of a connection to ``host``, a name or an IP address; "" for a Unix socket.

        ``server_name``, else the host, is verified and sent as SNI; an address is verified as such
        and never sent (RFC 6066 section 3).
        OSError, ssl.SSLError among them, where there is no context or no name to verify.
        """
        context = self._context or finish(self._build())
        name = self._name(host)
        try:
            return wrap(context.ctx, incoming, outgoing, False, name or None)
        except (ValueError, TypeError) as error:  # not ASCII; a NUL in it
            raise ssl.SSLError(f"{name!r} is no name of a TLS server: {error}") from None

    def identity(self, host: str) -> tuple[object, ...]:
        """What is the same for connections to ``host`` that may stand for each other."""
        return self._key, self._plan.server_name or host, self._plan.verify

    def _name(self, host: str) -> str:
        name = self._plan.server_name or host
        # A zone is no part of an address, a dot at the end none of a name (RFC 6066 section 3).
        name = name.partition("%")[0] if ":" in name else name.rstrip(".")
        if self._plan.verify and not name:
            raise ssl.SSLError("the target has no host name to verify; set server_name")
        return name

    def _build(self) -> Steps[Verified]:
        context = self._cache.get(self._key)
        if context is None:
            ctx = yield from _new_client(self._plan, self._certificate, self._authority)
            context = self._cache.get(self._key)  # a connection may not have waited for the steps
            if context is None:
                context = self._cache[self._key] = Verified(ctx)
        self._context = context
        return context

    def build(self, place: int) -> Steps[bool]:
        """Have the context, ``place`` 0; whether there was none of this content. As `wrap`."""
        is_new = self._key not in self._cache
        yield from self._build()
        return is_new

    def first(self) -> Iterator[int]:
        """0 where the context is not built yet."""
        if self._context is None:
            yield 0

    def rest(self) -> Iterator[int]:
        """Nothing: there is one context."""
        return iter(())


def _new_client(
    plan: UpstreamTlsPlan, certificate: CertificatePlan | None, authority: AuthorityPlan | None
) -> Steps[ssl.SSLContext]:
    context = new_context(ssl.PROTOCOL_TLS_CLIENT, alpn=plan.alpn)
    if authority is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        yield from load_authority(context, authority)
    if certificate is not None:
        load_chain(context, certificate)
    return context
