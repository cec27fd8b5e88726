"""Users of HTTP, HTTPS and WebSocket on asyncio streams, who account for every request."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from pathlib import Path
from random import Random
from time import monotonic
from typing import Final

from msgspec import Struct

from loadtests.http_books import NOBODY, Account, Loss
from loadtests.http_echo import LIMIT, WORKER, Message, Streams, Torn, read_message
from loadtests.soak_certificates import ENDED

SPOKEN: Final = ("http", "https", "ws")
ANSWER_S: Final = 15.0
LARGE_BYTES: Final = 300_000
PAUSE_S: Final = 0.05  # between requests, at most
# The first path of a connection leads to a target that tells the worker. By their letters:
ROUTES: Final = {"w": "tells", "s": "stays", "c": "changes", "x": "comes"}
_LATER: Final = "ssscx"
_CUT_S: Final = 0.3  # before the drain is over by our clock


class Stage:
    """What all users go by. ``may_go`` is cleared for a rest; ``stop_at``: proxyctl is told to
    stop then, and to cut after ``drain_s``.
    """

    def __init__(self) -> None:
        self.may_go = asyncio.Event()
        self.may_go.set()
        self.is_over = False
        self.stop_at = float("inf")
        self.drain_s = 0.0


class _Asked(Struct, frozen=True):
    """A request on its way: ``received`` as proxyctl counts it, and its body."""

    path: str
    body: bytes
    received: int


class User:
    """One after the other: connect, ask some times, or talk over a WebSocket, and leave.

    ``lasts``: its WebSocket is left by nobody but the end of the run.
    """

    def __init__(
        self,
        kind: str,
        place: tuple[int, Path],
        random: Random,
        account: Account,
        stage: Stage,
        *,
        lasts: bool = False,
    ) -> None:
        """``place``: the port, and the file of the authority for those that speak TLS."""
        self.kind = kind
        self.is_resting = asyncio.Event()
        self.lasts = lasts
        self.begun_at = 0.0  # of the connection
        self._port = place[0]
        self._random = random
        self._account = account
        self._stage = stage
        self._reader: asyncio.StreamReader | None = None
        self._incarnation: int | None = None
        self._good_at = 0.0
        self._what, self._route, self._sent = "", NOBODY, 0
        self._is_first = True
        self._tls: ssl.SSLContext | None = None
        if kind != "http":
            self._tls = ssl.create_default_context(cafile=str(place[1]))

    @property
    def holds(self) -> bool:
        """Whether it has a connection that the other side has not ended."""
        return self._reader is not None and not self._reader.at_eof()

    async def run(self) -> None:
        """Until the run is over, or a stopping proxyctl refuses a dial."""
        while await self._may_go():
            self._incarnation, self._is_first = None, True
            self._good_at = self.begun_at = monotonic()
            self._note_next("connect", NOBODY, 0)
            try:
                reader, writer = await self._connect()
            except (OSError, TimeoutError) as error:
                if self._is_refused_by_stop(error):
                    return
                self._lose(error)
                continue
            try:
                await (self._talk if self.kind == "ws" else self._ask)(reader, writer)
            except (OSError, asyncio.IncompleteReadError, Torn, ValueError) as error:
                self._lose(error)
            writer.close()
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(ANSWER_S):
                    await writer.wait_closed()
            self._reader = None

    async def _may_go(self) -> bool:
        """Rest while all do; False: it is over."""
        if not self._stage.may_go.is_set():
            self.is_resting.set()
            await self._stage.may_go.wait()
            self.is_resting.clear()
        return not self._stage.is_over

    async def _connect(self) -> Streams:
        """A connection of TCP counts even where its handshake fails."""
        async with asyncio.timeout(ANSWER_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port, limit=LIMIT)
            self._account.established += 1
            if self._tls is not None:
                self._what = "handshake"
                try:
                    await writer.start_tls(self._tls, server_hostname=ENDED)
                except BaseException:
                    writer.close()
                    raise
        self._reader = reader
        return reader, writer

    # -- what becomes of it ----------------------------------------------------------------

    def _note_next(self, what: str, route: str, sent: int) -> None:
        self._what, self._route, self._sent = what, route, sent

    def _is_refused_by_stop(self, error: Exception) -> bool:
        is_dial = self._what == "connect" and not isinstance(error, ssl.SSLError)
        return is_dial and monotonic() >= self._stage.stop_at

    def _lose(self, error: Exception) -> None:
        """It failed; a stop may close a connection between two requests, and cuts in the end."""
        now, stage, account = monotonic(), self._stage, self._account
        has_ended = isinstance(error, ConnectionError | asyncio.IncompleteReadError)
        is_idle = not self._is_first and self.kind != "ws"  # of a head was not a byte there
        if has_ended and now >= stage.stop_at + stage.drain_s - _CUT_S and self.kind == "ws":
            account.cut += 1
            return
        if has_ended and now >= stage.stop_at and is_idle:
            account.closed_by_stop += 1
            return
        if self._incarnation is None and self._what != "connect":
            account.unnamed += 1
        account.losses.append(
            Loss(
                what=f"{self.kind}: {self._what}",
                why=repr(error),
                incarnation=self._incarnation,
                idle_since=self._good_at,
                ended_at=now,
                route=self._route,
                sent=self._sent,
            )
        )

    def _came_back(self, code: str, received: int, answer: Message | None, sent: int) -> None:
        """It is answered: note it, and for the first one the worker."""
        if self._incarnation is None:
            worker = "" if answer is None else answer.fields.get(WORKER, "")
            if not worker:
                raise ValueError("the target does not tell the worker")
            self._incarnation = int(worker)
            self._account.name(self._incarnation, self.begun_at)
        self._is_first = False
        self._good_at = monotonic()
        self._account.answer(self._incarnation, self._route, code, received, sent)

    def _some_bytes(self) -> bytes:
        is_large = self._random.random() < 0.05
        return self._random.randbytes(self._random.randrange(LARGE_BYTES if is_large else 2000))

    # -- requests --------------------------------------------------------------------------

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for number in range(self._random.randrange(1, 40)):
            if not await self._may_go() or reader.at_eof():
                break  # it was idle, and is closed: nothing was asked
            letter = self._random.choice(_LATER) if number else "w"
            path = f"/{letter}/{number}"
            self._note_next(f"request {number} to {path}", f"{ROUTES[letter]}-{self.kind}", 0)
            async with asyncio.timeout(ANSWER_S):
                asked = await self._send(writer, path)
                answer = await read_message(reader)
            status = answer.words[1]
            if letter == "x" and status == "404":
                self._route = NOBODY  # it is away at the moment
            elif status != "200" or answer.body != asked.body:
                raise ValueError(
                    f"{' '.join(answer.words)}, {len(answer.body)} of {len(asked.body)} bytes"
                )
            self._came_back(f"{status[0]}xx", asked.received, answer, answer.bytes)
            if answer.fields.get("connection", "").lower() == "close":
                break
            await asyncio.sleep(self._random.uniform(0, PAUSE_S))

    async def _send(self, writer: asyncio.StreamWriter, path: str) -> _Asked:
        body = self._some_bytes() if self._random.random() < 0.7 else b""
        fields, framed = f"Host: {ENDED}\r\n", body
        if body and self._random.random() < 0.5:
            fields += "Transfer-Encoding: chunked\r\n"
            framed = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
        elif body:
            fields += f"Content-Length: {len(body)}\r\n"
        head = f"{'POST' if body else 'GET'} {path} HTTP/1.1\r\n{fields}\r\n".encode()
        self._sent = len(head) + len(body)
        writer.write(head + framed)
        await writer.drain()
        return _Asked(path, body, self._sent)

    # -- messages --------------------------------------------------------------------------

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        letter = "s" if self.lasts or self._random.random() < 0.5 else "c"
        route = f"{ROUTES[letter]}-{self.kind}"
        head = (
            f"GET /{letter}/talk HTTP/1.1\r\nHost: {ENDED}\r\nConnection: Upgrade\r\n"
            "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        ).encode()
        self._note_next("upgrade", route, len(head))
        async with asyncio.timeout(ANSWER_S):
            writer.write(head)
            answer = await read_message(reader)
        if answer.words[1] != "101":
            raise ValueError(" ".join(answer.words))
        self._came_back("1xx", len(head), answer, answer.bytes)
        left = self._random.randrange(1, 200)
        # Of a stop all that are there see the end.
        while left > 0 or self.lasts or self._stage.stop_at < float("inf"):
            if not await self._may_go():
                break
            left -= 1
            data = self._some_bytes()
            self._note_next("message", route, len(data))
            async with asyncio.timeout(ANSWER_S):
                writer.write(data)
                await writer.drain()
                if await reader.readexactly(len(data)) != data:
                    raise ValueError("other bytes came back")
            self._came_back("", len(data), None, len(data))
            await asyncio.sleep(self._random.uniform(0, PAUSE_S))
        self._account.relays_ended += 1
