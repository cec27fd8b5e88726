"""TLS contexts of this worker: which one a ClientHello gets, and how long each of them lives.

The context is chosen before there is a TLS object: a context that is changed in OpenSSL's own
server name callback keeps the verify mode and the ticket keys of the one before, and lets clients
in without a certificate. So there are no callbacks here.

**Who may resume what.** A resumed handshake shows no certificate, so a ticket must be worthless
under any policy that could have refused the first handshake. Ticket keys, and the scope that stands
in each ticket, are derived from the supervisor's secret and from

- the listener group, and the policy of the route: verify mode and authority of clients, which the
  handshake that is left out would have checked;
- the ciphers: with TLS 1.2 a resumed session keeps its cipher, and OpenSSL looks for it in the
  client's list only, so a cipher that was taken out of the config would live on.

They are not derived from the certificate (a renewal would end resumption); nor from ``min_version``
(the version is negotiated before a session is looked at, and one of another version is not taken:
RFC 8446 section 4.2.11, OpenSSL's ssl_get_prev_session); nor from ALPN, which is negotiated anew
in each handshake (RFC 7301 section 3.1) and only matters to early data, which is never accepted.
"""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Iterator, Sequence
from typing import Final
from weakref import WeakSet, WeakValueDictionary

import msgspec

from shared.plan import AuthorityPlan, CertificatePlan, TlsPlan, UpstreamTlsPlan
from worker.key_kinds import Hello, kind_of, usable_keys
from worker.ticket_keys import SCOPE_BYTES, TicketKeys, derive
from worker.tls_material import (
    Steps,
    TlsObject,
    finish,
    load_authority,
    load_chain,
    new_context,
    wrap,
)
from worker.upstream_contexts import Key as UpstreamKey
from worker.upstream_contexts import UpstreamContext, Verified

_VERIFY: Final = {
    "none": ssl.CERT_NONE,
    "optional": ssl.CERT_OPTIONAL,
    "required": ssl.CERT_REQUIRED,
}


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """All of a context but its certificate. ``identity``: what its ticket keys are derived from."""

    min_version: str
    ciphers: str | None
    alpn: tuple[str, ...]
    client_auth: str
    authority: AuthorityPlan | None
    identity: bytes


Key = tuple[str, bytes, str, str | None, tuple[str, ...]]


class ServerContext:
    """A context with its certificate. ``asks``: for one of the client.

    ``resumes``: its tickets are good in every worker.
    """

    __slots__ = ("__weakref__", "asks", "certificate", "ctx", "identity", "resumes")

    def __init__(self, ctx: ssl.SSLContext, certificate: CertificatePlan, identity: bytes) -> None:
        self.ctx: Final = ctx
        self.asks: Final = ctx.verify_mode is not ssl.CERT_NONE
        self.certificate: Final = certificate
        self.identity: Final = identity
        self.resumes = False


def wrap_server(
    context: ssl.SSLContext, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO
) -> TlsObject:
    """The server's end of a connection: reads ``incoming``, writes ``outgoing``."""
    return wrap(context, incoming, outgoing, True)


class Contexts:
    """All contexts of a worker, by content; those that no generation uses any more are dropped.

    ``warning``: why sessions are resumed within this worker only, for the log; else "".
    """

    def __init__(self, keys: TicketKeys | None = None) -> None:
        self._keys: Final = TicketKeys() if keys is None else keys
        self._secret = b""
        self._derived: dict[bytes, bytes] = {}
        self._servers: WeakValueDictionary[Key, ServerContext] = WeakValueDictionary()
        self._upstreams: WeakValueDictionary[UpstreamKey, Verified] = WeakValueDictionary()
        self._terminators: WeakSet[Terminator] = WeakSet()
        self.warning: Final = (
            f"TLS sessions are resumed only by the worker that began them: {self._keys.reason}"
            if self._keys.reason
            else ""
        )

    def set_secret(self, secret: bytes) -> None:
        """Derive all ticket keys from this secret, at once: older tickets do not resume."""
        if secret == self._secret:
            return
        self._secret = secret
        self._derived.clear()
        if not self._keys.available:  # keys last as long as their context: begin with new ones
            self._servers.clear()
            for terminator in self._terminators:
                terminator.forget()
            return
        for context in self._servers.values():
            self._set_keys(context)

    def server(
        self,
        plan: TlsPlan,
        certificates: Sequence[CertificatePlan],
        authorities: Sequence[AuthorityPlan],
        group: str,
    ) -> Terminator:
        """What ends TLS for one route. ``certificates`` and ``authorities`` are the whole plan's.

        ``group`` names the listeners between which clients may resume. LookupError and ValueError
        (ssl.SSLError for ciphers) for a plan that makes no sense.
        """
        authority = None
        if plan.client_auth != "none":
            if plan.client_ca is None:
                raise ValueError(f"client_auth {plan.client_auth} without an authority")
            authority = authorities[plan.client_ca]
        if not plan.certificates:
            raise ValueError("TLS is to be terminated without a certificate")
        digest = "" if authority is None else authority.digest
        facts = (group, plan.policy, plan.client_auth, digest, plan.ciphers)
        policy = Policy(
            min_version=plan.min_version,
            ciphers=plan.ciphers,
            alpn=plan.alpn,
            client_auth=plan.client_auth,
            authority=authority,
            identity=msgspec.json.encode(facts),
        )
        terminator = Terminator(self, policy, [certificates[place] for place in plan.certificates])
        self._terminators.add(terminator)
        return terminator

    def upstream(
        self,
        plan: UpstreamTlsPlan,
        certificates: Sequence[CertificatePlan],
        authorities: Sequence[AuthorityPlan],
    ) -> UpstreamContext:
        """What speaks TLS to the targets of one route; as `server`."""
        authority = None
        if plan.verify:
            if plan.ca is None:
                raise ValueError("targets are to be verified without an authority")
            authority = authorities[plan.ca]
        certificate = None if plan.certificate is None else certificates[plan.certificate]
        return UpstreamContext(self._upstreams, plan, certificate, authority)

    def known(self, certificate: CertificatePlan, policy: Policy) -> ServerContext | None:
        """The context of this content, where there is one."""
        return self._servers.get(_key(certificate, policy))

    def build(self, certificate: CertificatePlan, policy: Policy) -> Steps[ServerContext]:
        """The context of this content, built where there is none.

        OSError (ssl.SSLError among them) where it cannot be built; nothing is kept of it then.
        """
        key = _key(certificate, policy)
        context = self._servers.get(key)
        if context is not None:
            return context
        ctx = yield from _new_server(certificate, policy)
        context = self._servers.get(key)  # a handshake may not have waited for the steps
        if context is not None:
            return context
        context = ServerContext(ctx, certificate, policy.identity)
        if self._keys.available:
            scope = hashlib.sha256(policy.identity).digest()[:SCOPE_BYTES]
            self._keys.confine(ctx, scope)
        self._set_keys(context)
        self._servers[key] = context
        return context

    def _set_keys(self, context: ServerContext) -> None:
        if not self._secret or not self._keys.available:
            return
        keys = self._derived.get(context.identity)
        if keys is None:
            keys = self._derived[context.identity] = derive(self._secret, context.identity)
        self._keys.set(context.ctx, keys)
        context.resumes = True


class Terminator:
    """The contexts of one route in one generation; `choose` has the one for a ClientHello.

    By the name that the client asks for: exact, else the wildcard that covers it, else the first
    certificate. Of several for one name, one with an elliptic curve where the client can certainly
    use it, since a handshake costs half as much with it; else one with RSA. A wildcard's stands in
    for exact ones whose kinds of key the client cannot use.
    """

    __slots__ = (
        "__weakref__", "_built", "_certificates", "_contexts", "_default", "_exact", "_kinds",
        "_policy", "_wildcard",
    )  # fmt: skip

    def __init__(
        self, contexts: Contexts, policy: Policy, certificates: list[CertificatePlan]
    ) -> None:
        self._contexts = contexts
        self._policy = policy
        self._certificates = certificates
        self._built = [contexts.known(certificate, policy) for certificate in certificates]
        first = frozenset(certificates[0].names)
        self._default = self._ordered(
            [
                place
                for place, certificate in enumerate(certificates)
                if place == 0 or frozenset(certificate.names) == first
            ]
        )
        self._exact: dict[str, tuple[int, ...]] = {}
        self._wildcard: dict[str, tuple[int, ...]] = {}  # by what follows "*."
        self._kinds = usable_keys(policy.ciphers if len(certificates) > 1 else None)
        if len(certificates) > 1:
            self._index()

    def _index(self) -> None:
        names: dict[str, list[int]] = {}
        for place, certificate in enumerate(self._certificates):
            for name in dict.fromkeys(certificate.names):
                names.setdefault(name, []).append(place)
        for name, places in names.items():
            if name.startswith("*."):
                self._wildcard[name[2:]] = self._ordered(places)
            else:
                self._exact[name] = self._ordered(places)
        for name, exact in self._exact.items():
            kinds = {self._kind(place) for place in exact}
            others = [one for one in self._covering(name, ()) if self._kind(one) not in kinds]
            if others:
                self._exact[name] = (*exact, *others)

    def _kind(self, place: int) -> str:
        return kind_of(self._certificates[place].key_algorithm)

    def _ordered(self, places: list[int]) -> tuple[int, ...]:
        """One certificate for each kind of key, elliptic curves before RSA, else as configured."""
        kinds: dict[str, int] = {}
        for place in places:
            kinds.setdefault(self._kind(place), place)
        rsa = kinds.pop("RSA", None)
        return (*kinds.values(), *(() if rsa is None else (rsa,)))

    def choose(self, hello: Hello) -> ServerContext:
        """The context for this ClientHello, built where nobody has asked for it before.

        OSError, ssl.SSLError among them, where it cannot be built now: a failed handshake.
        """
        places = self._default
        if self._exact or self._wildcard:
            name = hello.server_name
            if name:
                places = self._exact.get(name) or self._covering(name, self._default)
        place = places[0] if len(places) == 1 else self._usable(places, hello)
        return self._built[place] or finish(self._build(place))

    def _covering(self, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
        """`*` is one whole label and the first: RFC 6125 section 6.4.3."""
        label, _, parent = name.partition(".")
        return (self._wildcard.get(parent) if label else None) or default

    def _usable(self, places: tuple[int, ...], hello: Hello) -> int:
        """The first that this client can use, else the first."""
        for place in places:
            if self._kinds.has(self._certificates[place].key_algorithm, hello):
                return place
        return places[0]

    def _build(self, place: int) -> Steps[ServerContext]:
        context = yield from self._contexts.build(self._certificates[place], self._policy)
        self._built[place] = context
        return context

    def build(self, place: int) -> Steps[bool]:
        """Have the context of this certificate; whether there was none of this content.

        As `choose`.
        """
        is_new = self._contexts.known(self._certificates[place], self._policy) is None
        yield from self._build(place)
        return is_new

    def first(self) -> Iterator[int]:
        """Places of the default that are not built yet."""
        return (place for place in self._default if self._built[place] is None)

    def rest(self) -> Iterator[int]:
        """All places that are not built yet."""
        return (place for place, context in enumerate(self._built) if context is None)

    def forget(self) -> None:
        """Build every context anew at its next use."""
        self._built = [None] * len(self._built)


def _key(certificate: CertificatePlan, policy: Policy) -> Key:
    # The identity has verify mode and authority in it, and the group.
    return (
        certificate.digest,
        policy.identity,
        policy.min_version,
        policy.ciphers,
        policy.alpn,
    )


def _new_server(certificate: CertificatePlan, policy: Policy) -> Steps[ssl.SSLContext]:
    context = new_context(ssl.PROTOCOL_TLS_SERVER, policy.min_version, policy.alpn)
    context.num_tickets = 1  # a second one costs each handshake some 6 %
    if policy.ciphers is not None:
        context.set_ciphers(policy.ciphers)
    load_chain(context, certificate)
    if policy.authority is not None:
        yield from load_authority(context, policy.authority)
        context.verify_mode = _VERIFY[policy.client_auth]
    return context
