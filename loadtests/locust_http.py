"""What the users of HTTP and WebSocket of a load run do, plain and over TLS. No locust here."""

from __future__ import annotations

import random
from collections.abc import Iterator
from http.client import HTTPException, HTTPResponse
from typing import Any, Final

from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.uri import parse_uri

from loadtests.locust_tls import connect_tls
from loadtests.locust_wire import CHUNK, Unexpected, connect, cut, read_all, require

NAME: Final = "web.test"
_MOST: Final = 40_000  # bytes of a body or a message


def open_web(*, is_tls: bool) -> Any:
    """A connection (of gevent, untyped there) to the port of this kind."""
    return connect_tls(NAME, port="https") if is_tls else connect("http")


def ask(connection: Any, *, is_last: bool = False) -> int:
    """Have a body sent back; returns its bytes. ``is_last``: the connection then ends."""
    body = cut(1, _MOST)
    is_chunked = random.random() < 0.5
    fields = [f"Host: {NAME}", "Connection: close"] if is_last else [f"Host: {NAME}"]
    fields.append("Transfer-Encoding: chunked" if is_chunked else f"Content-Length: {len(body)}")
    head = "\r\n".join(["POST /echo HTTP/1.1", *fields, "", ""]).encode()
    connection.sendall(head + (b"".join(_chunks(body)) if is_chunked else body))
    answer = HTTPResponse(connection, method="POST")
    try:
        answer.begin()
        found = answer.read()
    except HTTPException as error:
        raise Unexpected(f"no whole answer: {type(error).__name__}") from None
    if answer.status != 200:
        raise Unexpected(f"answered with {answer.status}")
    require(found, body)
    if answer.will_close != is_last:
        raise Unexpected("the connection was not kept" if answer.will_close else "it is kept")
    if is_last:
        require(read_all(connection), b"")
    return len(found)


def _chunks(body: bytes) -> Iterator[bytes]:
    """One to three of them, and the last one."""
    size = random.randint(len(body) // 3 + 1, len(body))
    for start in range(0, len(body), size):
        part = body[start : start + size]
        yield b"%x\r\n%s\r\n" % (len(part), part)
    yield b"0\r\n\r\n"


def ask_once(*, is_tls: bool) -> int:
    """A connection for one request; both sides end it."""
    with open_web(is_tls=is_tls) as connection:
        return ask(connection, is_last=True)


def not_found(port: str, name: str) -> int:
    """A plain request that no route is for: 404, and the end that it asked for."""
    with connect(port) as connection:
        request = f"GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n"
        connection.sendall(request.encode())
        answer = read_all(connection)
    if not answer.startswith(b"HTTP/1.1 404 "):
        raise Unexpected("not refused")
    return len(answer)


def ambiguous() -> int:
    """A request whose end two parsers could see in two places: refused with 400, once."""
    with connect("http") as connection:
        connection.sendall(
            f"POST /echo HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: 4\r\n"
            "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            f"GET /echo HTTP/1.1\r\nHost: {NAME}\r\n\r\n".encode()
        )
        answer = read_all(connection)
    if not answer.startswith(b"HTTP/1.1 400 ") or answer.count(b"HTTP/1.1 ") != 1:
        raise Unexpected("not refused")
    return len(answer)


def visit() -> int:
    """A WebSocket with one message, there and back, and a proper end."""
    socket = WebSocket(is_tls=random.random() < 0.5)
    try:
        size = socket.echo()
        socket.leave()
    finally:
        socket.close()
    return size


class WebSocket:
    """One of them, open: the target has answered the key with what RFC 6455 asks for."""

    def __init__(self, *, is_tls: bool) -> None:
        self._connection = open_web(is_tls=is_tls)
        scheme = "wss" if is_tls else "ws"
        self._protocol = ClientProtocol(parse_uri(f"{scheme}://{NAME}/echo"), max_size=None)
        try:
            self._protocol.send_request(self._protocol.connect())
            if not isinstance(self._receive(), Response):
                raise Unexpected("a message came before the handshake")
            if self._protocol.state is not State.OPEN:
                raise Unexpected("the handshake failed")
        except BaseException:
            self._connection.close()
            raise

    def echo(self) -> int:
        """Send a message and get it back; returns its bytes."""
        message = cut(1, _MOST)
        self._protocol.send_binary(message)
        found = self._receive()
        if not isinstance(found, Frame) or found.opcode is not Opcode.BINARY:
            raise Unexpected("something else than a message came")
        require(bytes(found.data), message)
        return len(message)

    def leave(self) -> None:
        """Say so, and wait until the other side has ended."""
        self._protocol.send_close(1000)
        found = self._receive()
        if not isinstance(found, Frame) or found.opcode is not Opcode.CLOSE:
            raise Unexpected("no answer to a close")
        require(read_all(self._connection), b"")

    def close(self) -> None:
        """Close the connection without a word."""
        self._connection.close()

    def _receive(self) -> object:
        """The next event, behind everything that is to be sent; Unexpected at the end."""
        protocol = self._protocol
        for data in protocol.data_to_send():
            if data:
                self._connection.sendall(data)
        while True:
            events = protocol.events_received()
            if len(events) > 1:
                raise Unexpected("more came than one message")
            if events and protocol.handshake_exc is None:
                return events[0]
            if protocol.handshake_exc is not None or protocol.parser_exc is not None:
                raise Unexpected("what came is no WebSocket")
            data = self._connection.recv(CHUNK)
            if not data:
                raise Unexpected("ended before a message")
            protocol.receive_data(data)
