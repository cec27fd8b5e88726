"""Lines of the access log: the fields, the JSON line, and templates such as ``{client} {end}``.

Nothing here acts: the caller says what time it is and writes the lines (`worker/access_log.py`).
The JSON line is put together by hand: msgspec needs longer once every number of seconds has to
have six decimals and no exponent (1.9 us against 1.6 us a line).
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable
from operator import itemgetter
from typing import Final, TypeAlias

from shared.access_combined import combined_lines
from shared.access_ecs import ecs_lines
from shared.access_entry import (
    Entry,
    LineMaker,
    RequestEntry,
    Usual,
    host_of,
    path_of,
    protocol_of,
    value_of,
)
from shared.access_text import (
    REMEMBERED,
    Address,
    Remembered,
    address_json,
    address_plain,
    address_text,
    plain_name,
    quoted,
    seconds,
    seconds_plain,
    text_json,
    value_json,
    value_quoted,
)
from shared.http.head import NO_FIELDS, Fields

__all__ = [
    "FIELDS",
    "NAMED_FORMATS",
    "REQUEST_FIELDS",
    "Entry",
    "LineMaker",
    "RequestEntry",
    "Usual",
    "address_text",
    "compile_template",
    "line_maker",
    "places_json",
    "plain_name",
    "usual_json_pattern",
]

NAMED_FORMATS: Final = ("json", "combined", "ecs")  # anything else is a template

# As docs/config.md lists them: in this order in JSON, any of them in a template.
FIELDS: Final = (
    "time",
    "id",
    "peer",
    "client",
    "destination",
    "listener",
    "route",
    "target",
    "end",
    "received",
    "sent",
    "t_proxy",
    "t_tls",
    "t_connect",
    "t_first_byte",
    "t_total",
)

# What the line of a request has behind them, in this order.
REQUEST_FIELDS: Final = (
    "method",
    "protocol",
    "host",
    "path",
    "status",
    "request_id",
    "user",
    "user_agent",
    "referer",
)

_ALL_FIELDS: Final = FIELDS + REQUEST_FIELDS
_PIECES: Final = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


def line_maker(kind: str, id_prefix: str) -> LineMaker:
    """Lines as ``kind`` says: one of NAMED_FORMATS, or a template. ``id_prefix`` and the number
    are the id.

    ValueError as of `compile_template`.
    """
    match kind:
        case "json":
            return json_lines(id_prefix)
        case "combined":
            return combined_lines()
        case "ecs":
            return ecs_lines(id_prefix)
    return template_lines(kind, id_prefix)


Places: TypeAlias = tuple[Address, str, str | None, str | None]


def places_json(places: Places) -> str:
    """The part of a JSON line that says where to: destination, listener, route and target."""
    destination, *names = places
    listener, route, target = (json.dumps(name) for name in names)  # None: null
    return (
        f'"destination":{address_json(destination)},"listener":{listener},'
        f'"route":{route},"target":{target}'
    )


def usual_json_pattern(id_prefix: str) -> str:
    """What makes the line of a Usual with ``%``, as `json_lines` makes others."""
    prefix = json.dumps(id_prefix)[:-1].replace("%", "%%")
    return (
        f'{{"time":"%s","id":{prefix}%d","peer":"%s:%d","client":"%s:%d",%s,"end":"%s",'
        '"received":%d,"sent":%d,"t_proxy":%s,"t_tls":null,'
        '"t_connect":%.6f,"t_first_byte":%.6f,"t_total":%.6f}\n'
    )


def json_lines(id_prefix: str) -> LineMaker:
    """One JSON object a line, with FIELDS for keys, for a request REQUEST_FIELDS too, in ASCII."""
    places = Remembered(places_json)  # few differ: made once for all connections of a kind
    prefix = json.dumps(id_prefix)[:-1]  # the number and the closing quote follow
    of_request = _request_json(id_prefix, places)

    def line(time: str, entry: Entry | RequestEntry) -> str:
        if len(entry) == 5:
            return of_request(time, entry)
        (
            number, peer, client, destination, listener, route, target, end, received, sent,
            t_proxy, t_tls, t_connect, t_first_byte, t_total,
        ) = entry  # fmt: skip
        end_text = "null" if end is None else '"' + end + '"'  # an Enum is slow to format
        peer_text = address_json(peer)
        client_text = peer_text if client is peer else address_json(client)
        proxy = "null" if t_proxy is None else seconds(t_proxy)
        tls = "null" if t_tls is None else seconds(t_tls)
        connect = "null" if t_connect is None else seconds(t_connect)
        first_byte = "null" if t_first_byte is None else seconds(t_first_byte)
        total = "null" if t_total is None else seconds(t_total)
        return (
            f'{{"time":"{time}","id":{prefix}{number}","peer":{peer_text},"client":{client_text},'
            f'{places[destination, listener, route, target]},"end":{end_text},'
            f'"received":{received},"sent":{sent},"t_proxy":{proxy},"t_tls":{tls},'
            f'"t_connect":{connect},"t_first_byte":{first_byte},"t_total":{total}}}\n'
        )

    return line


_REQUEST_LINE: Final = (
    '{"time":"%s",%s,"end":%s,"received":%d,"sent":%d,"t_proxy":%s,"t_tls":%s,"t_connect":%s,'
    '"t_first_byte":%s,"t_total":%s,"method":%s,"protocol":%s,"host":%s,"path":%s,"status":%s,'
    '"request_id":%s,"user":%s,%s}\n'
)


def _request_json(id_prefix: str, places: Remembered[Places]) -> Callable[[str, RequestEntry], str]:
    """Lines of requests, of which there are many on one connection: half the time of other lines.

    What stands between ``time`` and ``end`` is remembered by connection, what is said of the fields
    by the Fields, which many requests share.
    """
    prefix = json.dumps(id_prefix)[:-1]
    texts = Remembered(text_json)  # methods, hosts, users
    known: dict[int, tuple[Address, str | None, str | None, str]] = {}  # by connection

    def remember(entry: Entry) -> tuple[Address, str | None, str | None, str]:
        number, peer, client, destination, listener, route, target = entry[:7]
        if len(known) >= REMEMBERED:
            known.clear()
        text = (
            f'"id":{prefix}{number}","peer":{address_json(peer)},"client":{address_json(client)},'
            f"{places[destination, listener, route, target]}"
        )
        known[number] = client, route, target, text
        return known[number]

    def line(time: str, entry: RequestEntry) -> str:
        base, request, status, request_id, user = entry
        (
            number, _, client, _, _, route, target, end, received, sent,
            t_proxy, t_tls, t_connect, t_first_byte, t_total,
        ) = base  # fmt: skip
        who = known.get(number)
        if who is None or who[0] != client or who[1] != route or who[2] != target:
            who = remember(base)
        method = protocol = host = path = "null"
        fields = NO_FIELDS
        if request is not None and request.method:
            fields, asked, query = request.fields, request.path, request.query
            method = texts[request.method]
            protocol = '"HTTP/1.1"' if request.is_11 else '"HTTP/1.0"'
            host = texts[request.host or request.authority or None]
            path = text_json(asked if query is None else f"{asked}?{query}")
        return _REQUEST_LINE % (
            time,
            who[3],
            "null" if end is None else '"' + end + '"',
            received,
            sent,
            "null" if t_proxy is None else f"{t_proxy:.6f}",
            "null" if t_tls is None else f"{t_tls:.6f}",
            "null" if t_connect is None else f"{t_connect:.6f}",
            "null" if t_first_byte is None else "%.6f" % t_first_byte,  # noqa: UP031 # faster
            "null" if t_total is None else "%.6f" % t_total,  # noqa: UP031 # faster
            method,
            protocol,
            host,
            path,
            status or "null",
            text_json(request_id) if request_id else "null",
            texts[user] if user else "null",
            fields.logged or _logged(fields),
        )

    return line


def _logged(fields: Fields) -> str:
    """What the line of a request says of its fields."""
    named = fields.named
    agent, referer = named.get(b"user-agent"), named.get(b"referer")
    fields.logged = (
        f'"user_agent":{value_json(agent[0] if agent else None)},'
        f'"referer":{value_json(referer[0] if referer else None)}'
    )
    return fields.logged


def template_lines(template: str, id_prefix: str) -> LineMaker:
    """Lines as the template says; ValueError as of `compile_template`."""
    fill = compile_template(template)
    names = Remembered(plain_name)
    destinations = Remembered(address_plain)
    nothing = ("-",) * len(REQUEST_FIELDS)

    def line(time: str, entry: Entry | RequestEntry) -> str:
        more = nothing
        if len(entry) == 5:
            more = _request_texts(entry)
            entry = entry[0]
        (
            number, peer, client, destination, listener, route, target, end, received, sent,
            t_proxy, t_tls, t_connect, t_first_byte, t_total,
        ) = entry  # fmt: skip
        peer_text = address_plain(peer)
        texts = (
            time,
            f"{id_prefix}{number}",
            peer_text,
            peer_text if client is peer else address_plain(client),
            destinations[destination],
            names[listener],
            "-" if route is None else names[route],
            "-" if target is None else names[target],
            "-" if end is None else f"{end}",
            f"{received}",
            f"{sent}",
            seconds_plain(t_proxy),
            seconds_plain(t_tls),
            seconds_plain(t_connect),
            seconds_plain(t_first_byte),
            seconds_plain(t_total),
        )
        return fill(texts + more)

    return line


def _request_texts(entry: RequestEntry) -> tuple[str, ...]:
    """REQUEST_FIELDS in a template; `quoted`, so that a template may put quotes around them."""
    _, request, status, request_id, user = entry
    said = f"{status}" if status else "-"
    if request is None or not request.method:
        return ("-", "-", "-", "-", said, quoted(request_id), quoted(user), "-", "-")
    return (
        quoted(request.method),
        protocol_of(request),
        quoted(host_of(request)),
        quoted(path_of(request)),
        said,
        quoted(request_id),
        quoted(user),
        value_quoted(value_of(request, b"user-agent")),
        value_quoted(value_of(request, b"referer")),
    )


def compile_template(template: str) -> Callable[[tuple[str, ...]], str]:
    """A function from the texts of FIELDS and REQUEST_FIELDS, in order, to the line with its "\\n".

    ``{client}`` is a field, ``{{`` and ``}}`` are braces. ValueError, with a message fit for the
    operator, for a field that there is not, a brace without its partner, a template without any
    field, and one that would break lines.
    """
    if any(not each.isprintable() and each != "\t" for each in template):
        raise ValueError("only printable characters and tabs go into a line of the log")
    pattern: list[str] = []
    places: list[int] = []
    end = 0
    for found in _PIECES.finditer(template):
        pattern.append(template[end : found.start()].replace("%", "%%"))
        end = found.end()
        if found[0] in ("{{", "}}"):
            pattern.append(found[0][0])
        elif found[1] is None:
            raise ValueError(f"a {found[0]} without its partner (a literal one is {found[0] * 2})")
        elif found[1] not in _ALL_FIELDS:
            raise ValueError(_unknown(found[1]))
        else:
            pattern.append("%s")
            places.append(_ALL_FIELDS.index(found[1]))
    pattern.append(template[end:].replace("%", "%%"))
    if not places:
        raise ValueError(f"the template names no field; known are {_known()}")
    filled, pick = "".join(pattern) + "\n", itemgetter(*places)
    return lambda texts: filled % pick(texts)


def _unknown(name: str) -> str:
    close = difflib.get_close_matches(name[:64], _ALL_FIELDS, 1, 0.6)
    hint = f" (did you mean {{{close[0]}}}?)" if close else ""
    return f"unknown field {{{name[:64]}}}{hint}; known are {_known()}"


def _known() -> str:
    return " ".join(f"{{{name}}}" for name in _ALL_FIELDS)
