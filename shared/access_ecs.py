"""Lines of the access log as JSON objects of the Elastic Common Schema, version 8.

The first keys are those that the ECS logging specification wants first, with dots; all others are
nested. What the schema has no field for stands under ``proxyctl``: connection_id, listener, route,
target, and the phases as in the plain JSON. ``event.reason`` is the end, ``event.duration`` in
nanoseconds. ``source`` is the peer, ``client`` whom it speaks for; bytes of ``source`` and
``destination`` are what the plain JSON has as received and sent.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final, TypeAlias

from shared.access_entry import (
    Entry,
    LineMaker,
    RequestEntry,
    host_of,
    path_of,
    protocol_of,
    value_of,
)
from shared.access_text import (
    Address,
    Remembered,
    seconds,
    text_json,
    value_json,
)

ECS_VERSION: Final = "8.11.0"

_Names: TypeAlias = tuple[str, str | None, str | None]
_Times: TypeAlias = tuple[float | None, ...]
_PHASES: Final = ("t_proxy", "t_tls", "t_connect", "t_first_byte")
_ERROR: Final = 500  # as ECS has it for event.outcome: from here on it failed


def ecs_lines(id_prefix: str) -> LineMaker:
    """One object a line, in ASCII; what there was not is left out."""
    addresses = Remembered(_address)  # of destinations
    names = Remembered(_names)
    of_request = _request()
    prefix = json.dumps(id_prefix)[:-1]  # the number and the closing quote follow

    def line(time: str, entry: Entry | RequestEntry) -> str:
        base = entry[0] if len(entry) == 5 else entry
        number, peer, client, destination, listener, route, target, end, received, sent = base[:10]
        total = base[14]
        if len(entry) == 5:
            message, nature, more = of_request(entry)
        else:
            message = f'"connection: {end or "goes on"}"'
            kind = "info" if end is None else "end"
            nature = f'"category":["network"],"type":["connection","{kind}"],"outcome":"unknown"'
            more = '"network":{"transport":"tcp"}'
        reason = "" if end is None else ',"reason":"' + end + '"'
        duration = "" if total is None else f',"duration":{round(total * 1e9)}'
        return (
            f'{{"@timestamp":"{time}","log.level":"info","message":{message},'
            f'"ecs.version":"{ECS_VERSION}","event":{{"kind":"event","dataset":"proxyctl.access",'
            f'{nature}{reason}{duration}}},"source":{{{_address(peer)}"bytes":{received}}},'
            f'"client":{{{_address(client)[:-1]}}},'
            f'"destination":{{{addresses[destination]}"bytes":{sent}}},{more},'
            f'"proxyctl":{{"connection_id":{prefix}{number}",{names[listener, route, target]}'
            f"{_phases(base[10:14])}}}}}\n"
        )

    return line


def _address(address: Address) -> str:
    """``"address":...,"ip":...,"port":...,``; "" where there is none."""
    ip, port = address
    if not ip:
        return ""
    plain = ip.partition("%")[0]  # a zone is no part of the schema's type ``ip``
    known = f'"port":{port},' if port else ""
    return f'"address":{text_json(ip)},"ip":{text_json(plain)},{known}'


def _names(names: _Names) -> str:
    known = zip(("listener", "route", "target"), names, strict=True)
    return ",".join(f'"{key}":{json.dumps(name)}' for key, name in known if name is not None)


def _phases(times: _Times) -> str:
    known = zip(_PHASES, times, strict=True)
    return "".join(f',"{key}":{seconds(value)}' for key, value in known if value is not None)


def _request() -> Callable[[RequestEntry], tuple[str, str, str]]:
    """Of a request: the message, what of ``event`` is its own, and the groups of its fields."""
    texts = Remembered(text_json)  # methods, hosts, users
    values = Remembered(value_json)

    def parts(entry: RequestEntry) -> tuple[str, str, str]:
        base, request, status, request_id, user = entry
        received, sent = base[8:10]
        outcome = "unknown" if not status else "failure" if status >= _ERROR else "success"
        nature = f'"category":["web"],"type":["access"],"outcome":"{outcome}"'
        asked = [f'"body":{{"bytes":{received}}}']
        if request_id:
            asked.append(f'"id":{text_json(request_id)}')
        answer = f'"status_code":{status},' if status else ""
        answer = f'"response":{{{answer}"body":{{"bytes":{sent}}}}}'
        groups = ['"network":{"transport":"tcp","protocol":"http"}']
        version = ""
        first = "-"
        if request is not None and request.method:
            path = path_of(request)
            first = f"{request.method} {path}"
            protocol = protocol_of(request)
            version = f',"version":"{protocol[5:]}"'
            asked.append(f'"method":{texts[request.method]}')
            if referer := value_of(request, b"referer"):
                asked.append(f'"referrer":{values[referer]}')
            groups.append(_url(request.path, request.query, path, host_of(request)))
            if agent := value_of(request, b"user-agent"):
                groups.append(f'"user_agent":{{"original":{values[agent]}}}')
        if user:
            groups.append(f'"user":{{"name":{texts[user]}}}')
        groups.append(f'"http":{{"request":{{{",".join(asked)}}},{answer}{version}}}')
        message = text_json(f"{first} {status or '-'}")
        return message, nature, ",".join(groups)

    return parts


def _url(path: str, query: str | None, original: str, host: str | None) -> str:
    domain = "" if host is None else f',"domain":{text_json(host)}'
    asked = "" if query is None else f',"query":{text_json(query)}'
    return f'"url":{{"original":{text_json(original)},"path":{text_json(path)}{asked}{domain}}}'
