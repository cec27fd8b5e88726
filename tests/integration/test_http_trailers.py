"""Trailers, either way: those that a rule sets or removes are not the sender's to say."""

from __future__ import annotations

import pytest

from shared.plan import FieldRules, HttpPlan
from tests.helpers.http_talk import Served, Talker, chunked, get, serving

TRAILERS = "X-User: admin\r\nX-Secret: s\r\nX-Sum: 7\r\n"
RULES = [
    (FieldRules(), {"x-user": "admin", "x-secret": "s", "x-sum": "7"}),
    (FieldRules(set=(("X-User", "nobody"),)), {"x-secret": "s", "x-sum": "7"}),
    (FieldRules(remove=("x-secret",)), {"x-user": "admin", "x-sum": "7"}),
    (
        FieldRules(set=(("x-user", "nobody"),), remove=("X-SECRET", "X-Sum")),
        {},
    ),
]  # fmt: skip


def asked(plane: Served, plan: HttpPlan) -> tuple[Talker, Talker]:
    """A client and the target's side of a request that has been sent, trailers behind its body."""
    target = plane.target()
    client = plane.client(plane.http(target, plan=plan))
    head = get("/", "Transfer-Encoding: chunked", "X-User: admin", "X-Secret: s", method="POST")
    client.send(head + chunked(b"abcdef", 4, TRAILERS))
    return client, plane.accepted(target)


@pytest.mark.parametrize(("rules", "expected"), RULES)
def test_trailers_of_a_request(rules: FieldRules, expected: dict[str, str]) -> None:
    """The target does not get as a trailer what a rule has kept from it as a field."""
    with serving() as plane:
        client, server = asked(plane, HttpPlan(request=rules))
        request = server.message()
        assert (request.body, request.trailers) == (b"abcdef", expected)
        is_set, is_removed = bool(rules.set), any("ecret" in one.lower() for one in rules.remove)
        assert request.fields["x-user"] == ("nobody" if is_set else "admin")
        assert request.fields.get("x-secret") == (None if is_removed else "s")
        server.send(b"HTTP/1.1 204 No Content\r\n\r\n")
        assert client.message().status == 204


@pytest.mark.parametrize("trusts", [(), ("127.0.0.0/8",)])
def test_trailers_that_say_who_asks(trusts: tuple[str, ...]) -> None:
    """They do not pass, not from a trusted forwarder either: as a field they do from that one."""
    said = "X-Client-IP: 192.0.2.1\r\nX-Forwarded-Ssl: on\r\nX_Forwarded_Ssl: on\r\nX-Sum: 7\r\n"
    with serving() as plane:
        target = plane.target()
        client = plane.client(plane.http(target, plan=HttpPlan(trusted_forwarders=trusts)))
        fields = ("Transfer-Encoding: chunked", "X-Client-IP: 192.0.2.1")
        client.send(get("/", *fields, method="POST") + chunked(b"abcdef", 4, said))
        request = plane.accepted(target).message()
        assert request.trailers == {"x-sum": "7"}
        assert request.fields.get("x-client-ip") == ("192.0.2.1" if trusts else None)


@pytest.mark.parametrize(("rules", "expected"), RULES)
def test_trailers_of_an_answer(rules: FieldRules, expected: dict[str, str]) -> None:
    """Neither does the client, of what the rules for answers name."""
    with serving() as plane:
        client, server = asked(plane, HttpPlan(response=rules))
        assert len(server.message().trailers) == 3
        server.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        server.send(chunked(b"ghijkl", 4, TRAILERS))
        found = client.message()
        assert (found.body, found.trailers) == (b"ghijkl", expected)
