"""HTTP behind TLS that ends here: policies, identities, and ends that a client can tell."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.plan import (
    AnswerPlan,
    HttpMatch,
    HttpPlan,
    IdentityPlan,
    RoutePlan,
    SecurityPlan,
    TlsPlan,
    UpstreamTlsPlan,
)
from tests.data_plane_sockets import Target
from tests.helpers.certificates import Authority
from tests.helpers.held_loop import held
from tests.helpers.http_talk import (
    HOST,
    OK,
    Served,
    Talker,
    answer,
    get,
    post,
    route,
    say_goodbye,
    serving,
)
from tests.helpers.tls_clients import nameless
from tests.helpers.tls_pairs import authority_plan, certificate_plan
from tests.helpers.waiting import wait_until

OPEN = TlsPlan(certificates=(0,), policy="open")
ASKING = TlsPlan(certificates=(0,), client_auth="required", client_ca=0, policy="asking")
NAMES = ("a.example", "b.example")


class Secure:
    """One port with TLS, and certificates of one authority for everybody."""

    def __init__(self, plane: Served, directory: Path) -> None:
        self.plane = plane
        self.target: Target = plane.target()
        self.listener = plane.listen()
        self.authority = Authority(directory, "ca")
        self.files = self.authority.leaf(*NAMES)
        self.ann = self.authority.client("ann")

    def serve(self, *routes: RoutePlan) -> None:
        """Make these the next generation."""
        self.plane.commit(
            *routes,
            certificates=[certificate_plan(self.files, list(NAMES))],
            authorities=[authority_plan(self.authority)],
        )

    def route(self, name: str, order: int = 0, **settings: object) -> RoutePlan:
        """A route that ends TLS, of this name and domain."""
        made = {"domains": (name,), "tls": True, "terminate": OPEN, "http": HttpPlan()} | settings
        return route(name, self.listener, self.target, order=order, **made)

    def context(self, *, is_ann: bool = False) -> ssl.SSLContext:
        """Of a client."""
        made = ssl.create_default_context(cafile=str(self.authority.cert))
        if is_ann:
            made.load_cert_chain(self.ann.cert, self.ann.key)
        return made

    def client(self, name: str = HOST, *, is_ann: bool = False) -> Talker:
        """A client, its handshake done for this name."""
        return self.plane.tls_client(self.listener, self.context(is_ann=is_ann), name)


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[Secure]:
    """With a data plane of its own."""
    with serving() as plane:
        yield Secure(plane, tmp_path)


def test_many_requests_on_one_connection(secure: Secure) -> None:
    """One at a time and ahead; the target is told of the scheme."""
    plane = secure.plane
    secure.serve(secure.route(HOST))
    client = secure.client()
    client.send(get())
    server = plane.accepted(secure.target)
    assert server.message().fields["x-forwarded-proto"] == "https"
    server.send(OK)
    assert client.message().body == b"ok"
    client.send(get("/1"), post(b"body", "/2"), get("/3"))
    for number in (1, 2, 3):
        assert server.message().target == f"/{number}"
        server.send(answer(b"%d" % number))
    for number in (1, 2, 3):
        assert client.message().body == b"%d" % number
    plane.wait_codes({"2xx": 4}, HOST)
    assert plane.target_counts(secure.target, HOST).total == 1


def test_the_last_answer_ends_with_close_notify(secure: Secure) -> None:
    """Or a client could take it for an attack; it reads the end as an end."""
    secure.serve(secure.route(HOST, http=HttpPlan(answer=AnswerPlan(status=200, body=b"x"))))
    for asked, status in (
        (get("/", "Connection: close"), 200),
        (b"GET / HTTP/1.0\r\nHost: a.example\r\n\r\n", 200),
        (b"GET / HTTP/1.1\r\n\r\n" + bytes(100_000), 400),
    ):
        client = secure.client()
        client.send(asked)
        found = client.message()
        assert (found.status, found.fields["connection"]) == (status, "close")
        assert client.is_ended()  # ssl.SSLEOFError without close_notify


def test_close_notify_that_comes_along_with_a_request(secure: Secure) -> None:
    """No event tells of it again: the connection ends behind the answer, with the socket open."""
    plane = secure.plane
    secure.serve(secure.route(HOST, http=HttpPlan(answer=AnswerPlan(status=200, body=b"x"))))
    client = secure.client()
    with held(plane):
        client.send(get())
        say_goodbye(client)
    wait_until(lambda: plane.ends() == {"client_closed": 1}, "it has ended")
    client.close()


@pytest.mark.parametrize("size", [10, 100_000])
def test_close_notify_that_comes_along_with_an_answer(secure: Secure, size: int) -> None:
    """It is the end of an answer without a length, while the target's socket is open."""
    plane = secure.plane
    plane.serve_tls(secure.files)
    secure.serve(secure.route(HOST, upstream_tls=UpstreamTlsPlan(ca=0, server_name=HOST)))
    client = secure.client()
    client.send(get())
    server = plane.accepted(secure.target)
    server.message()
    with held(plane):
        server.send(b"HTTP/1.1 200 OK\r\n\r\n" + bytes(size))
        say_goodbye(server)
    assert client.message().body == bytes(size)
    server.close()


def test_a_connection_for_several_names(secure: Secure) -> None:
    """Of one policy: each request goes by its Host, whatever name the handshake was for."""
    secure.serve(
        *(
            secure.route(
                name, order, http=HttpPlan(answer=AnswerPlan(status=200, body=name.encode()))
            )
            for order, name in enumerate(NAMES)
        )
    )
    client = secure.client()
    for name in (*NAMES, *NAMES):
        assert client.ask(get(host=name)).body == name.encode()
    assert client.ask(get(host="c.example")).status == 404


def test_another_policy_is_misdirected(secure: Secure) -> None:
    """421, never forwarded, for one who has not shown the certificate that the route asks for."""
    secure.serve(secure.route("a.example"), secure.route("b.example", 1, terminate=ASKING))
    client = secure.client("a.example")
    for _ in range(2):
        found = client.ask(get(host="b.example"))
        assert (found.status, "connection" in found.fields) == (421, False)
    assert secure.target.has_none()
    client.send(get(host="a.example"))
    server = secure.plane.accepted(secure.target)
    server.message()
    server.send(OK)
    assert client.message().body == b"ok"
    known = secure.client("b.example", is_ann=True)
    known.send(get(host="b.example"))
    server.message()  # on the connection that is kept, which leads to the same place
    server.send(OK)
    assert known.message().body == b"ok"
    assert known.ask(get(host="a.example")).status == 421


def test_a_route_for_tls_asked_in_the_open(secure: Secure) -> None:
    """421 on a plain connection that another route has opened."""
    plain = route("plain", secure.listener, secure.target, domains=("b.example",), order=1,
                  http=HttpPlan(answer=AnswerPlan(status=200, body=b"x")), tls=False)  # fmt: skip
    secure.serve(secure.route("a.example"), plain)
    client = secure.plane.client(secure.listener)
    assert client.ask(get(host="b.example")).body == b"x"
    assert client.ask(get(host="a.example")).status == 421
    assert client.ask(get(host="b.example")).body == b"x"


def test_identities_are_asked_for_each_request(secure: Secure) -> None:
    """One connection, one certificate: let in to one route, refused by the other."""
    may = SecurityPlan(identities=(IdentityPlan(match=(("cn", "ann"),)),))
    may_not = SecurityPlan(identities=(IdentityPlan(match=(("cn", "bob"),)),))
    secure.serve(
        secure.route("a.example", terminate=ASKING, security=may),
        secure.route("b.example", 1, terminate=ASKING, security=may_not),
    )
    client = secure.client(is_ann=True)
    assert client.ask(get(host="b.example")).status == 403
    client.send(get(host="a.example"))
    server = secure.plane.accepted(secure.target)
    server.message()
    server.send(OK)
    assert client.message().body == b"ok"
    assert client.ask(get(host="b.example")).status == 403


def test_a_path_decides_behind_tls(secure: Secure) -> None:
    """HTTP criteria see what TLS had closed."""
    api = HttpPlan(match=HttpMatch(paths=("/api/*",)), answer=AnswerPlan(status=200, body=b"api"))
    rest = HttpPlan(answer=AnswerPlan(status=200, body=b"rest"))
    secure.serve(
        secure.route("api", domains=(HOST,), http=api),
        secure.route("rest", 1, domains=(HOST,), http=rest),
    )
    client = secure.client()
    assert [client.ask(get(path)).body for path in ("/", "/api/x", "/apis")] == [
        b"rest", b"api", b"rest",
    ]  # fmt: skip


def test_a_target_with_tls_is_kept(secure: Secure) -> None:
    """One handshake for many requests, of many clients."""
    plane = secure.plane
    plane.serve_tls(secure.files)
    secure.serve(secure.route(HOST, upstream_tls=UpstreamTlsPlan(ca=0, server_name=HOST)))
    client = secure.client()
    client.send(get())
    server = plane.accepted(secure.target)
    server.message()
    server.send(OK)
    assert client.message().body == b"ok"
    for _ in range(3):
        client.close()
        client = secure.client()
        client.send(post(b"body"))
        assert server.message().body == b"body"
        server.send(OK)
        assert client.message().body == b"ok"
    assert secure.target.has_none()


def test_a_target_whose_certificate_will_not_do(secure: Secure) -> None:
    """502, and the client's connection goes on."""
    plane = secure.plane
    plane.serve_tls(secure.files)
    secure.serve(
        secure.route(HOST, upstream_tls=UpstreamTlsPlan(ca=0, server_name="other.example"))
    )
    client = secure.client()
    client.send(get())
    with pytest.raises((ssl.SSLError, OSError)):
        plane.accepted(secure.target).exactly(1)
    assert client.message().status == 502
    secure.serve(secure.route(HOST, http=HttpPlan(answer=AnswerPlan(status=200, body=b"x"))))
    assert client.ask(get()).body == b"x"


def test_a_client_without_a_name(secure: Secure) -> None:
    """It sends no SNI: a route without domains takes it, and Host decides no less."""
    secure.serve(
        secure.route("any", domains=(), http=HttpPlan(answer=AnswerPlan(status=200, body=b"any")))
    )
    sock = secure.plane.connect(secure.listener)
    wrapped = secure.plane.keep(nameless(secure.authority).wrap_socket(sock))
    client = Talker(wrapped)
    assert client.ask(get(host="x.example")).body == b"any"
    client.close()
