"""Lines of the access log about HTTP requests, in every format."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.access_format import FIELDS, REQUEST_FIELDS, Entry, RequestEntry, line_maker
from shared.access_text import CLIENT_TEXT_MAX
from shared.config.logs import AccessFormat
from shared.ends import End
from shared.http.head import Fields, Request

TIME = "2026-01-02T03:04:05.678Z"
PEER = ("192.0.2.1", 40000)
DESTINATION = ("203.0.113.9", 443)
AGENT = b"curl/8.0 (x; y)"
COMBINED = re.compile(
    r'(\S+) - (\S+) \[([^\]]+)\] "([^"]*)" (\d{3}) (\d+) "([^"]*)" "([^"]*)"\n', re.ASCII
)


def request(
    method: str = "GET",
    path: str = "/a",
    query: str | None = "b=c",
    host: str = "a.example",
    *fields: tuple[bytes, bytes],
    is_11: bool = True,
) -> Request:
    """What was read of a head."""
    made = Request(method, path, query, f"{host}:8080" if host else "", host, is_11=is_11)
    made.fields = Fields(fields)
    return made


USUAL = request(
    "GET", "/a", "b=c", "a.example", (b"user-agent", AGENT), (b"referer", b"http://r.example/")
)


def connection(
    *,
    number: int = 77,
    client: tuple[str, int] = PEER,
    route: str | None = "api",
    target: str | None = "app:9000",
    end: str | None = None,
    times: tuple[float | None, ...] = (None, None, None, 0.004, 0.5),
) -> Entry:
    """The first part of an entry."""
    t_proxy, t_tls, t_connect, t_first_byte, t_total = times
    return (
        number, PEER, client, DESTINATION, "0.0.0.0:443", route, target, end, 12, 5678,
        t_proxy, t_tls, t_connect, t_first_byte, t_total,
    )  # fmt: skip


def entry(
    asked: Request | None = USUAL,
    status: int = 200,
    request_id: str | None = "0af7",
    user: str | None = "ann",
    **base: Any,
) -> RequestEntry:
    """What a request's line is made of."""
    return connection(**base), asked, status, request_id, user


def as_json(one: RequestEntry) -> dict[str, Any]:
    """Its line in JSON."""
    line = line_maker("json", "0-3-")(TIME, one)
    assert line.endswith("}\n")
    assert line.count("\n") == 1
    assert line.isascii()
    read: dict[str, Any] = json.loads(line)
    return read


def test_json_has_what_connections_have_and_the_request() -> None:
    """The keys of a connection's line in their order, and behind them those of the request."""
    read = as_json(entry())
    assert tuple(read) == FIELDS + REQUEST_FIELDS
    assert read == {
        "time": TIME,
        "id": "0-3-77",
        "peer": "192.0.2.1:40000",
        "client": "192.0.2.1:40000",
        "destination": "203.0.113.9:443",
        "listener": "0.0.0.0:443",
        "route": "api",
        "target": "app:9000",
        "end": None,
        "received": 12,
        "sent": 5678,
        "t_proxy": None,
        "t_tls": None,
        "t_connect": None,
        "t_first_byte": 0.004,
        "t_total": 0.5,
        "method": "GET",
        "protocol": "HTTP/1.1",
        "host": "a.example",
        "path": "/a?b=c",
        "status": 200,
        "request_id": "0af7",
        "user": "ann",
        "user_agent": AGENT.decode(),
        "referer": "http://r.example/",
    }


def test_json_of_a_connection_has_no_keys_of_requests() -> None:
    """A line about TCP looks as it always did, also between lines about requests."""
    make = line_maker("json", "0-3-")
    lines = [make(TIME, one) for one in (entry(), connection(), entry())]
    assert tuple(json.loads(lines[1])) == FIELDS
    assert lines[0] == lines[2]


@pytest.mark.parametrize("asked", [None, request("", "", None, "")])
def test_json_of_a_head_that_could_not_be_read(asked: Request | None) -> None:
    """The status and the end, and null for everything that was not understood."""
    one = entry(
        asked, 400, "", None, end=End.BAD_REQUEST, route=None, target=None, times=(None,) * 5
    )
    read = as_json(one)
    assert (read["status"], read["end"]) == (400, "bad_request")
    nulls = {key for key, value in read.items() if value is None}
    times = {"t_proxy", "t_tls", "t_connect", "t_first_byte", "t_total"}
    assert nulls == times | {"route", "target"} | set(REQUEST_FIELDS) - {"status"}


def test_json_says_null_where_there_was_nothing() -> None:
    """No answer, no Host, no query, no field, nobody who logged in."""
    read = as_json(entry(request("GET", "/a", None, ""), 0, None, None))
    assert [read[key] for key in REQUEST_FIELDS] == [
        "GET", "HTTP/1.1", None, "/a", None, None, None, None, None,
    ]  # fmt: skip
    read = as_json(entry(request(query="", is_11=False)))
    assert (read["path"], read["protocol"]) == ("/a?", "HTTP/1.0")


def test_json_has_all_phases_where_they_happened() -> None:
    """Each in its own place, with six decimals."""
    line = line_maker("json", "")(TIME, entry(times=(0.001, 0.002, 12.003, 0.0, 1e9)))
    assert (
        '"t_proxy":0.001000,"t_tls":0.002000,"t_connect":12.003000,"t_first_byte":0.000000,'
        '"t_total":1000000000.000000,'
    ) in line


def test_what_is_remembered_of_a_connection_is_not_mixed_up() -> None:
    """One connection's requests may have other routes, targets and clients; numbers are not few."""
    make = line_maker("json", "0-1-")
    clients = [PEER, ("198.51.100.7", 1), ("2001:db8::1", 2)]
    for number in (*range(1500), 3, 1499):
        for client in clients:
            for route, target in (("a", "x:1"), ("a", "y:1"), (None, None), ("b", "x:1")):
                base = {"number": number, "client": client, "route": route, "target": target}
                read = json.loads(make(TIME, entry(**base)))
                ip, port = client
                assert read["client"] == (f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}")
                assert (read["id"], read["route"], read["target"]) == (
                    f"0-1-{number}",
                    route,
                    target,
                )
        if 0 < number < 1490:
            clients = [PEER]


HOSTILE = b'\x00a"b\\c\nd\x7f\xff\xc3\xa9 {"x":1}'


@pytest.mark.parametrize("kind", ["json", "ecs"])
def test_json_escapes_what_clients_send(kind: str) -> None:
    """One object on one line, with the value as it was; ``\\xff`` where it is no text."""
    text = HOSTILE.decode("utf-8", "backslashreplace")
    asked = request("GET", '/"\\', 'q"\n', 'h"', (b"user-agent", HOSTILE), (b"referer", HOSTILE))
    line = line_maker(kind, "0-3-")(TIME, entry(asked, 200, 'i"\n', 'u"\n'))
    assert line.count("\n") == 1
    assert line.isascii()
    read = json.loads(line)
    if kind == "json":
        said = [read[key] for key in ("path", "host", "request_id", "user")]
        assert (read["user_agent"], read["referer"]) == (text, text)
    else:
        said = [
            read["url"]["original"],
            read["url"]["domain"],
            read["http"]["request"]["id"],
            read["user"]["name"],
        ]
        agent, referer = read["user_agent"]["original"], read["http"]["request"]["referrer"]
        assert (agent, referer) == (text, text)
    assert said == ['/"\\?q"\n', 'h"', 'i"\n', 'u"\n']


@pytest.mark.parametrize("kind", ["json", "ecs", "combined", '"{path}" "{user_agent}"'])
def test_long_texts_are_cut(kind: str) -> None:
    """What a client may send is larger than a line should be."""
    asked = request("GET", "/" + "p" * 20000, None, "h", (b"user-agent", b"u" * 20000))
    line = line_maker(kind, "")(TIME, entry(asked))
    assert "/" + "p" * (CLIENT_TEXT_MAX - 1) + "..." in line
    assert "u" * CLIENT_TEXT_MAX + "..." in line
    assert "p" * CLIENT_TEXT_MAX not in line.replace("/" + "p" * (CLIENT_TEXT_MAX - 1), "", 1)


def test_combined_is_as_apache_and_nginx_have_it() -> None:
    """Client, user, time in UTC, first line, status, bytes of the body, referer, user agent."""
    line = line_maker("combined", "0-3-")(TIME, entry())
    assert line == (
        '192.0.2.1 - ann [02/Jan/2026:03:04:05 +0000] "GET /a?b=c HTTP/1.1" 200 5678'
        ' "http://r.example/" "curl/8.0 (x; y)"\n'
    )


def test_combined_says_dash_for_what_there_was_not() -> None:
    """No user, no field, no head that could be read; and a connection that is no request."""
    make = line_maker("combined", "")
    bare = make(TIME, entry(request("GET", "/", None, ""), 404, None, ""))
    assert bare.endswith('- - [02/Jan/2026:03:04:05 +0000] "GET / HTTP/1.1" 404 5678 "-" "-"\n')
    assert make(TIME, entry(None, 400)).endswith('"-" 400 5678 "-" "-"\n')
    assert make(TIME, entry(status=0)).count(" 000 5678 ") == 1
    assert make(TIME, connection(client=("", 0))) == (
        '- - - [02/Jan/2026:03:04:05 +0000] "-" 000 5678 "-" "-"\n'
    )


def test_combined_escapes_what_clients_send() -> None:
    """Control bytes, quotes, backslashes and what is not ASCII, each byte for itself."""
    asked = request("GET", "/é", 'q"\\', "h", (b"user-agent", HOSTILE), (b"referer", b'"\r\n'))
    line = line_maker("combined", "")(TIME, entry(asked, user='a "b'))
    found = COMBINED.fullmatch(line)
    assert found is not None
    assert found[2] == "a\\x20\\x22b"
    assert found[4] == "GET /\\xC3\\xA9?q\\x22\\x5C HTTP/1.1"
    assert found[7] == "\\x22\\x0D\\x0A"
    assert found[8] == ("\\x00a\\x22b\\x5Cc\\x0Ad\\x7F\\xFF\\xC3\\xA9 {\\x22x\\x22:1}")


@given(agent=st.binary(max_size=60), path=st.text(max_size=30), user=st.text(max_size=20))
def test_nothing_that_a_client_sends_breaks_a_line(agent: bytes, path: str, user: str) -> None:
    """Whatever it is, each format has one line of its own shape, in ASCII."""
    asked = request("GET", "/" + path, None, "h", (b"user-agent", agent))
    one = entry(asked, user=user)
    for kind in ("json", "ecs"):
        line = line_maker(kind, "")(TIME, one)
        assert line.isascii()
        assert line.count("\n") == 1
        read = json.loads(line)
        assert "/" + path == (read["path"] if kind == "json" else read["url"]["path"])
    line = line_maker("combined", "")(TIME, one)
    assert COMBINED.fullmatch(line) is not None
    line = line_maker('"{user}" "{path}" "{user_agent}"', "")(TIME, one)
    assert re.fullmatch(r'"[ -!#-~]*" "[ -!#-~]*" "[ -!#-~]*"\n', line)


def test_ecs_has_the_fields_of_the_schema() -> None:
    """Names and types as Elastic Common Schema 8 has them; the first four keys with dots."""
    one = entry(end=End.CLIENT_RESET, status=502, client=("2001:db8::1", 9))
    line = line_maker("ecs", "0-3-")(TIME, one)
    read = json.loads(line)
    assert list(read)[:4] == ["@timestamp", "log.level", "message", "ecs.version"]
    assert read == {
        "@timestamp": TIME,
        "log.level": "info",
        "message": "GET /a?b=c 502",
        "ecs.version": "8.11.0",
        "event": {
            "kind": "event",
            "dataset": "proxyctl.access",
            "category": ["web"],
            "type": ["access"],
            "outcome": "failure",
            "reason": "client_reset",
            "duration": 500_000_000,
        },
        "source": {"address": "192.0.2.1", "ip": "192.0.2.1", "port": 40000, "bytes": 12},
        "client": {"address": "2001:db8::1", "ip": "2001:db8::1", "port": 9},
        "destination": {"address": "203.0.113.9", "ip": "203.0.113.9", "port": 443, "bytes": 5678},
        "network": {"transport": "tcp", "protocol": "http"},
        "url": {"original": "/a?b=c", "path": "/a", "query": "b=c", "domain": "a.example"},
        "user_agent": {"original": AGENT.decode()},
        "user": {"name": "ann"},
        "http": {
            "request": {
                "body": {"bytes": 12},
                "id": "0af7",
                "method": "GET",
                "referrer": "http://r.example/",
            },
            "response": {"status_code": 502, "body": {"bytes": 5678}},
            "version": "1.1",
        },
        "proxyctl": {
            "connection_id": "0-3-77",
            "listener": "0.0.0.0:443",
            "route": "api",
            "target": "app:9000",
            "t_first_byte": 0.004,
        },
    }


def test_ecs_leaves_out_what_there_was_not() -> None:
    """A head that could not be read, and connections that end or go on."""
    make = line_maker("ecs", "")
    bad = json.loads(make(TIME, entry(None, 0, None, None, route=None, target=None)))
    assert not {"url", "user", "user_agent"} & set(bad)
    assert bad["http"] == {
        "request": {"body": {"bytes": 12}},
        "response": {"body": {"bytes": 5678}},
    }
    assert (bad["message"], bad["event"]["outcome"]) == ("- -", "unknown")
    assert set(bad["proxyctl"]) == {"connection_id", "listener", "t_first_byte"}
    tcp = json.loads(make(TIME, connection(end=End.IDLE_TIMEOUT, client=("", 0))))
    assert tcp["client"] == {}
    assert tcp["event"]["type"] == ["connection", "end"]
    assert (tcp["message"], tcp["event"]["reason"]) == ("connection: idle_timeout", "idle_timeout")
    open_ = json.loads(make(TIME, connection()))
    assert open_["event"]["type"] == ["connection", "info"]
    assert "http" not in open_


def test_ecs_addresses_are_addresses() -> None:
    """A zone is no part of what the schema calls an IP address."""
    read = json.loads(line_maker("ecs", "")(TIME, entry(client=("fe80::1%eth0", 5))))
    assert read["client"] == {"address": "fe80::1%eth0", "ip": "fe80::1", "port": 5}


@pytest.mark.parametrize("ip", ["198.51.100.7", "2001:db8::1"])
def test_client_whose_port_nobody_named(ip: str) -> None:
    """A forwarder names addresses, mostly without ports; 0 would be none that it could have had."""
    one = entry(client=(ip, 0))
    assert as_json(one)["client"] == ip
    assert line_maker("{client}", "")(TIME, one) == f"{ip}\n"
    assert line_maker("combined", "")(TIME, one).startswith(f"{ip} - ann ")
    ecs = json.loads(line_maker("ecs", "")(TIME, one))
    assert ecs["client"] == {"address": ip, "ip": ip}


def test_template_has_the_fields_of_requests() -> None:
    """Each in its place; dashes where the line is about a connection."""
    make = line_maker("|".join(f"{{{name}}}" for name in REQUEST_FIELDS), "")
    assert make(TIME, entry()) == (
        "GET|HTTP/1.1|a.example|/a?b=c|200|0af7|ann|curl/8.0 (x; y)|http://r.example/\n"
    )
    dashes = "|".join("-" * len(REQUEST_FIELDS)) + "\n"
    assert make(TIME, connection()) == dashes
    assert make(TIME, entry(None, 0, None, None)) == dashes


@pytest.mark.parametrize("name", ["json", "combined", "ecs"])
def test_the_config_takes_each_format_by_its_name(name: str) -> None:
    """And the lines of all of them can be made."""
    assert line_maker(str(AccessFormat.read(name)), "0-1-")(TIME, entry()).endswith("\n")


def test_an_unknown_format_is_told_what_there_is() -> None:
    """All names, and that a template would do."""
    with pytest.raises(ValueError, match="json, combined, ecs, or a template such as"):
        AccessFormat.read("common")
