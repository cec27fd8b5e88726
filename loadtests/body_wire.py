"""Bodies of any size that are nowhere whole: made, sent, read and hashed piece by piece.

A client asks by fields of its request for the body that it wants in the answer. What both ends hash
is what they really send and receive; no two blocks of a body are alike, so a piece that is lost,
doubled or out of place changes the hash. The parser of chunks here is of its own kind, not that of
proxyctl.
"""

from __future__ import annotations

import hashlib
import random
import socket
import threading
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Final, Literal

from msgspec import Struct

Framing = Literal["length", "chunks"]

BLOCK_BYTES: Final = 1 << 20
CHUNK_BYTES: Final = 200_003  # no multiple of what anyone reads at a time
READ_BYTES: Final = 256 << 10
WAIT_S: Final = 60.0  # for the other side, at any point
_SEED: Final = 20260427
_STAMP_BYTES: Final = 8
_SIZE: Final = "x-answer-size"
_FRAMING: Final = "x-answer-framing"
_PAUSE: Final = "x-pause"


class Body(Struct, frozen=True):
    """What went over one side of a connection."""

    size: int
    sha256: str


class _Made:
    """The pieces of a body, hashed as they are given out."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._hash = hashlib.sha256()

    def pieces(self, size: int = BLOCK_BYTES) -> Iterator[memoryview]:
        """All of it; each piece holds until the next one is asked for."""
        block = bytearray(random.Random(_SEED).randbytes(BLOCK_BYTES))
        view = memoryview(block)
        for start in range(0, self._size, BLOCK_BYTES):
            block[:_STAMP_BYTES] = start.to_bytes(_STAMP_BYTES, "big")
            end = min(BLOCK_BYTES, self._size - start)
            for at in range(0, end, size):
                piece = view[at : min(at + size, end)]
                self._hash.update(piece)
                yield piece

    @property
    def body(self) -> Body:
        """Once all pieces were given out."""
        return Body(self._size, self._hash.hexdigest())


def made(size: int) -> Body:
    """The body of this size, of which nobody sends anything."""
    content = _Made(size)
    for _ in content.pieces():
        pass
    return content.body


def send_body(sock: socket.socket, size: int, framing: Framing) -> Body:
    """Send the body of this size; what was sent."""
    content = _Made(size)
    if framing == "length":
        for piece in content.pieces():
            sock.sendall(piece)
        return content.body
    for piece in content.pieces(CHUNK_BYTES):
        sock.sendall(b"".join((b"%x\r\n" % len(piece), piece, b"\r\n")))
    sock.sendall(b"0\r\n\r\n")
    return content.body


class Reader:
    """Reads heads and bodies from a socket. ``pause_s``: after each read of it.

    ConnectionError where the other side ends too early, ValueError where it sends nonsense.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._buffer = bytearray(READ_BYTES)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0
        self._rest = threading.Event()  # is never set: its wait is a pause
        self._hash = hashlib.sha256()
        self.pause_s = 0.0
        self.received = 0  # bytes of the present body

    def head(self) -> tuple[str, dict[str, str]]:
        """The first line, and the fields by name in lower case."""
        first = self._line()
        fields = {}
        while line := self._line():
            name, _, value = line.partition(":")
            fields[name.lower()] = value.strip()
        return first, fields

    def body(self, fields: dict[str, str]) -> Body:
        """The body behind a head with these fields."""
        self._hash, self.received = hashlib.sha256(), 0
        if fields.get("transfer-encoding") == "chunked":
            while size := int(self._line(), 16):
                self._exactly(size)
                if self._line():
                    raise ValueError("a chunk is longer than it says")
            if self._line():
                raise ValueError("there are trailers")
        else:
            self._exactly(int(fields.get("content-length", "0")))
        return self.so_far

    @property
    def so_far(self) -> Body:
        """What has been received of the present body."""
        return Body(self.received, self._hash.hexdigest())

    def _fill(self) -> None:
        if self._end == len(self._buffer):
            rest = self._buffer[self._start : self._end]
            self._buffer[: len(rest)] = rest
            self._start, self._end = 0, len(rest)
        count = self._sock.recv_into(self._view[self._end :])
        if count == 0:
            raise ConnectionError("the other side ended too early")
        self._end += count
        if self.pause_s:
            self._rest.wait(self.pause_s)

    def _line(self) -> str:
        while (at := self._buffer.find(b"\r\n", self._start, self._end)) < 0:
            self._fill()
        line = self._buffer[self._start : at].decode("latin-1")
        self._start = at + 2
        return line

    def _exactly(self, size: int) -> None:
        while size:
            if self._start == self._end:
                self._start = self._end = 0
                self._fill()
            end = min(self._end, self._start + size)
            self._hash.update(self._view[self._start : end])
            self.received += end - self._start
            size -= end - self._start
            self._start = end


class Asked(Struct, frozen=True, kw_only=True):
    """One request: the body that goes up, the one that is to come down.

    ``target_pause_s``: after each read of the target.
    """

    up: int = 0
    up_framing: Framing = "length"
    down: int = 0
    down_framing: Framing = "length"
    target_pause_s: float = 0.0

    def head(self, host: str) -> bytes:
        """Its head."""
        return (
            f"POST /bodies HTTP/1.1\r\nHost: {host}\r\n{_framing_line(self.up, self.up_framing)}"
            f"{_SIZE}: {self.down}\r\n{_FRAMING}: {self.down_framing}\r\n"
            f"{_PAUSE}: {self.target_pause_s}\r\n\r\n"
        ).encode()


def _framing_line(size: int, framing: Framing) -> str:
    return (
        f"Content-Length: {size}\r\n" if framing == "length" else "Transfer-Encoding: chunked\r\n"
    )


class BodyTarget:
    """A web server on 127.0.0.1 with a thread for each connection. A context.

    ``received`` and ``sent``: the bodies of each request, once they are whole.
    """

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._kept: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.port = int(self._listener.getsockname()[1])
        self.received: SimpleQueue[Body] = SimpleQueue()
        self.sent: SimpleQueue[Body] = SimpleQueue()

    def __enter__(self) -> BodyTarget:
        self._begin(self._accept)
        return self

    def __exit__(self, *error: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()  # nobody is accepted any more
        for sock in self._kept:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # its thread has closed it
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _begin(self, run: object, *arguments: object) -> None:
        thread = threading.Thread(target=run, args=arguments)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._kept.append(sock)
            self._begin(self._serve, sock)

    def _serve(self, sock: socket.socket) -> None:
        reader = Reader(sock)
        with sock:
            try:
                while True:
                    _, fields = reader.head()
                    reader.pause_s = float(fields[_PAUSE])
                    self.received.put(reader.body(fields))
                    framing: Framing = "length" if fields[_FRAMING] == "length" else "chunks"
                    size = int(fields[_SIZE])
                    lines = f"HTTP/1.1 200 OK\r\n{_framing_line(size, framing)}\r\n"
                    sock.sendall(lines.encode())
                    self.sent.put(send_body(sock, size, framing))
            except OSError:
                return  # the proxy, or the end of all this, has closed it


class BodyClient:
    """A client of one connection."""

    def __init__(self, sock: socket.socket, host: str) -> None:
        self.sock = sock
        self.reader = Reader(sock)
        self._host = host

    def ask(self, asked: Asked) -> tuple[Body, Body]:
        """Send a request and read its answer: the bodies that went up and came down."""
        up = self.send(asked)
        return up, self.answer()

    def send(self, asked: Asked) -> Body:
        """Send a request; the body that went up."""
        self.sock.sendall(asked.head(self._host))
        return send_body(self.sock, asked.up, asked.up_framing)

    def answer(self) -> Body:
        """Read an answer; ValueError where it is not 200."""
        first, fields = self.reader.head()
        if not first.startswith("HTTP/1.1 200 "):
            raise ValueError(first)
        return self.reader.body(fields)


class MemoryWatch:
    """Samples the anonymous memory of a process in KiB, from its begin to its end. A context."""

    EVERY_S: Final = 0.02

    def __init__(self, pid: int) -> None:
        self._path = f"/proc/{pid}/status"
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.first = self.most = self._sample()
        self.samples = 0

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()

    @property
    def rise(self) -> int:
        """KiB by which it has been larger than at first."""
        return self.most - self.first

    def _watch(self) -> None:
        while not self._done.wait(self.EVERY_S):
            self.most = max(self.most, self._sample())
            self.samples += 1

    def _sample(self) -> int:
        with open(self._path) as file:
            for line in file:
                if line.startswith("RssAnon:"):
                    return int(line.split()[1])
        raise ValueError(f"{self._path} has no RssAnon")
