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
from typing import Final, TypeAlias, TypeVar

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

Address: TypeAlias = tuple[str, int]  # ("", 0): a Unix socket, which has none

# What a line is made of: number of the connection; peer, client and destination; names of listener,
# route and target; end (None: the connection goes on); bytes received from the client and sent to
# it; t_proxy, t_tls, t_connect, t_first_byte and t_total in seconds. None: there was no such thing.
# A plain tuple, since one is made for every connection and a Struct costs twice as much.
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

# What nearly all lines are made of: no PROXY header, a client with an IPv4 address, a target that
# has answered. Time; number; address and port of the peer, twice; `places_json`; end; bytes
# received and sent; t_connect, t_first_byte and t_total. In the order in which the JSON line has
# them: one formatting makes the line, in half the time.
Usual: TypeAlias = tuple[
    str, int, str, int, str, int, str, str, int, int, float, float, float
]  # fmt: skip

LineMaker: TypeAlias = Callable[[str, Entry], str]  # (time, entry) -> a line that ends in "\n"

_REMEMBERED: Final = 1024  # texts of names, and of destinations; then anew
_PIECES: Final = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


def line_maker(kind: str, id_prefix: str) -> LineMaker:
    """Lines as ``kind`` says: ``json``, or a template. ``id_prefix`` and the number are the id.

    ValueError as of `compile_template`.
    """
    return json_lines(id_prefix) if kind == "json" else template_lines(kind, id_prefix)


Key = TypeVar("Key")


class _Remembered(dict[Key, str]):
    """The text of each name, or address, made once."""

    def __init__(self, make: Callable[[Key], str]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, key: Key) -> str:
        if len(self) >= _REMEMBERED:
            self.clear()
        text = self[key] = self._make(key)
        return text


def plain_name(name: str) -> str:
    r"""The name on one line: what cannot be printed stands there as ``\n``, ``\x1b`` and so on."""
    if name.isprintable():
        return name
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in name
    )


def address_text(address: Address) -> str:
    """``ip:port`` or ``[v6]:port``; "" where there is no address."""
    ip, port = address
    if ":" in ip:
        return plain_name(f"[{ip}]:{port}")  # a zone (%eth0) may hold anything
    return f"{ip}:{port}" if ip else ""


def _address_json(address: Address) -> str:
    ip, port = address
    if ":" in ip:
        return json.dumps(f"[{ip}]:{port}")
    return f'"{ip}:{port}"' if ip else "null"


Places: TypeAlias = tuple[Address, str, str | None, str | None]


def places_json(places: Places) -> str:
    """The part of a JSON line that says where to: destination, listener, route and target."""
    destination, *names = places
    listener, route, target = (json.dumps(name) for name in names)  # None: null
    return (
        f'"destination":{_address_json(destination)},"listener":{listener},'
        f'"route":{route},"target":{target}'
    )


def _seconds(value: float) -> str:
    """Six decimals; by way of a whole number, which costs a third of formatting a float."""
    micros = int(value * 1e6 + 0.5)
    if 0 <= micros < 1_000_000:
        return f"0.{micros:06d}"
    return f"{value:.6f}"


def usual_json_pattern(id_prefix: str) -> str:
    """What makes the line of a Usual with ``%``, as `json_lines` makes others."""
    prefix = json.dumps(id_prefix)[:-1].replace("%", "%%")
    return (
        f'{{"time":"%s","id":{prefix}%d","peer":"%s:%d","client":"%s:%d",%s,"end":"%s",'
        '"received":%d,"sent":%d,"t_proxy":null,"t_tls":null,'
        '"t_connect":%.6f,"t_first_byte":%.6f,"t_total":%.6f}\n'
    )


def json_lines(id_prefix: str) -> LineMaker:
    """One JSON object a line, with FIELDS for keys, in ASCII."""
    places = _Remembered(places_json)  # few differ: made once for all connections of a kind
    prefix = json.dumps(id_prefix)[:-1]  # the number and the closing quote follow

    def line(time: str, entry: Entry) -> str:
        (
            number, peer, client, destination, listener, route, target, end, received, sent,
            t_proxy, t_tls, t_connect, t_first_byte, t_total,
        ) = entry  # fmt: skip
        end_text = "null" if end is None else '"' + end + '"'  # an Enum is slow to format
        peer_text = _address_json(peer)
        client_text = peer_text if client is peer else _address_json(client)
        proxy = "null" if t_proxy is None else _seconds(t_proxy)
        tls = "null" if t_tls is None else _seconds(t_tls)
        connect = "null" if t_connect is None else _seconds(t_connect)
        first_byte = "null" if t_first_byte is None else _seconds(t_first_byte)
        total = "null" if t_total is None else _seconds(t_total)
        return (
            f'{{"time":"{time}","id":{prefix}{number}","peer":{peer_text},"client":{client_text},'
            f'{places[destination, listener, route, target]},"end":{end_text},'
            f'"received":{received},"sent":{sent},"t_proxy":{proxy},"t_tls":{tls},'
            f'"t_connect":{connect},"t_first_byte":{first_byte},"t_total":{total}}}\n'
        )

    return line


def _name_plain(name: str | None) -> str:
    return "-" if name is None else plain_name(name)


def _address_plain(address: Address) -> str:
    return address_text(address) or "-"


def template_lines(template: str, id_prefix: str) -> LineMaker:
    """Lines as the template says; ValueError as of `compile_template`."""
    fill = compile_template(template)
    names = _Remembered(_name_plain)
    destinations = _Remembered(_address_plain)

    def line(time: str, entry: Entry) -> str:
        (
            number, peer, client, destination, listener, route, target, end, received, sent,
            t_proxy, t_tls, t_connect, t_first_byte, t_total,
        ) = entry  # fmt: skip
        peer_text = _address_plain(peer)
        texts = (
            time,
            f"{id_prefix}{number}",
            peer_text,
            peer_text if client is peer else _address_plain(client),
            destinations[destination],
            names[listener],
            names[route],
            names[target],
            "-" if end is None else f"{end}",
            f"{received}",
            f"{sent}",
            "-" if t_proxy is None else _seconds(t_proxy),
            "-" if t_tls is None else _seconds(t_tls),
            "-" if t_connect is None else _seconds(t_connect),
            "-" if t_first_byte is None else _seconds(t_first_byte),
            "-" if t_total is None else _seconds(t_total),
        )
        return fill(texts)

    return line


def compile_template(template: str) -> Callable[[tuple[str, ...]], str]:
    """A function from the texts of all FIELDS, in their order, to the line, "\\n" included.

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
        elif found[1] not in FIELDS:
            raise ValueError(_unknown(found[1]))
        else:
            pattern.append("%s")
            places.append(FIELDS.index(found[1]))
    pattern.append(template[end:].replace("%", "%%"))
    if not places:
        raise ValueError(f"the template names no field; known are {_known()}")
    filled, pick = "".join(pattern) + "\n", itemgetter(*places)
    return lambda texts: filled % pick(texts)


def _unknown(name: str) -> str:
    close = difflib.get_close_matches(name[:64], FIELDS, 1, 0.6)
    hint = f" (did you mean {{{close[0]}}}?)" if close else ""
    return f"unknown field {{{name[:64]}}}{hint}; known are {_known()}"


def _known() -> str:
    return " ".join(f"{{{name}}}" for name in FIELDS)
