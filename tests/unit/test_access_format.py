"""Lines of the access log: JSON and templates."""

from __future__ import annotations

import json
import re

import pytest

from shared.access_format import FIELDS, Entry, compile_template, line_maker
from shared.ends import End

TIME = "2026-01-02T03:04:05.678Z"
PEER = ("192.0.2.1", 40000)
CLIENT = ("198.51.100.7", 50000)
DESTINATION = ("203.0.113.9", 443)


def entry(
    *,
    peer: tuple[str, int] = PEER,
    client: tuple[str, int] = CLIENT,
    destination: tuple[str, int] = DESTINATION,
    listener: str = "0.0.0.0:443",
    route: str | None = "api",
    target: str | None = "app:9000",
    end: str | None = "client_closed",
    times: tuple[float | None, ...] = (0.001, 0.002, 0.003, 0.004, 0.5),
) -> Entry:
    """What a line is made of."""
    t_proxy, t_tls, t_connect, t_first_byte, t_total = times
    return (
        77, peer, client, destination, listener, route, target, end, 1234, 5678,
        t_proxy, t_tls, t_connect, t_first_byte, t_total,
    )  # fmt: skip


def test_json_has_every_field_in_its_order() -> None:
    """One object on one line, with exactly the keys of design section 6."""
    line = line_maker("json", "0-3-")(TIME, entry())
    assert line.endswith("}\n")
    assert line.count("\n") == 1
    assert list(json.loads(line).items()) == [
        ("time", TIME),
        ("id", "0-3-77"),
        ("peer", "192.0.2.1:40000"),
        ("client", "198.51.100.7:50000"),
        ("destination", "203.0.113.9:443"),
        ("listener", "0.0.0.0:443"),
        ("route", "api"),
        ("target", "app:9000"),
        ("end", "client_closed"),
        ("received", 1234),
        ("sent", 5678),
        ("t_proxy", 0.001),
        ("t_tls", 0.002),
        ("t_connect", 0.003),
        ("t_first_byte", 0.004),
        ("t_total", 0.5),
    ]
    assert tuple(json.loads(line)) == FIELDS


def test_json_says_null_for_what_there_was_not() -> None:
    """No route, no target, no end yet, phases that did not happen, a peer without an address."""
    bare = entry(
        peer=("", 0),
        client=("", 0),
        destination=("", 0),
        listener="unix:/run/a.sock",
        route=None,
        target=None,
        end=None,
        times=(None, None, None, None, None),
    )
    line = json.loads(line_maker("json", "0-3-")(TIME, bare))
    nulls = {key for key, value in line.items() if value is None}
    assert nulls == set(FIELDS) - {"time", "id", "listener", "received", "sent"}


@pytest.mark.parametrize("seconds", [0.0, 0.0000004, 1e-06, 0.1 + 0.2, 59.9999999, 1e9])
def test_json_seconds_have_six_decimals(seconds: float) -> None:
    """Microseconds, and never an exponent."""
    line = line_maker("json", "")(TIME, entry(times=(seconds,) * 5))
    found = re.findall(r'"t_\w+":([^,}]+)', line)
    assert found == [f"{seconds:.6f}"] * 5
    assert all(re.fullmatch(r"[0-9]+\.[0-9]{6}", text) for text in found)


@pytest.mark.parametrize(
    "name",
    ['say "hi"', "back\\slash", "größe-日本", "😀", "line\nbreak\t\x00\x1b", "\u2028", "", "{}"],
)
def test_json_takes_any_name(name: str) -> None:
    """Names come from the config, and may hold anything."""
    make = line_maker("json", "0-3-")
    for _ in range(2):  # the second time from what is remembered
        line = make(TIME, entry(listener=name, route=name, target=name))
        assert line.count("\n") == 1
        read = json.loads(line)
        assert (read["listener"], read["route"], read["target"]) == (name, name, name)


def test_more_names_than_are_remembered() -> None:
    """Each line has its own name however many there are, and null stays null."""
    make = line_maker("json", "")
    for number in range(1, 3000):
        destination = ("10.0.0.1", number)
        line = json.loads(make(TIME, entry(route=f"r{number}", destination=destination)))
        assert (line["route"], line["destination"]) == (f"r{number}", f"10.0.0.1:{number}")
    assert json.loads(make(TIME, entry(route=None)))["route"] is None


def test_ipv6_is_in_brackets() -> None:
    """Address and port stay apart; a zone may hold what JSON has to escape."""
    line = entry(peer=("2001:db8::1", 1), client=('fe80::1%a"b', 2), destination=("::", 3))
    read = json.loads(line_maker("json", "")(TIME, line))
    assert (read["peer"], read["client"]) == ("[2001:db8::1]:1", '[fe80::1%a"b]:2')
    assert read["destination"] == "[::]:3"
    plain = line_maker("{peer} {client} {destination}", "")(TIME, line)
    assert plain == '[2001:db8::1]:1 [fe80::1%a"b]:2 [::]:3\n'


def test_peer_that_is_the_client_stands_in_both() -> None:
    """The text of one and the same address is made once."""
    read = json.loads(line_maker("json", "")(TIME, entry(peer=PEER, client=PEER)))
    assert read["peer"] == read["client"] == "192.0.2.1:40000"


@pytest.mark.parametrize("end", list(End))
def test_every_end_is_a_word(end: End) -> None:
    """An End goes in as its value, in both formats."""
    assert json.loads(line_maker("json", "")(TIME, entry(end=end)))["end"] == end.value
    assert line_maker("{end}", "")(TIME, entry(end=end)) == f"{end.value}\n"


def test_template_has_every_field() -> None:
    """All fields, each in its place."""
    template = "|".join(f"{{{name}}}" for name in FIELDS)
    line = line_maker(template, "0-3-")(TIME, entry())
    assert line == (
        f"{TIME}|0-3-77|192.0.2.1:40000|198.51.100.7:50000|203.0.113.9:443|0.0.0.0:443|api|app:9000"
        "|client_closed|1234|5678|0.001000|0.002000|0.003000|0.004000|0.500000\n"
    )


def test_template_says_dash_for_what_there_was_not() -> None:
    """A dash, as in the logs of other servers."""
    template = "{peer} {client} {destination} {route} {target} {end} {t_proxy} {t_total}"
    bare = entry(
        peer=("", 0),
        client=("", 0),
        destination=("", 0),
        route=None,
        target=None,
        end=None,
        times=(None, None, None, None, None),
    )
    assert line_maker(template, "")(TIME, bare) == "- - - - - - - -\n"


@pytest.mark.parametrize(
    ("template", "line"),
    [
        ("{end}", "client_closed"),
        ("{end} {end}", "client_closed client_closed"),
        ("{{{end}}}", "{client_closed}"),
        ("{{end}} {end}", "{end} client_closed"),
        ("100% %s %d %(x)s {end}%", "100% %s %d %(x)s client_closed%"),
        ("größe\t{sent}", "größe\t5678"),
    ],
)
def test_template_text(template: str, line: str) -> None:
    """Braces in pairs are braces, and nothing else has a meaning."""
    assert line_maker(template, "")(TIME, entry()) == line + "\n"


def test_template_names_stay_on_their_line() -> None:
    """A name cannot begin a line of its own, or hold what a terminal obeys."""
    line = line_maker("{route}", "")(TIME, entry(route="a\nb\x1b[31m\u2028\ud800 é"))
    assert line == "a\\nb\\x1b[31m\\u2028\\ud800 é\n"
    assert line.encode()


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (
            "{clinet} {end}",
            "unknown field {clinet} (did you mean {client}?); known are {time} {id}",
        ),
        ("{}", "unknown field {}; known are"),
        ("{ end }", "unknown field { end } (did you mean {end}?)"),
        ("{end:>9}", "unknown field {end:>9}"),
        ("{end", "a { without its partner (a literal one is {{)"),
        ("end} {end}", "a } without its partner (a literal one is }})"),
        ("{en{end}", "a { without its partner"),
        ("all is well", "names no field; known are {time}"),
        ("{{end}}", "names no field"),
        ("", "names no field"),
        ("{time}\n{end}", "only printable characters and tabs"),
        ("{time}\x1b{end}", "only printable characters and tabs"),
        ("{time}\ud800", "only printable characters and tabs"),
    ],
)
def test_bad_template_is_refused(template: str, message: str) -> None:
    """ValueError says what is wrong, and what there would be."""
    with pytest.raises(ValueError, match=re.escape(message)):
        compile_template(template)


def test_unknown_field_lists_what_there_is() -> None:
    """Every field is named."""
    with pytest.raises(ValueError, match="unknown") as caught:
        compile_template("{xyz}")
    assert all(f"{{{name}}}" in str(caught.value) for name in FIELDS)
