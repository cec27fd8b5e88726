"""Who a client is by its verified certificate, and which clients a route lets in for it.

`Identity` has the facts in the shape in which rules name them; `IdentityRules` are the
``identities`` of one route (design section 4, "Access rules"). Both are asked after the handshake,
for passed-through TLS with the name of the ClientHello alone, and before a target is dialled; rules
that name a user (RFC 7617) once a request has shown who that is.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from typing import Any, Final, Protocol

from msgspec import Struct

from shared.address_set import Addresses
from shared.plan import IdentityPlan
from shared.units import short

# Names of attributes as RFC 4514 section 3 has them; others as OpenSSL calls them.
_ATTRIBUTES: Final = {
    "commonName": "CN",
    "localityName": "L",
    "stateOrProvinceName": "ST",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
    "streetAddress": "STREET",
    "domainComponent": "DC",
    "userId": "UID",
}
_SPECIAL: Final = re.compile(r'["+,;<>\\]')  # RFC 4514 section 2.4
# Kinds of names as `ssl` calls them, and as rules and `openssl x509` do.
_KINDS: Final = {
    "DNS": "DNS",
    "email": "email",
    "URI": "URI",
    "IP Address": "IP",
    "DirName": "dirName",
    "Registered ID": "RID",
}
_KIND_OF: Final = {
    **{kind.lower(): kind for kind in _KINDS.values()},
    "ip address": "IP",  # as `openssl x509 -text` writes it
}
_FOLDED: Final = frozenset({"DNS", "IP"})  # kinds without upper and lower case

Name = Sequence[Sequence[tuple[str, str]]]  # as `ssl` has it: RDNs, each of some attributes


class Peer(Protocol):
    """What has the certificate: a TLS object after its handshake."""

    def getpeercert(self, der: bool = ..., /) -> Any: ...


class Identity(Struct, frozen=True, kw_only=True):
    """The facts of a verified client certificate.

    ``subject`` and ``issuer`` as RFC 4514 writes names, the last part first:
    "CN=alice,O=Example,C=DE". ``cn``: the first CN of the subject, "" if none. ``san``: each with
    its kind, "DNS:a.example", "email:a@b.example", "URI:spiffe://x/y", "IP:10.0.0.1"; DNS names are
    in lower case. ``fingerprint``: SHA-256 of the certificate, 64 digits in lower case.
    """

    subject: str
    cn: str
    san: tuple[str, ...]
    issuer: str
    fingerprint: str


def identity_of(peer: Peer) -> Identity | None:
    """Who the client is; None where it has shown no certificate, or nobody verified it.

    OSError (`ssl.SSLError` among them) for a certificate that cannot be read.
    """
    try:
        certificate = peer.getpeercert()
        if not certificate:
            return None
        return read_identity(certificate, peer.getpeercert(True))
    except ValueError as error:  # text that is not in the encoding that it claims
        raise OSError(f"the client's certificate cannot be read: {error}") from None


def read_identity(certificate: Mapping[str, Any], der: bytes) -> Identity:
    """The facts of a certificate from what `ssl.SSLSocket.getpeercert` returns, both ways."""
    subject: Name = certificate.get("subject", ())
    names = (value for part in subject for key, value in part if key == "commonName")
    san = (
        f"{_KINDS[kind]}:{_san_value(kind, value)}"
        for kind, value in certificate.get("subjectAltName", ())
        if kind in _KINDS
    )
    return Identity(
        subject=distinguished_name(subject),
        cn=next(names, ""),
        san=tuple(san),
        issuer=distinguished_name(certificate.get("issuer", ())),
        fingerprint=hashlib.sha256(der).hexdigest(),
    )


def _san_value(kind: str, value: Any) -> str:
    if kind == "DirName":
        return distinguished_name(value)
    text = str(value)
    if kind == "DNS":
        return text.lower()
    if kind == "IP Address":
        try:
            return str(ip_address(text.strip()))  # `ssl` writes 2001:DB8:0:0:0:0:0:1
        except ValueError:
            return text
    return text


def distinguished_name(name: Name) -> str:
    """A name as RFC 4514 section 2 writes it."""
    return ",".join(
        "+".join(f"{_ATTRIBUTES.get(key, key)}={_escaped(value)}" for key, value in part)
        for part in reversed(name)
    )


def _escaped(value: str) -> str:
    text = _SPECIAL.sub(r"\\\g<0>", value).replace("\0", "\\00")
    if text.startswith(("#", " ")):
        text = "\\" + text
    if text.endswith(" ") and len(value) > 1:
        text = text[:-1] + "\\ "
    return text


def glob(pattern: str, *, folds: bool = False) -> re.Pattern[str]:
    """`*` is any characters, `?` is one, the rest is itself; ``folds``: in upper and lower case.

    What a `*` took is not given back (atomic groups), so no text takes more than linear time for
    each `*`.
    """
    first, *others = (
        "".join("." if one == "?" else re.escape(one) for one in piece)
        for piece in pattern.split("*")
    )
    last = f".*{others.pop()}" if others else ""
    source = first + "".join(f"(?>.*?{piece})" for piece in others if piece) + last
    return re.compile(source, re.DOTALL | (re.IGNORECASE if folds else 0))


class _Glob:
    """A glob that is compiled when it is first asked: a reload may bring thousands of them."""

    __slots__ = ("_exact", "_folded", "_text")

    def __init__(self, text: str) -> None:
        self._text = text
        self._exact: re.Pattern[str] | None = None
        self._folded: re.Pattern[str] | None = None

    def takes(self, value: str, *, folds: bool = False) -> bool:
        """Whether the whole value matches."""
        if not value:
            return False
        if folds:
            if self._folded is None:
                self._folded = glob(self._text, folds=True)
            return self._folded.fullmatch(value) is not None
        if self._exact is None:
            self._exact = glob(self._text)
        return self._exact.fullmatch(value) is not None


class _Test:
    """One field and its glob. A fact that a client does not have matches nothing, not even `*`."""

    __slots__ = ("_field", "_glob", "_kind")

    def __init__(self, field: str, pattern: str) -> None:
        self._field = field
        self._kind = ""
        if field == "fingerprint":  # `openssl x509 -fingerprint` writes AA:BB:CC
            pattern = pattern.replace(":", "").lower()
        elif field == "sni":
            pattern = pattern.rstrip(".")
        elif field == "san":
            kind, colon, rest = pattern.partition(":")
            if colon and kind.lower() in _KIND_OF:
                self._kind, pattern = _KIND_OF[kind.lower()], rest
        elif field not in ("cn", "subject", "issuer", "user"):
            raise ValueError(f"{short(field)} is no field of an identity")
        self._glob = _Glob(pattern)

    def holds(self, sni: str, identity: Identity | None, user: str) -> bool:
        """Whether this client is meant."""
        if self._field == "sni":
            return self._glob.takes(sni, folds=True)
        if self._field == "user":
            return self._glob.takes(user)
        if identity is None:
            return False
        if self._field == "san":
            return any(self._is_san(*name.split(":", 1)) for name in identity.san)
        return self._glob.takes(getattr(identity, self._field))

    def _is_san(self, kind: str, value: str) -> bool:
        if self._kind and kind != self._kind:
            return False
        return self._glob.takes(value, folds=kind in _FOLDED)


class _Entry:
    """One rule: whom it is for, and from where they may come."""

    __slots__ = ("_allow", "_block", "_tests", "text")

    def __init__(self, place: int, plan: IdentityPlan, sets: Sequence[Addresses]) -> None:
        self._tests = [_Test(field, pattern) for field, pattern in plan.match]
        self._allow = None if plan.allow is None else sets[plan.allow]
        self._block = None if plan.block is None else sets[plan.block]
        facts = ", ".join(f"{field} {short(pattern)}" for field, pattern in plan.match)
        self.text = f"identities[{place}] ({facts})" if facts else f"identities[{place}]"

    def matches(self, sni: str, identity: Identity | None, user: str) -> bool:
        """Whether this entry is the one for the client, if none before it is."""
        return all(test.holds(sni, identity, user) for test in self._tests)

    def refusal(self, ip: str) -> str:
        """Which list keeps the address out, "" if none does. Block beats allow."""
        if self._block is not None and self._block.contains(ip):
            return "block"
        if self._allow is not None and not self._allow.contains(ip):
            return "allow"
        return ""


class IdentityRules:
    """The ``identities`` of one route. The first entry that matches rules; none: refused.

    ``asks_certificate``: whether any entry names a fact of the certificate, so that an `Identity`
    is of use. ``asks_user``: whether any names a user: nobody can be judged without a request then.
    """

    __slots__ = ("_entries", "asks_certificate", "asks_user")

    def __init__(self, plans: Sequence[IdentityPlan], sets: Sequence[Addresses]) -> None:
        """IndexError for a set that is not there, ValueError for a field that is none."""
        self._entries = [_Entry(place, plan, sets) for place, plan in enumerate(plans)]
        fields = {field for plan in plans for field, _ in plan.match}
        self.asks_certificate: Final = bool(fields - {"sni", "user"})
        self.asks_user: Final = "user" in fields

    def judge(self, sni: str, identity: Identity | None, ip: str, user: str = "") -> bool:
        """Whether the client may go on.

        ``sni``: the ClientHello's name, "" if none. ``ip``: the client address, IPv4, IPv6 or
        mapped; "" on a Unix socket, which no list holds. ``user``: who has shown the right
        password, "" if nobody. ValueError where ``ip`` is no IP address.
        """
        for entry in self._entries:
            if entry.matches(sni, identity, user):
                return not entry.refusal(ip)
        return not self._entries

    def why(self, sni: str, identity: Identity | None, ip: str, user: str = "") -> str:
        """What `judge` went by, for the log: the entry and the list, nothing of the certificate
        or of the user."""
        for entry in self._entries:
            if not entry.matches(sni, identity, user):
                continue
            refusal = entry.refusal(ip)
            client = ip or "a client on a Unix socket"
            if refusal == "block":
                return f"{entry.text}: {client} is in its block list"
            if refusal == "allow":
                return f"{entry.text}: {client} is not in its allow list"
            return f"{entry.text}: {client} is let in"
        if not self._entries:
            return "no identities are asked for"
        shown = "a client certificate" if identity is not None else "no client certificate"
        return f"no entry of identities matches a client with {shown}"
