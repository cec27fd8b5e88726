"""Paths: one form of each, and none that could be read in two ways."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import HttpError
from shared.http.paths import normalise

PIECES = ("/", "//", ".", "..", "%2e", "%2E", "%2f", "%41", "%c3", "%", ";", "a", "b%20", "\\", "é")
paths = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=12).map(
    lambda parts: "/" + "".join(parts)
)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", "/"),
        ("/a/b/c", "/a/b/c"),
        ("/a/b/c/./../../g", "/a/g"),  # RFC 3986 section 5.2.4
        ("/b/c/../../../g", "/g"),
        ("/./g", "/g"),
        ("/../g", "/g"),
        ("/g.", "/g."),
        ("/.g", "/.g"),
        ("/g..", "/g.."),
        ("/..g", "/..g"),
        ("/./../g", "/g"),
        ("/./g/.", "/g/"),
        ("/g/./h", "/g/h"),
        ("/g/../h", "/h"),
        ("/.", "/"),
        ("/..", "/"),
        ("/a/..", "/"),
        ("/a/b/..", "/a/"),
        ("//", "//"),
        ("/a//b", "/a//b"),
        ("/a//../b", "/a/b"),
        ("//..", "/"),
        ("/%41%5a%7a%30%2d%5F%7E", "/AZz0-_~"),
        ("/%2e%2e%2e", "/..."),
        ("/a%2e", "/a."),
        ("/%3a%c3%bc", "/%3A%C3%BC"),
        ("/%252f", "/%252f"),
        ("/a%3bb;c", "/a%3Bb;c"),
    ],
)
def test_one_form(path: str, expected: str) -> None:
    """RFC 3986 sections 5.2.4 and 6.2.2, with empty segments left as they are."""
    assert normalise(path) == expected


@pytest.mark.parametrize(
    "path",
    [
        "", "a", "*", "%2fa", "/%2f", "/%2F", "/%5c", "/%5C", "/\\", "/\0", "/%00", "/ ", "/\x7f",
        "/é", "/%", "/%2", "/%g0", "/%0g", "/%u0041", "/%2e", "/%2e%2e", "/.%2e", "/%2E.",
        "/a/%2e%2E/b", "/..;", "/.;a", "/%2e%2e;a", "/%2e.%3b", "/a/..;x=1/../b", "/%2e/..",
    ],
)  # fmt: skip
def test_refused(path: str) -> None:
    """What a target may read as another path is a bad request."""
    with pytest.raises(HttpError) as caught:
        normalise(path)
    assert caught.value.status == 400


@settings(deadline=None, max_examples=300)
@given(paths)
def test_what_is_accepted_is_in_its_last_form(path: str) -> None:
    """To normalise twice is to normalise once, and no dot segment is left."""
    try:
        once = normalise(path)
    except HttpError:
        return
    assert normalise(once) == once
    assert not {".", ".."} & set(once.split("/"))
    assert once.startswith("/")
