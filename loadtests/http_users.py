"""Users of HTTP, HTTPS and WebSocket on asyncio streams, and the target at their other end."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from time import monotonic
from typing import Final

from msgspec import Struct

from loadtests.soak_certificates import ENDED
from loadtests.soak_wire import parse_id
from shared.proxy_protocol import decode_tlvs, parse

SPOKEN: Final = ("http", "https", "ws")
ANSWER_S: Final = 15.0
LARGE_BYTES: Final = 300_000
PAUSE_S: Final = 0.05  # between requests, at most
_V2_HEAD_BYTES: Final = 16
_WORKER: Final = "x-worker"
_LIMIT: Final = 1 << 20  # of a stream's buffer

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Loss(Struct, frozen=True, kw_only=True):
    """A request that failed. ``idle_since``: when its connection was last known to be good."""

    what: str
    why: str
    incarnation: int | None  # of the worker, where a target has said
    idle_since: float
    ended_at: float


class Head(Struct, frozen=True):
    """The first line of a message, in words, and its fields, names in small letters."""

    words: list[str]
    fields: dict[str, str]


async def read_head(reader: asyncio.StreamReader) -> Head:
    """One head; ConnectionError where the stream ends before it."""
    try:
        text = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError as error:
        raise ConnectionError(f"ended after {len(error.partial)} bytes of a head") from None
    line, *lines = text[:-4].split("\r\n")
    fields = (one.partition(":") for one in lines)
    return Head(line.split(), {name.lower(): value.strip() for name, _, value in fields})


async def read_body(reader: asyncio.StreamReader, head: Head) -> bytes:
    """The body that belongs to it, whichever way its end is told."""
    if "transfer-encoding" not in head.fields:
        return await reader.readexactly(int(head.fields.get("content-length", "0")))
    body = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readuntil(b"\r\n")
    return body


class Echo:
    """Sends back bodies, and after an upgrade every byte. Half of the answers are in chunks."""

    def __init__(self, *, has_header: bool = False) -> None:
        self._has_header = has_header

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            worker = await self._worker(reader) if self._has_header else ""
            more = f"{_WORKER}: {worker}\r\n" if worker else ""
            while True:
                head = await read_head(reader)
                if "upgrade" in head.fields:
                    more += "Connection: Upgrade\r\nUpgrade: websocket\r\n"
                    writer.write(f"HTTP/1.1 101 Switching Protocols\r\n{more}\r\n".encode())
                    async for data in _parts(reader):
                        writer.write(data)
                        await writer.drain()
                    break
                body = await read_body(reader, head)
                line = f"HTTP/1.1 200 OK\r\n{more}"
                if len(body) % 2:
                    writer.write(f"{line}Transfer-Encoding: chunked\r\n\r\n".encode())
                    writer.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
                else:
                    writer.write(f"{line}Content-Length: {len(body)}\r\n\r\n".encode() + body)
                await writer.drain()
        writer.close()

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
        self._echo = echo
        self._server: asyncio.Server | None = None

    async def start(self) -> int:
        """Listen; the port."""
        self._server = await asyncio.start_server(
            self._echo.serve, "127.0.0.1", 0, limit=_LIMIT, backlog=1024
        )
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Listen no more; its connections end with those of the clients."""
        assert self._server is not None
        self._server.close()


class User:
    """One after the other: connect, ask some times, or talk over a WebSocket, and leave."""

    def __init__(self, kind: str, port: int, authority: Path, random: Random) -> None:
        self.kind = kind
        self.is_over = False
        self.counts: Counter[str] = Counter()
        self.losses: list[Loss] = []
        self._port = port
        self._random = random
        self._incarnation: int | None = None
        self._good_at = 0.0
        self._what = ""
        self._tls: ssl.SSLContext | None = None
        if kind != "http":
            self._tls = ssl.create_default_context(cafile=str(authority))

    async def run(self) -> None:
        """Until ``is_over``."""
        while not self.is_over:
            self._incarnation, self._good_at, self._what = None, monotonic(), "connect"
            try:
                async with asyncio.timeout(ANSWER_S):
                    reader, writer = await self._connect()
            except OSError as error:  # TimeoutError is one
                self._lose(error)
                continue
            try:
                await (self._talk if self.kind == "ws" else self._ask)(reader, writer)
            except (OSError, asyncio.IncompleteReadError, ValueError) as error:
                self._lose(error)
            writer.close()
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(ANSWER_S):
                    await writer.wait_closed()

    async def _connect(self) -> Streams:
        name = ENDED if self._tls is not None else None
        return await asyncio.open_connection(
            "127.0.0.1", self._port, ssl=self._tls, server_hostname=name, limit=_LIMIT
        )

    def _lose(self, error: Exception) -> None:
        self.losses.append(
            Loss(
                what=self._what,
                why=repr(error),
                incarnation=self._incarnation,
                idle_since=self._good_at,
                ended_at=monotonic(),
            )
        )

    def _note(self, head: Head) -> None:
        if worker := head.fields.get(_WORKER):
            self._incarnation = int(worker)
        self._good_at = monotonic()

    def _some_bytes(self) -> bytes:
        is_large = self._random.random() < 0.05
        return self._random.randbytes(self._random.randrange(LARGE_BYTES if is_large else 2000))

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for number in range(self._random.randrange(1, 40)):
            if reader.at_eof() or self.is_over:
                break  # it was idle, and is closed: nothing was asked
            path = f"/{self._random.choice('ssscx')}/{number}"
            self._what = f"request {number} to {path}"
            async with asyncio.timeout(ANSWER_S):
                sent = await self._send(writer, path)
                head = await read_head(reader)
                body = await read_body(reader, head)
            self._note(head)
            is_away = path.startswith("/x") and head.words[1] == "404"
            if not is_away and (head.words[1] != "200" or body != sent):
                raise ValueError(f"{' '.join(head.words)}, {len(body)} of {len(sent)} bytes")
            self.counts[f"{self.kind} answers"] += 1
            if head.fields.get("connection", "").lower() == "close":
                break
            await asyncio.sleep(self._random.uniform(0, PAUSE_S))

    async def _send(self, writer: asyncio.StreamWriter, path: str) -> bytes:
        body = self._some_bytes() if self._random.random() < 0.7 else b""
        head = f"Host: {ENDED}\r\n"
        if not body:
            writer.write(f"GET {path} HTTP/1.1\r\n{head}\r\n".encode())
        elif self._random.random() < 0.5:
            head += f"Content-Length: {len(body)}\r\n"
            writer.write(f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body)
        else:
            head += "Transfer-Encoding: chunked\r\n"
            writer.write(f"POST {path} HTTP/1.1\r\n{head}\r\n".encode())
            writer.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
        await writer.drain()
        return body

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._what = "upgrade"
        writer.write(
            f"GET /s/talk HTTP/1.1\r\nHost: {ENDED}\r\nConnection: Upgrade\r\n"
            "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        async with asyncio.timeout(ANSWER_S):
            head = await read_head(reader)
        if head.words[1] != "101":
            raise ValueError(" ".join(head.words))
        self._note(head)
        for number in range(self._random.randrange(1, 200)):
            if self.is_over:
                break
            self._what = f"message {number}"
            data = self._some_bytes()
            async with asyncio.timeout(ANSWER_S):
                writer.write(data)
                await writer.drain()
                if await reader.readexactly(len(data)) != data:
                    raise ValueError("other bytes came back")
            self._good_at = monotonic()
            self.counts["ws messages"] += 1
            await asyncio.sleep(self._random.uniform(0, PAUSE_S))
        self.counts["ws connections"] += 1
