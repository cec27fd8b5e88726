"""curl, requests, httpx and wrk before web servers of others, plain and where TLS ends."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from loadtests.tool_output import parse_wrk
from tests.helpers.http_apps import FILE
from tests.helpers.http_clients import CLIENTS, HttpClient, curl, httpx_client
from tests.helpers.http_servers import SERVERS
from tests.helpers.http_site import HttpSite, Servers
from tests.helpers.tls_programs import run
from tests.helpers.waiting import wait_until

pytestmark = pytest.mark.program("curl", "nginx", "ngx_stream_module.so")

SERVER = pytest.mark.parametrize("server", SERVERS)
APP = pytest.mark.parametrize("server", ["uvicorn", "gunicorn"])
SCHEME = pytest.mark.parametrize("scheme", ["http", "https"])
CLIENT = pytest.mark.parametrize("client", CLIENTS, indirect=True)
BODY: Final = bytes(range(251)) * 8000  # 2 MB
HOP_BY_HOP: Final = {"connection", "keep-alive", "te", "upgrade", "proxy-connection"}
FORWARDING: Final = {
    "X-Forwarded-For": "192.0.2.66",
    "X-Forwarded-Proto": "gopher",
    "X-Forwarded-Host": "evil.example",
    "X-Real-IP": "192.0.2.66",
    "Forwarded": "for=192.0.2.66",
    "X-Request-ID": "chosen-by-the-client",
}


class Place(HttpSite):
    """A site with the servers behind it."""

    servers: Servers


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Started once: these tests change nothing of it."""
    directory = tmp_path_factory.mktemp("http")
    with ExitStack() as stack:
        servers = Servers(directory)
        stack.callback(servers.end)
        site = Place(directory / "site", servers.routes())
        stack.callback(site.end)
        site.start()
        site.servers = servers
        yield site


@pytest.fixture
def client(place: Place, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[HttpClient]:
    """The client that the test names."""
    made: HttpClient = CLIENTS[request.param](place.servers.root.cert, tmp_path)
    try:
        yield made
    finally:
        made.close()


@SERVER
@SCHEME
@CLIENT
def test_files(place: Place, client: HttpClient, server: str, scheme: str) -> None:
    """GET, HEAD and a 404, several times over, from every server."""
    servers = place.servers
    for _ in range(3):
        answer = client.ask("GET", servers.url(server, scheme, "/file"))
        assert (answer.status, answer.body) == (200, FILE)
        assert answer.fields["content-length"] == str(len(FILE))
        head = client.ask("HEAD", servers.url(server, scheme, "/file"))
        assert (head.status, head.body) == (200, b"")
        assert head.fields["content-length"] == str(len(FILE))
        assert client.ask("GET", servers.url(server, scheme, "/none")).status == 404


@APP
@SCHEME
@CLIENT
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_bodies(place: Place, client: HttpClient, server: str, scheme: str, chunked: bool) -> None:
    """What is posted arrives whole, with its length or in chunks; curl waits for a 100."""
    url = place.servers.url(server, scheme, "/digest")
    expected = f"{len(BODY)} {hashlib.sha256(BODY).hexdigest()}".encode()
    for _ in range(2):
        answer = client.ask("POST", url, BODY, chunked=chunked)
        assert (answer.status, answer.body) == (200, expected)


@APP
@SCHEME
@CLIENT
def test_chunks(place: Place, client: HttpClient, server: str, scheme: str) -> None:
    """An answer in chunks, twice on a connection."""
    for _ in range(2):
        answer = client.ask("GET", place.servers.url(server, scheme, "/chunks"))
        assert (answer.status, answer.body) == (200, FILE)


@APP
@SCHEME
@CLIENT
def test_what_the_target_sees(place: Place, client: HttpClient, server: str, scheme: str) -> None:
    """Who asks and how, the query as it was, and no field that belongs to one connection."""
    url = place.servers.url(server, scheme, "/seen/a%20b?x=%2F&y")
    seen = json.loads(client.ask("GET", url).body)
    fields = seen["fields"]
    port = place.servers.ports[server, scheme]
    assert (seen["method"], seen["path"], seen["query"]) == ("GET", "/seen/a b", "x=%2F&y")
    assert fields["host"] == f"127.0.0.1:{port}"
    assert fields["x-forwarded-for"] == fields["x-real-ip"] == "127.0.0.1"
    assert fields["x-forwarded-proto"] == scheme
    assert fields["x-forwarded-host"] == f"127.0.0.1:{port}"
    assert f"proto={scheme}" in fields["forwarded"]
    assert not HOP_BY_HOP & fields.keys()
    (line,) = place.wait_lines(1, request_id=fields["x-request-id"])
    assert (line["method"], line["status"], line["route"]) == ("GET", 200, f"{server}-{scheme}")
    assert line["t_first_byte"] <= line["t_total"]


@APP
def test_claims_of_a_client(place: Place, server: str) -> None:
    """Forwarding fields of somebody who is not trusted do not reach the target."""
    claims = [word for one in FORWARDING.items() for word in ("--header", ": ".join(one))]
    url = place.servers.url(server, "http", "/seen")
    text = curl(place.servers.root.cert, *claims, url)
    assert not [value for value in FORWARDING.values() if value in text]
    assert json.loads(text)["fields"]["x-forwarded-for"] == "127.0.0.1"


@SERVER
def test_one_connection(place: Place, server: str) -> None:
    """curl asks five times on one connection, whatever the target does with its own."""
    url = place.servers.url(server, "http", "/file")
    asked = [word for _ in range(5) for word in (url, "--output", "/dev/null")]
    said = curl(place.servers.root.cert, *asked, "--write-out", "%{http_code} %{num_connects}\n")
    assert said.splitlines() == ["200 1", *["200 0"] * 4]


@SERVER
@SCHEME
def test_http_10(place: Place, server: str, scheme: str) -> None:
    """A client of HTTP/1.0 gets the file, and the end of the connection behind it."""
    url = place.servers.url(server, scheme, "/file")
    text = curl(place.servers.root.cert, "--http1.0", "--dump-header", "-", "-o", "/dev/null", url)
    assert re.match(r"HTTP/1\.[01] 200 ", text)
    assert "transfer-encoding" not in text.lower()


def test_chunks_for_http_10(place: Place, tmp_path: Path) -> None:
    """An answer in chunks goes to a client of HTTP/1.0 without them."""
    out = tmp_path / "out"
    url = place.servers.url("uvicorn", "http", "/chunks")
    curl(place.servers.root.cert, "--http1.0", "--output", out, url)
    assert out.read_bytes() == FILE


@SCHEME
def test_server_sent_events(place: Place, scheme: str) -> None:
    """An event is with the client before the next one is made."""
    servers = place.servers
    with (
        httpx_client(servers.root.cert) as client,
        client.stream("GET", servers.url("uvicorn", scheme, "/events")) as answer,
    ):
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = answer.iter_text()
        assert next(events) == "data: one\n\n"
        assert client.get(servers.url("uvicorn", scheme, "/go")).status_code == 200
        assert "".join(events) == "data: two\n\n"


def test_ranges(place: Place, tmp_path: Path) -> None:
    """curl goes on where a transfer has stopped: 206 of nginx passes as it is."""
    out = tmp_path / "out"
    out.write_bytes(FILE[:5000])
    url = place.servers.url("nginx", "https", "/file")
    said = curl(
        place.servers.root.cert, "-C", "-", "--output", out, "--write-out", "%{http_code}", url
    )
    assert (said, out.read_bytes()) == ("206", FILE)


@SCHEME
@pytest.mark.program("wrk")
@pytest.mark.parametrize("more", [[], ["-H", "Connection: close"]], ids=["kept", "single"])
def test_wrk(place: Place, scheme: str, more: list[str]) -> None:
    """wrk has no failed request, and every answer that it counts is counted here."""
    labels = {"route": f"nginx-{scheme}", "code": "2xx"}
    place.settle()  # so that everything earlier is in the counts
    before = place.metric("requests_total", **labels)
    url = place.servers.url("nginx", scheme, "/file")
    said = run("wrk", "-t1", "-c8", "-d1s", *more, url)
    found = parse_wrk(said.text)
    assert (found.errors, found.requests > 20) == (0, True), said.text
    wait_until(
        lambda: place.metric("requests_total", **labels) - before >= found.requests,
        "every answer of wrk is counted",
    )


def test_every_end_is_known(place: Place) -> None:
    """After all of these no connection is left, and none ended by a fault of ours."""
    ends = place.settle()["ends"]
    assert not {"internal_error", "bad_request", "target_reset"} & ends.keys(), ends
