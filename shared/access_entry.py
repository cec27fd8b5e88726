"""What a line of the access log is made of: of a connection, or of a request.

Plain tuples, since one is made for every connection and every request, and a Struct costs twice as
much.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from shared.access_text import Address
from shared.http.head import Request

# Number of the connection; peer, client and destination; names of listener, route and target; end
# (None: the connection goes on); bytes received from the client and sent to it; t_proxy, t_tls,
# t_connect, t_first_byte and t_total in seconds. None: there was no such thing.
Entry: TypeAlias = tuple[
    int,
    Address,
    Address,
    Address,
    str,
    str | None,
    str | None,
    str | None,
    int,
    int,
    float | None,
    float | None,
    float | None,
    float | None,
    float | None,
]

# Of one request: an Entry; the request, which nobody changes any more (None, or without a method:
# its head could not be read); the status that the client was sent (0: none); the request id, and
# the user that was let in ("" or None: there is none).
#
# In its Entry, client: of the request, where a trusted forwarder named one. route None: none took
# it; target None: the answer is our own. end None: it was answered whole. Received and sent: bytes
# of the bodies, as they came from the client and went to it, without what frames chunks. t_proxy
# and t_tls: of a connection's first request alone; t_connect None: on a kept connection, or none
# was needed; t_first_byte: from the request's end until the answer's head was here; t_total: from
# the request's first byte to the answer's last.
RequestEntry: TypeAlias = tuple[Entry, Request | None, int, str | None, str | None]

# (time, entry) -> a line that ends in "\n"
LineMaker: TypeAlias = Callable[[str, Entry | RequestEntry], str]

# What nearly all lines of connections are made of: addresses are of IPv4, there was no TLS, and a
# target has answered. Time; number; address and port of the peer and of the client; `places_json`;
# end; bytes received and sent; t_proxy as `seconds` or "null"; t_connect, t_first_byte and t_total.
# In the order in which the JSON line has them: one formatting makes the line, in half the time.
Usual: TypeAlias = tuple[
    str, int, str, int, str, int, str, str, int, int, str, float, float, float
]  # fmt: skip


def path_of(request: Request) -> str:
    """With the query, as it was asked for."""
    query = request.query
    return request.path if query is None else f"{request.path}?{query}"


def host_of(request: Request) -> str | None:
    """As `{host}` of a template has it; None where the request has none."""
    return request.host or request.authority or None


def protocol_of(request: Request) -> str:
    """``HTTP/1.1`` or ``HTTP/1.0``."""
    return "HTTP/1.1" if request.is_11 else "HTTP/1.0"


def value_of(request: Request, name: bytes) -> bytes | None:
    """The first value of a field; ``name`` in lower case."""
    values = request.fields.named.get(name)
    return values[0] if values else None
