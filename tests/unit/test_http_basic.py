"""Basic authentication: what a client may send, and what it is asked with."""

from __future__ import annotations

from base64 import b64encode

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared.http.basic import MAX_BYTES, challenge, parse_basic

PRINTABLE = st.characters(min_codepoint=0x20, exclude_characters="\x7f", exclude_categories=["Cs"])


def field(pair: bytes, scheme: bytes = b"Basic ") -> bytes:
    """The value of the field for these bytes of user and password."""
    return scheme + b64encode(pair)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        # RFC 7617 sections 2 and 2.1
        (b"Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", ("Aladdin", "open sesame")),
        (b"Basic dGVzdDoxMjPCow==", ("test", "123\N{POUND SIGN}")),
        (b"bAsIc   QWxhZGRpbjpvcGVuIHNlc2FtZQ==", ("Aladdin", "open sesame")),
        (field(b"alice:a:b:"), ("alice", "a:b:")),
        (field(b"alice:"), ("alice", "")),
        (field(b" al ice : x "), (" al ice ", " x ")),
    ],
)
def test_what_is_taken(value: bytes, expected: tuple[str, str]) -> None:
    """The RFC's examples, the scheme in any case, colons and blanks in a password."""
    assert parse_basic(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"Basic",
        b"Basic ",
        b"Basic\tYTpi",
        b" Basic YTpi",
        b"BasicYTpi",
        b"Bearer YTpi",
        b"Digest username=a",
        b"Basic YTpiYw",  # no padding
        b"Basic YTpiYw=",
        b"Basic YTpiYw===",
        b"Basic YTpiYx==",  # bits behind the last byte that are not 0
        b"Basic YTpi YTpi",
        b"Basic YTpi,Basic YTpi",
        b"Basic YTpi\n",
        b"Basic YT pi",
        b"Basic YTpi\0",
        b"Basic YTp-",  # of the alphabet for URLs
        b"Basic =YTpi",
        b"Basic YTpiYw==YTpi",
        field(b"alice"),
        field(b":secret"),
        field(b":"),
        field(b"al\0ice:x"),
        field(b"alice:x\n"),
        field(b"alice:x\x7f"),
        field(b"alice:\xff"),
        field(b"alice:\xc0\xaf"),
        field(b"alice:\xed\xa0\x80"),  # half of a surrogate pair
        field(b"a:" + b"x" * MAX_BYTES),
    ],
)
def test_what_is_refused(value: bytes) -> None:
    """Other schemes, Base64 that could be read in two ways, control bytes, no UTF-8, no name."""
    assert parse_basic(value) is None


@given(st.text(PRINTABLE, min_size=1, max_size=80), st.text(PRINTABLE, max_size=80))
@example("a", "\N{LINE SEPARATOR}")
def test_what_is_written_is_read(user: str, password: str) -> None:
    """Any name without a colon, and any password."""
    name = user.replace(":", "_")
    assert parse_basic(field(f"{name}:{password}".encode())) == (name, password)


@given(st.binary(max_size=60))
@example(b"YTpi")
def test_any_bytes_give_a_pair_or_none(data: bytes) -> None:
    """Nothing is raised, and what is taken has no second spelling."""
    for value in (data, b"Basic " + data, field(data)):
        pair = parse_basic(value)
        if pair is not None:
            assert field(":".join(pair).encode()) == b"Basic " + value[6:].lstrip(b" ")
            assert pair[0]
            assert ":" not in pair[0]


@pytest.mark.parametrize(
    ("realm", "expected"),
    [
        ("staff", b'Basic realm="staff", charset="UTF-8"'),
        ("", b'Basic realm="", charset="UTF-8"'),
        ('the "inner" \\ circle', rb'Basic realm="the \"inner\" \\ circle", charset="UTF-8"'),
        ("Bär\tx", b'Basic realm="B\xc3\xa4r\tx", charset="UTF-8"'),
    ],
)
def test_the_challenge(realm: str, expected: bytes) -> None:
    """Quotes and backslashes of a realm are escaped."""
    assert challenge(realm) == expected


@pytest.mark.parametrize("realm", ["a\r\nSet-Cookie: x", "a\0", "\x1b", "\x7f"])
def test_a_realm_cannot_end_its_line(realm: str) -> None:
    """Control characters are a mistake of the caller."""
    with pytest.raises(ValueError, match="control"):
        challenge(realm)
