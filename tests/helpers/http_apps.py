"""Web applications of tests, run by uvicorn (`asgi`) and gunicorn (`wsgi`).

`/seen` is the request as JSON, `/digest` size and hash of its body, `/file` bytes that all servers
of tests have, `/chunks` the same in chunks, `/events` two server-sent events with `/go` between
them, `/page` a form, `/ws` a WebSocket that sends back what it gets.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any, Final

FILE: Final = bytes(range(256)) * 400
PIECE: Final = 10_000
PAGE: Final = b"""<!doctype html><meta charset=utf-8><title>loaded</title>
<form method="post" action="/posted"><input name="word" value=""></form>
"""
_EVENTS: Final = (b"data: one\n\n", b"data: two\n\n")

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
StartResponse = Callable[[str, list[tuple[str, str]]], object]

_go = asyncio.Event()


def seen(method: str, path: str, query: str, fields: dict[str, str]) -> bytes:
    """A request as JSON; field names in small letters."""
    return json.dumps({"method": method, "path": path, "query": query, "fields": fields}).encode()


def pieces() -> Iterator[bytes]:
    """`FILE`, in parts."""
    return (FILE[at : at + PIECE] for at in range(0, len(FILE), PIECE))


async def asgi(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Entry of uvicorn."""
    if scope["type"] == "lifespan":
        for step in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{step}.complete"})
    elif scope["type"] == "websocket":
        await _websocket(scope, receive, send)
    else:
        await _http(scope, receive, send)


async def _http(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    path = scope["path"]
    body = await _body(receive)
    if path == "/events":
        _go.clear()
        await _begin(send, 200, "text/event-stream")
        await _more(send, _EVENTS[0])
        await _go.wait()
        await _more(send, _EVENTS[1])
        await _more(send, b"", is_last=True)
        return
    if path == "/chunks":
        await _begin(send, 200, "application/octet-stream")
        for piece in pieces():
            await _more(send, piece)
        await _more(send, b"", is_last=True)
        return
    if path == "/go":
        _go.set()
    fields = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
    status, kind, answer = _answer(
        scope["method"], path, scope["query_string"].decode(), fields, body
    )
    await _begin(send, status, kind, len(answer))
    await _more(send, b"" if scope["method"] == "HEAD" else answer, is_last=True)


async def _body(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        part: bytes = message.get("body", b"")
        body += part
        if not message.get("more_body"):
            return body


async def _begin(send: Send, status: int, kind: str, size: int | None = None) -> None:
    fields = [(b"content-type", kind.encode())]
    if size is not None:
        fields.append((b"content-length", str(size).encode()))
    await send({"type": "http.response.start", "status": status, "headers": fields})


async def _more(send: Send, body: bytes, *, is_last: bool = False) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": not is_last})


async def _websocket(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    await receive()
    wanted = scope["subprotocols"]
    fields = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
    await send({"type": "websocket.accept", "subprotocol": wanted[0] if wanted else None})
    if scope["path"] == "/ws/seen":
        text = seen("GET", scope["path"], scope["query_string"].decode(), fields)
        await send({"type": "websocket.send", "text": text.decode()})
    while (message := await receive())["type"] == "websocket.receive":
        if message.get("text") == "bye":
            await send({"type": "websocket.close", "code": 4001, "reason": "as asked"})
            return
        kind = "text" if message.get("text") is not None else "bytes"
        await send({"type": "websocket.send", kind: message[kind]})


def wsgi(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    """Entry of gunicorn."""
    path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
    body = b"".join(iter(lambda: environ["wsgi.input"].read(65536), b""))
    if path == "/chunks":
        start_response("200 OK", [("Content-Type", "application/octet-stream")])
        return pieces()
    fields = {
        name.removeprefix("HTTP_").replace("_", "-").lower(): value
        for name, value in environ.items()
        if name.startswith("HTTP_")
    }
    status, kind, answer = _answer(method, path, environ["QUERY_STRING"], fields, body)
    word = {200: "OK", 303: "See Other", 404: "Not Found"}[status]
    start_response(
        f"{status} {word}", [("Content-Type", kind), ("Content-Length", str(len(answer)))]
    )
    return [answer]


def _answer(
    method: str, path: str, query: str, fields: dict[str, str], body: bytes
) -> tuple[int, str, bytes]:
    """(status, Content-Type, body) of what is answered in one go."""
    if path == "/file":
        return 200, "application/octet-stream", FILE
    if path == "/digest":
        return 200, "text/plain", f"{len(body)} {hashlib.sha256(body).hexdigest()}".encode()
    if path == "/page":
        return 200, "text/html", PAGE
    if path == "/posted":
        return 200, "text/html", b"<title>" + body + b"</title>"
    if path.startswith(("/seen", "/go")):
        return 200, "application/json", seen(method, path, query, fields)
    return 404, "text/plain", b"nothing here\n"
