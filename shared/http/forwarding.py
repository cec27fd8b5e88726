"""Who asks, and what the target is told of it (design section 5).

What a client says about itself in forwarding fields is dropped, and written anew from what the
connection shows. From a trusted forwarder it is believed: the client is then the rightmost address
of X-Forwarded-For that is no trusted forwarder's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from msgspec import Struct

from shared.http.forwarded import (
    Element,
    canonical_ip,
    read_forwarded,
    read_node,
    write_element,
    write_node,
)  # fmt: skip
from shared.http.head import FORWARDING_OF_OTHERS, Fields, Request
from shared.http.memo import new_key, remember
from shared.networks import NetworkSet

NO_PARAMS: Final[Mapping[str, str]] = MappingProxyType({})
_FORWARDERS: Final = 64  # lists of networks in use at a time; more are made anew
_REQUEST_ID: Final = re.compile(r"[!-~]{1,128}")
_PORT: Final = re.compile(r"[1-9][0-9]{0,4}")
# RFC 3986 section 3.2, without user information and escapes: a name, or IPv6 in brackets.
_AUTHORITY: Final = re.compile(
    r"(?:[A-Za-z0-9._~-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{0,5})?"
)
_SCHEMES: Final = {"http": "http", "https": "https", "ws": "http", "wss": "https"}


class Origin:
    """Where the requests of one client connection come from.

    ``client_ip``: of the connection, "" on a Unix socket; ``port``: that the client came to;
    ``scheme``: http or https, as the client speaks to us. ``address``: the IP address that it
    dialled; "" on a Unix socket.
    """

    __slots__ = (
        "_asked_by", "_authority", "_is_trusted", "_lines", "address", "client_ip", "client_port",
        "port", "scheme", "sni",
    )  # fmt: skip

    def __init__(
        self, client_ip: str, client_port: int, scheme: str, port: int, sni: str = "",
        address: str = "",
    ) -> None:  # fmt: skip
        self.client_ip = client_ip
        self.client_port = client_port
        self.scheme = scheme
        self.port = port
        self.sni = sni
        self.address = address
        self._authority = ""
        self._lines = b""
        self._asked_by = 0
        self._is_trusted = False

    def lines(self, authority: str) -> bytes:
        """The forwarding fields of a request to this host, each line with its CRLF."""
        if authority != self._authority or not self._lines:
            ip = written_ip(self.client_ip)
            forwarded = write_element(ip, self.scheme, authority)
            self._lines = _forwarding_lines([ip], ip, self.scheme, authority, forwarded)
            self._authority = authority
        return self._lines

    def is_in(self, forwarders: Forwarders) -> bool:
        """Whether this is a trusted forwarder's connection."""
        if self._asked_by != forwarders.key:
            ip = self.client_ip
            self._is_trusted = ip != "" and forwarders.networks.contains(ip)
            self._asked_by = forwarders.key
        return self._is_trusted


class Forwarders:
    """Whose word counts on a route: its ``trusted_forwarders``, texts of networks."""

    __slots__ = ("is_empty", "key", "networks")

    def __init__(self, networks: Iterable[str] = ()) -> None:
        self.networks = NetworkSet(networks)
        self.is_empty = not self.networks
        self.key = new_key()


@lru_cache(maxsize=_FORWARDERS)
def forwarders_of(networks: tuple[str, ...]) -> Forwarders:
    """The same for all routes that trust the same networks: what is remembered is so for all."""
    return Forwarders(networks)


class Believed(Struct, frozen=True, gc=False):
    """What a trusted forwarder says of one request, and what the target is told.

    The first three are what it was worked out from, beside the fields.
    """

    peer: str
    peer_scheme: str
    asked: str
    client_ip: str
    client_port: int  # 0: not known
    scheme: str
    host: str  # without port
    port: int  # that the client came to; 0: not said
    request_id: str  # "": none was said
    lines: bytes


class About:
    """What is known of one request besides its head: for logs, templates, and the target.

    ``client_ip``, ``client_port``, ``scheme``, ``host`` (name or [IPv6], without port) and
    ``port`` are those of the client, behind trusted forwarders; "" and 0 where they are not known.
    ``trace_id`` is the request's id of our own, ``request_id`` perhaps a forwarder's.
    """

    __slots__ = (
        "believed", "client_ip", "client_port", "origin", "params", "request", "request_id",
        "route", "trace_id",
    )  # fmt: skip

    def __init__(
        self, origin: Origin, request: Request, request_id: str, params: Mapping[str, str],
        route: str,
    ) -> None:  # fmt: skip
        self.origin = origin
        self.request = request
        self.request_id = self.trace_id = request_id
        self.params = params
        self.route = route
        self.client_ip = origin.client_ip
        self.client_port = origin.client_port
        self.believed: Believed | None = None

    @property
    def scheme(self) -> str:
        """http or https."""
        believed = self.believed
        return self.origin.scheme if believed is None else believed.scheme

    @property
    def host(self) -> str:
        """The name that the client asked for, lower case; IPv6 in brackets.

        One of HTTP/1.0 may have asked for none in its request. Then it is that of its ClientHello,
        else the address that it dialled: a URL without a host leads nowhere.
        """
        believed = self.believed
        asked = self.request.host if believed is None else believed.host
        if asked:
            return asked
        origin = self.origin
        if origin.sni:
            return origin.sni
        ip = written_ip(origin.address)
        return f"[{ip}]" if ":" in ip else ip

    @property
    def port(self) -> int:
        """That the client came to; 0 on a Unix socket."""
        believed = self.believed
        return self.origin.port if believed is None or not believed.port else believed.port

    @property
    def sni(self) -> str:
        """The name of the ClientHello; "" where there is none."""
        return self.origin.sni


def describe(
    origin: Origin, request: Request, forwarders: Forwarders, request_id: str,
    params: Mapping[str, str] = NO_PARAMS, route: str = "",
) -> About:  # fmt: skip
    """What is known of this request.

    ``request_id``: 32 lower-case hex digits (`RequestIds.make`), also the id of the trace that is
    begun where the client sent none.
    """
    about = About(origin, request, request_id, params, route)
    if not forwarders.is_empty and origin.is_in(forwarders):
        believed = told_by(origin, request, forwarders)
        about.believed = believed
        about.client_ip = believed.client_ip
        about.client_port = believed.client_port
        if believed.request_id:
            about.request_id = believed.request_id
    return about


def told_by(origin: Origin, request: Request, forwarders: Forwarders) -> Believed:
    """What this trusted forwarder says of a request; remembered with its fields."""
    fields = request.fields
    found = fields.memo.get(forwarders.key)
    if (
        not isinstance(found, Believed)
        or found.peer != origin.client_ip
        or found.peer_scheme != origin.scheme
        or found.asked != request.authority
    ):
        found = believe(origin, request, forwarders)
        remember(fields, forwarders.key, found)
    return found


def believe(origin: Origin, request: Request, forwarders: Forwarders) -> Believed:
    """Read what the trusted forwarder at ``origin`` says, and write it out for the target.

    Where X-Forwarded-For and Forwarded name other addresses, the former counts: many forwarders
    write that one alone and pass on a client's Forwarded as it is.
    """
    fields = request.fields
    listed = _listed(fields, b"x-forwarded-for")
    elements = read_forwarded(_texts(fields, b"forwarded")) or []
    nodes = [_node(text) for text in listed] or [(one.ip, one.port) for one in elements]
    chain = [ip for ip, _ in nodes]
    if chain != [element.ip for element in elements]:
        elements = []
    client_ip, behind = _walk(origin.client_ip, chain, forwarders)
    said = elements[-behind] if elements and behind else Element()
    scheme = _SCHEMES.get(_said(fields, b"x-forwarded-proto", chain, behind).lower(), "")
    scheme = scheme or _SCHEMES.get(said.proto, origin.scheme)
    authority = _authority(_said(fields, b"x-forwarded-host", chain, behind))
    authority = authority or _authority(said.host)
    port = int(_one(fields, b"x-forwarded-port", _PORT) or 0)
    if port > 65535:
        port = 0
    peer = written_ip(origin.client_ip)
    told_host = authority or request.authority
    forwarded = _forwarded(origin, request, chain, elements, behind, (scheme, told_host))
    names = listed or [ip or "unknown" for ip in chain]
    lines = _forwarding_lines([*names, peer], written_ip(client_ip), scheme, told_host, forwarded)
    if port:
        lines += f"X-Forwarded-Port: {port}\r\n".encode()
    lines += _lines_of_others(fields)
    return Believed(
        peer=origin.client_ip,
        peer_scheme=origin.scheme,
        asked=request.authority,
        client_ip=client_ip,
        client_port=origin.client_port if client_ip == origin.client_ip else nodes[-behind][1],
        scheme=scheme,
        host=_name(authority) if authority else request.host,
        port=port,
        request_id=_one(fields, b"x-request-id", _REQUEST_ID),
        lines=lines,
    )


def _node(text: str) -> tuple[str, int]:
    """(address, port) of an entry of X-Forwarded-For. Some forwarders write the client's port, and
    IPv6 in brackets as in Forwarded, others the address alone.
    """
    ip = canonical_ip(text)
    return (ip, 0) if ip else read_node(text)


def _walk(peer: str, chain: list[str], forwarders: Forwarders) -> tuple[str, int]:
    """The client's address, and the place of its entry from the right; 0: it is the peer itself.

    Each trusted forwarder vouches for the entry before its own. One that is no address ends the
    walk: what is further left was said by nobody in particular.
    """
    found, behind = peer, 0
    for place, ip in enumerate(reversed(chain), 1):
        if not ip:
            break
        found, behind = ip, place
        if not forwarders.networks.contains(ip):
            break
    return found, behind


def _said(fields: Fields, name: bytes, chain: list[str], behind: int) -> str:
    """The entry that goes with the client's address where there is one for each address, else the
    last: that is the trusted forwarder's own.
    """
    entries = _listed(fields, name)
    if not entries:
        return ""
    return entries[-behind] if behind and len(entries) == len(chain) else entries[-1]


def _forwarded(
    origin: Origin, request: Request, chain: list[str], elements: list[Element], behind: int,
    told: tuple[str, str],
) -> str:  # fmt: skip
    """The Forwarded field: as it came where it agrees, else made of the addresses; then our own."""
    peer = written_ip(origin.client_ip)
    if not chain:
        return write_element(peer, *told)
    if elements:
        before = ", ".join(_texts(request.fields, b"forwarded"))
    else:
        client = len(chain) - behind
        before = ", ".join(
            [
                write_element(ip, *told) if place == client else write_node(ip)
                for place, ip in enumerate(chain)
            ]
        )
    own = (origin.scheme, request.authority) if behind else told
    return f"{before}, {write_element(peer, *own)}"


def _forwarding_lines(
    names: list[str], client_ip: str, scheme: str, authority: str, forwarded: str
) -> bytes:
    """Each line with its CRLF; without those that nothing can be said in."""
    through = ", ".join([name for name in names if name])
    lines = [f"X-Forwarded-For: {through}\r\n"] if through else []
    if client_ip:
        lines.append(f"X-Real-IP: {client_ip}\r\n")
    lines.append(f"X-Forwarded-Proto: {scheme}\r\n")
    if authority:
        lines.append(f"X-Forwarded-Host: {authority}\r\n")
    lines.append(f"Forwarded: {forwarded}\r\n")
    return "".join(lines).encode("latin-1")


def _lines_of_others(fields: Fields) -> bytes:
    """Those forwarding fields of a trusted forwarder that we do not write, as they came."""
    names = FORWARDING_OF_OTHERS - fields.connection
    if names.isdisjoint(fields.named):
        return b""
    return b"".join(
        [name + b": " + value + b"\r\n" for name, value in fields.lines if name in names]
    )


def written_ip(ip: str) -> str:
    """A client's address as fields have it: without the zone, which means something here only."""
    return canonical_ip(ip.partition("%")[0])


def _texts(fields: Fields, name: bytes) -> list[str]:
    return [value.decode("latin-1") for value in fields.named.get(name, ())]


def _listed(fields: Fields, name: bytes) -> list[str]:
    """The entries of all lines; empty ones are none (RFC 9110 section 5.6.1.2)."""
    return [
        entry
        for text in _texts(fields, name)
        for part in text.split(",")
        if (entry := part.strip(" \t"))
    ]


def _one(fields: Fields, name: bytes, form: re.Pattern[str]) -> str:
    """The value of a field that is there once and has this form; else ""."""
    texts = _texts(fields, name)
    return texts[0] if len(texts) == 1 and form.fullmatch(texts[0]) else ""


def _authority(text: str) -> str:
    """``host`` or ``host:port`` as it was sent; "" where it is none."""
    return text if _AUTHORITY.fullmatch(text) else ""


def _name(authority: str) -> str:
    """The host of an authority, lower case, without port and last dot."""
    if authority.startswith("["):
        return authority.partition("]")[0].lower() + "]"
    return authority.partition(":")[0].removesuffix(".").lower()
