"""curl, requests and httpx as clients of tests, behind one interface."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, Protocol

import httpx
import requests
from msgspec import Struct

from tests.helpers.sockets import TIMEOUT_S
from tests.helpers.tls_programs import run

PIECE: Final = 50_000


class Answer(Struct, frozen=True):
    """What a client got: field names in small letters."""

    status: int
    fields: dict[str, str]
    body: bytes


class HttpClient(Protocol):
    """Asks again and again, on a kept connection where the program can."""

    def ask(self, method: str, url: str, body: bytes = b"", *, chunked: bool = False) -> Answer:
        """One request; its body goes out with its length, or in chunks."""
        ...

    def close(self) -> None:
        """End its connections."""
        ...


class Curl:
    """A process for each request. It asks with Expect where a body is over 1 MiB."""

    def __init__(self, ca: Path, directory: Path) -> None:
        self._ca = ca
        self._directory = directory

    def ask(self, method: str, url: str, body: bytes = b"", *, chunked: bool = False) -> Answer:
        """See `HttpClient`."""
        head, out = self._directory / "curl.head", self._directory / "curl.out"
        out.write_bytes(b"")
        arguments: list[str | Path] = ["--dump-header", head, "--output", out]
        arguments += ["--head"] if method == "HEAD" else ["--request", method]
        if body:
            given = self._directory / "curl.in"
            given.write_bytes(body)
            arguments += ["--data-binary", f"@{given}"]
        if chunked:
            arguments += ["--header", "Transfer-Encoding: chunked"]
        said = curl(self._ca, *arguments, url)
        assert said == "", said
        last = head.read_text().replace("\r\n", "\n").strip().split("\n\n")[-1]  # behind any 100
        line, *lines = last.split("\n")
        fields = {name.lower(): value for name, _, value in (one.partition(": ") for one in lines)}
        return Answer(int(line.split()[1]), fields, b"" if method == "HEAD" else out.read_bytes())

    def close(self) -> None:
        """Each process has ended."""


class Requests:
    """A session of requests."""

    def __init__(self, ca: Path, _: Path) -> None:
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.verify = str(ca)

    def ask(self, method: str, url: str, body: bytes = b"", *, chunked: bool = False) -> Answer:
        """See `HttpClient`."""
        data = parts(body) if chunked else body
        got = self._session.request(
            method, url, data=data, timeout=TIMEOUT_S, allow_redirects=False
        )
        return Answer(got.status_code, _lower(got.headers.items()), got.content)

    def close(self) -> None:
        """See `HttpClient`."""
        self._session.close()


class Httpx:
    """A client of httpx."""

    def __init__(self, ca: Path, _: Path) -> None:
        self._client = httpx_client(ca)

    def ask(self, method: str, url: str, body: bytes = b"", *, chunked: bool = False) -> Answer:
        """See `HttpClient`."""
        content = parts(body) if chunked else body
        got = self._client.request(method, url, content=content)
        return Answer(got.status_code, _lower(got.headers.items()), got.content)

    def close(self) -> None:
        """See `HttpClient`."""
        self._client.close()


CLIENTS: Final[dict[str, type[Curl] | type[Requests] | type[Httpx]]] = {
    "curl": Curl,
    "requests": Requests,
    "httpx": Httpx,
}


def httpx_client(ca: Path) -> httpx.Client:
    """One that trusts ``ca`` and heeds nothing of the environment."""
    context = ssl.create_default_context(cafile=str(ca))
    return httpx.Client(verify=context, trust_env=False, timeout=TIMEOUT_S)


def curl(ca: Path, *arguments: str | Path) -> str:
    """What curl prints; it must end well."""
    said = run(
        "curl",
        *("--silent", "--show-error", "--max-time", "20", "--noproxy", "*", "--cacert", ca),
        *arguments,
    )
    assert said.code == 0, said.text
    return said.out


def parts(body: bytes) -> Iterator[bytes]:
    """A body, a piece at a time."""
    return (body[at : at + PIECE] for at in range(0, len(body), PIECE))


def _lower(items: Iterable[tuple[str, str]]) -> dict[str, str]:
    return {name.lower(): value for name, value in items}
