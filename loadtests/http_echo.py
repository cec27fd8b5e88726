"""The target of HTTP users, on asyncio streams: it sends back what it gets, and counts it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from msgspec import Struct

from loadtests.soak_wire import parse_id
from shared.proxy_protocol import decode_tlvs, parse

WORKER: Final = "x-worker"  # a field of answers: the worker's incarnation
LIMIT: Final = 1 << 20  # of a stream's buffer
_V2_HEAD_BYTES: Final = 16

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Torn(Exception):
    """The stream ended within a message."""


class Message(Struct, frozen=True):
    """The first line in words, the fields with names in small letters, and the body.

    ``head_bytes`` of the head; ``bytes`` of all, with what frames chunks.
    """

    words: list[str]
    fields: dict[str, str]
    body: bytes
    head_bytes: int
    bytes: int


async def read_message(reader: asyncio.StreamReader) -> Message:
    """One of them; ConnectionError where the stream ends before it, Torn where within it."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise Torn(f"ended after {len(error.partial)} bytes of a head") from None
        raise ConnectionError("ended after 0 bytes of a head") from None
    line, *lines = head[:-4].decode("latin-1").split("\r\n")
    pairs = (one.partition(":") for one in lines)
    fields = {name.lower(): value.strip() for name, _, value in pairs}
    try:
        if "transfer-encoding" in fields:
            body, size = await _read_chunks(reader)
        else:
            body = await reader.readexactly(int(fields.get("content-length", "0")))
            size = len(body)
    except (ConnectionError, asyncio.IncompleteReadError) as error:
        raise Torn(f"ended within a body: {error!r}") from None
    return Message(line.split(), fields, body, len(head), len(head) + size)


async def _read_chunks(reader: asyncio.StreamReader) -> tuple[bytes, int]:
    """The body, and the bytes that it took; there are no trailers."""
    parts: list[bytes] = []
    size = 0
    while True:
        line = await reader.readuntil(b"\r\n")
        part = await reader.readexactly(int(line, 16) + 2)
        size += len(line) + len(part)
        if len(part) == 2:
            return b"".join(parts), size
        parts.append(part[:-2])


class Echo:
    """Sends back bodies, and after an upgrade every byte. Half of the answers are in chunks.

    ``received`` and ``sent`` are bytes without PROXY headers; of what is received, what frames
    chunks is not counted, as proxyctl does not.
    """

    def __init__(self, *, has_header: bool = False) -> None:
        self._has_header = has_header
        self.connections = self.open = 0
        self.received = self.sent = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.connections += 1
        self.open += 1
        try:
            await self._serve(reader, writer)
        except (ConnectionError, Torn, asyncio.IncompleteReadError):
            writer.close()  # a killed worker ends within a message, others between two
        finally:
            self.open -= 1
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        worker = await self._worker(reader) if self._has_header else ""
        more = f"{WORKER}: {worker}\r\n" if worker else ""
        while True:
            asked = await read_message(reader)
            self.received += asked.head_bytes + len(asked.body)
            if "upgrade" in asked.fields:
                more += "Connection: Upgrade\r\nUpgrade: websocket\r\n"
                await self._send(writer, f"HTTP/1.1 101 Switching Protocols\r\n{more}\r\n".encode())
                async for data in _parts(reader):
                    self.received += len(data)
                    await self._send(writer, data)
                return
            size, line = len(asked.body), f"HTTP/1.1 200 OK\r\n{more}"
            if size % 2:
                head = f"{line}Transfer-Encoding: chunked\r\n\r\n%x\r\n" % size
                await self._send(writer, head.encode() + asked.body + b"\r\n0\r\n\r\n")
            else:
                head = f"{line}Content-Length: {size}\r\n\r\n"
                await self._send(writer, head.encode() + asked.body)

    async def _send(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        self.sent += len(data)
        writer.write(data)
        await writer.drain()

    async def _worker(self, reader: asyncio.StreamReader) -> str:
        head = await reader.readexactly(_V2_HEAD_BYTES)
        found = parse(head + await reader.readexactly(int.from_bytes(head[-2:], "big")))
        assert found is not None
        known = parse_id((decode_tlvs(found[0].tlvs).unique_id or b"").decode())
        return "" if known is None else str(known[0])


async def _parts(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while data := await reader.read(65536):
        yield data


class Target:
    """A server of `Echo` on a port of its own."""

    def __init__(self, echo: Echo) -> None:
        self.echo = echo
        self.port = 0
        self._server: asyncio.Server | None = None

    async def start(self) -> int:
        """Listen; the port."""
        self._server = await asyncio.start_server(
            self.echo.serve, "127.0.0.1", 0, limit=LIMIT, backlog=1024
        )
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self.port

    async def close(self) -> None:
        """Listen no more; its connections end with those of the clients."""
        assert self._server is not None
        self._server.close()
