"""How large a head may be: of the target and of the fields, each by the route's own limit."""

from __future__ import annotations

from contextlib import suppress

import pytest

from shared.plan import HttpMatch, HttpPlan
from tests.helpers.http_talk import OK, chunked, get, route, serving

LIMIT = 1024


@pytest.mark.parametrize("widest", [LIMIT, 4 * LIMIT])
@pytest.mark.parametrize(
    ("target_bytes", "field_bytes", "fields", "status"),
    [
        (LIMIT, LIMIT, 5, 200),
        (LIMIT + 1, 100, 5, 414),
        (100, LIMIT + 1, 5, 431),
        (LIMIT + 1, LIMIT + 1, 5, 414),
        (100, 200, 6, 431),
    ],
)
def test_each_part_has_the_limit_for_itself(
    widest: int, target_bytes: int, field_bytes: int, fields: int, status: int
) -> None:
    """Also where another route of the port takes more, so that the head has been read already."""
    with serving() as plane:
        target, listener = plane.target(), plane.listen()
        plane.commit(
            route("r", listener, target, http=HttpPlan(head_limit=LIMIT, field_limit=5)),
            route(
                "s", listener, target, order=1,
                http=HttpPlan(
                    head_limit=widest, field_limit=9, match=HttpMatch(paths=("/other",))
                ),
            ),
        )  # fmt: skip
        client = plane.client(listener)
        client.send(head(target_bytes, field_bytes, fields))
        if status == 200:
            server = plane.accepted(target)
            server.message()
            server.send(OK)
        assert client.message().status == status
        assert status == 200 or client.is_ended()


@pytest.mark.parametrize(
    ("trailers", "status"),
    [
        ("X: y\r\n" * 5, 200),
        ("X: y\r\n" * 6, 431),
        ("X: " + "y" * (LIMIT - 7) + "\r\n", 200),
        ("X: " + "y" * (LIMIT - 6) + "\r\n", 431),
        ("X: y\r\n" * 200, 431),
        ("X: " + "y" * 31_000 + "\r\n", 431),
    ],
)
def test_trailers_have_the_limits_of_the_route(trailers: str, status: int) -> None:
    """For themselves, behind a head that is within them; what is over does not reach the target."""
    with serving() as plane:
        target = plane.target()
        plan = HttpPlan(head_limit=LIMIT, field_limit=5)
        client = plane.client(plane.http(target, plan=plan))
        fields = ("Transfer-Encoding: chunked", "F: " + "z" * (LIMIT - 200))
        client.send(get("/", *fields, method="POST") + chunked(b"abcdef", 4, trailers))
        server = plane.accepted(target)
        if status == 200:
            assert server.message().body == b"abcdef"
            server.send(OK)
            assert client.message().status == 200
            return
        assert client.message().status == status
        assert client.is_ended()
        server.head()
        with suppress(ConnectionResetError):
            assert b"X: " not in server.rest()


def head(target_bytes: int, field_bytes: int, fields: int) -> bytes:
    """A request whose target, and whose field block, have so many bytes."""
    lines = ["X: y"] * (fields - 2)
    path = "/".ljust(target_bytes, "x")
    short = get(path, *lines, "F: ")
    missing = field_bytes - (len(short) - short.index(b"\r\n") - 2)
    return get(path, *lines, "F: " + "z" * missing)
