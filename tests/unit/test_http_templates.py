"""Texts with fields in them: what is refused, what is rendered, what can never be injected."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.http.forwarding import Origin
from shared.http.templates import check_template, compile_template
from tests.helpers import http_heads as heads

ASKED = heads.request("/a/b%2C", ("X-One", "1"), ("X-One", "2"), ("Cookie", "a=1"), query="q=1&r")


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("", ""),
        ("plain text", "plain text"),
        ("{client_ip}", "203.0.113.5"),
        ("{client_port}", "4000"),
        ("{scheme}://{host}:{port}", "https://example.com:8080"),
        ("{path}", "/a/b%2C"),
        ("{query}", "q=1&r"),
        ("{path_and_query}", "/a/b%2C?q=1&r"),
        ("{sni}", "sni.example.com"),
        ("{route}", "web"),
        ("{request_id}", heads.REQUEST_ID),
        ("{param.id}", "42"),
        ("{param.*}", "x/y"),
        ("<{param.none}>", "<>"),
        ("{header.X-One}", "1, 2"),
        ("{header.cookie}", "a=1"),
        ("<{header.x-none}>", "<>"),
        ("{{}}", "{}"),
        ("{{host}}", "{host}"),
        ("{{{host}}}", "{example.com}"),
        ("ü", "ü"),
    ],
)
def test_rendered(text: str, rendered: str) -> None:
    """Each field, and braces that are meant."""
    came = heads.origin(scheme="https", sni="sni.example.com")
    about = heads.about(ASKED, came=came, params={"id": "42", "*": "x/y"})
    check_template(text, {"id", "*", "none"})
    assert compile_template(text).render(about).decode() == rendered


def test_what_is_not_known_is_empty() -> None:
    """A client on a Unix socket has no address, and a request may have no query."""
    about = heads.about(came=Origin("", 0, "http", 0))
    text = "<{client_ip}{client_port}{port}{query}{sni}>"
    assert compile_template(text).render(about) == b"<>"
    assert compile_template("{path_and_query}").render(about) == b"/"


@pytest.mark.parametrize(
    ("sni", "address", "told"),
    [
        ("", "192.0.2.1", "192.0.2.1"),
        ("", "2001:db8::1", "[2001:db8::1]"),
        ("", "fe80::1%eth0", "[fe80::1]"),
        ("sni.example.com", "192.0.2.1", "sni.example.com"),
        ("", "", ""),
    ],
)
def test_a_client_that_names_no_host(sni: str, address: str, told: str) -> None:
    """Of HTTP/1.0: {host} is the name of its ClientHello, else the address that it dialled."""
    came = Origin("203.0.113.5", 4000, "http", 8080, sni, address)
    about = heads.about(heads.request(authority="", is_11=False), came=came)
    assert compile_template("{host}", is_location=True).render(about).decode() == told


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{clientip}", r"`\{clientip\}` is no field; there are \{client_ip\}, .*\{header.NAME\}"),
        ("{}", r"`\{\}` is no field"),
        ("{HOST}", r"`\{HOST\}` is no field"),
        ("{param}", r"`\{param\}` is no field"),
        ("{header.}", r"`\{header.\}` is no field"),
        ("{header.a b}", r"`\{header.a b\}` is no field"),
        ("{param.x}", r"`\{param.x\}` is no parameter of the route's paths; there are id, name"),
        ("a { b", r"a `\{` alone; write `\{\{` for it"),
        ("a } b", r"a `\}` alone; write `\}\}` for it"),
        ("{host", r"a `\{` alone"),
        ("{a{b}}", r"a `\{` alone"),
        ("a\r\nX: b", "a control character"),
        ("a\0", "a control character"),
    ],
)
def test_refused(text: str, message: str) -> None:
    """What is no template is named, with what there is instead."""
    with pytest.raises(ValueError, match=message):
        check_template(text, ["name", "id"])


def test_a_route_without_parameters() -> None:
    """The message says that there are none."""
    with pytest.raises(ValueError, match="it has none"):
        check_template("{param.id}", ())


def test_texts_and_the_route_are_known_beforehand() -> None:
    """What does not depend on the request costs nothing per request."""
    assert compile_template("a {{b}} c").is_constant
    assert compile_template("of {route}", route="web").constant == b"of web"
    assert not compile_template("of {route}").is_constant
    assert compile_template("/{route}", is_location=True, route="a b/c").constant == b"/a%20b%2Fc"


def test_forwarding_fields_count_from_trusted_forwarders_only() -> None:
    """A template cannot bring back what was dropped."""
    asked = heads.request("/", ("X-Forwarded-For", "198.51.100.9"))
    template = compile_template("<{header.X-Forwarded-For}>")
    assert template.render(heads.about(asked)) == b"<>"
    trusted = heads.about(asked, trusted=("203.0.113.0/24",))
    assert template.render(trusted) == b"<198.51.100.9>"


@pytest.mark.parametrize(
    ("text", "location"),
    [
        ("https://{host}{path_and_query}", "https://example.com/a/b%2C?q=1&r"),
        ("https://{header.Host}/", "https://example.com:8080/"),
        ("/login?next={header.X-Next}", "/login?next=https%3A%2F%2Fevil.example%2F%25"),
        ("/ü <x>", "/%C3%BC%20%3Cx%3E"),
        ("/u/{param.id}", "/u/4%2F2%20%22%C3%BC"),
    ],
)
def test_locations_are_urls(text: str, location: str) -> None:
    """What came as part of a URL stays as it came; any other value becomes one component."""
    asked = heads.request(
        "/a/b%2C", ("Host", "example.com:8080"), ("X-Next", "https://evil.example/%"), query="q=1&r"
    )
    about = heads.about(asked, params={"id": '4%2F2 "ü'})
    assert compile_template(text, is_location=True).render(about).decode() == location


@pytest.mark.parametrize(
    ("text", "path", "location"),
    [
        ("{path}", "//evil.example/x", "/.//evil.example/x"),
        ("{path_and_query}", "//evil.example", "/.//evil.example"),
        ("/{param.*}", "/", "/.//evil.example"),
        ("//{host}{path}", "/x", "//example.com/x"),
        ("{path}", "*", "/"),
        ("https://{host}{path_and_query}", "*", "https://example.com/"),
    ],
)
def test_a_path_names_no_host(text: str, path: str, location: str) -> None:
    """Only the operator's own text can send a client to another host."""
    about = heads.about(heads.request(path), params={"*": "/evil.example"})
    assert compile_template(text, is_location=True).render(about).decode() == location


def test_control_bytes_are_left_out() -> None:
    """Of a location too: an escape would bring them back wherever it is undone."""
    about = heads.about(heads.request("/a\r\nb\0\x7f", ("X-V", "\tc\x1bd")))
    for is_location in (False, True):
        template = compile_template("{path}{header.x-v}", is_location=is_location)
        assert template.render(about) == b"/abcd"


@given(value=st.text(st.characters(max_codepoint=255), max_size=40), is_location=st.booleans())
def test_nothing_is_injected(value: str, is_location: bool) -> None:
    """Whatever a client sends, no line ends early; a location is made of URL characters."""
    asked = heads.request(f"/{value}", ("X-V", value), query=value, authority=value or "x")
    about = heads.about(asked, params={"p": value})
    text = "{path}|{query}|{path_and_query}|{host}|{param.p}|{header.x-v}"
    rendered = compile_template(text, is_location=is_location).render(about)
    assert not re.search(rb"[\x00-\x1f\x7f]", rendered)
    if is_location:
        assert re.fullmatch(rb"[!#-;=?-\[\]-~]*", rendered)
