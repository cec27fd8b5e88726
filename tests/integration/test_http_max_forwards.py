"""Max-Forwards of TRACE and OPTIONS (RFC 9110 section 7.6.2)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from shared.plan import FieldRules, HttpPlan
from tests.helpers.http_talk import OK, Served, get, serving


@pytest.fixture
def plane() -> Iterator[Served]:
    """A data plane."""
    with serving() as plane:
        yield plane


@pytest.mark.parametrize("method", ["TRACE", "OPTIONS"])
def test_it_is_counted_down(plane: Served, method: str) -> None:
    """By one, to what we pass on at the most; a request without it stays without."""
    target = plane.target()
    client = plane.client(plane.http(target))
    client.send(get("/", method=method))
    server = plane.accepted(target)
    assert "max-forwards" not in server.message().fields
    server.send(OK)
    assert client.message().status == 200
    for said, told in [("1", "0"), ("10", "9"), ("007", "6"), ("256", "255"), ("9" * 20, "255")]:
        client.send(get("/", f"Max-Forwards: {said}", "X-Other: 5", method=method))
        found = server.message()
        assert (found.fields["max-forwards"], found.fields["x-other"]) == (told, "5")
        server.send(OK)
        assert client.message().status == 200


def test_at_nought_it_goes_no_further(plane: Served) -> None:
    """OPTIONS has an answer of ours, TRACE none that shows anything; the connection goes on."""
    target = plane.target()
    client = plane.client(plane.http(target))
    for target_of in ("/", "*"):
        found = client.ask(get(target_of, "Max-Forwards: 0", method="OPTIONS"))
        assert (found.status, found.body) == (204, b"")
        assert "GET" in found.fields["allow"]
    found = client.ask(get("/", "Max-Forwards: 0", "Cookie: secret", method="TRACE"))
    assert found.status == 405
    assert "TRACE" not in found.fields["allow"]
    assert b"secret" not in found.body
    assert target.has_none()
    plane.wait_codes({"2xx": 2, "4xx": 1})


@pytest.mark.parametrize("said", [("-1",), ("1, 1",), ("",), ("1" * 21,), ("1", "1"), ("0x1",)])
def test_what_is_no_number(plane: Served, said: tuple[str, ...]) -> None:
    """400, and the connection ends."""
    target = plane.target()
    client = plane.client(plane.http(target))
    lines = [f"Max-Forwards: {one}" for one in said]
    assert client.ask(get("/", *lines, method="TRACE")).status == 400
    assert client.is_ended()
    assert target.has_none()


def test_other_methods_pass_it_on(plane: Served) -> None:
    """It means nothing there; and a rule of the route has the last word where it does."""
    target = plane.target()
    rules = FieldRules(set=(("Max-Forwards", "3"),))
    for plan, method, told in [(HttpPlan(), "GET", "0"), (HttpPlan(request=rules), "TRACE", "3")]:
        client = plane.client(plane.http(target, plan=plan))
        client.send(get("/", f"Max-Forwards: {0 if method == 'GET' else 9}", method=method))
        server = plane.accepted(target)
        assert server.message().fields["max-forwards"] == told
        server.send(OK)
        assert client.message().status == 200
        client.close()
        server.close()
