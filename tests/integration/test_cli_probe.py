"""`proxyctl probe` against real servers that answer, hang, close and reset."""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from shared.proxy_protocol import ProxyHeader, parse

Serve = Callable[[socket.socket], None]


@contextmanager
def server(serve: Serve, path: Path | None = None) -> Iterator[str]:
    """A server that hands its one connection to ``serve``; yields its address."""
    if path is not None:
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(path))
        listening.listen()
    else:
        listening = socket.create_server(("127.0.0.1", 0))
    address = f"unix:{path}" if path else f"127.0.0.1:{listening.getsockname()[1]}"

    def accept() -> None:
        try:
            connection, _ = listening.accept()
        except TimeoutError:
            return
        with connection:
            connection.settimeout(20)
            serve(connection)

    with listening:
        listening.settimeout(20)
        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield address
        finally:
            thread.join()


def run(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run `proxyctl probe` to its end."""
    command = [sys.executable, "-m", "supervisor.cli", "probe", *arguments]
    return subprocess.run(command, capture_output=True, timeout=60, check=False)


def read_header(connection: socket.socket) -> tuple[ProxyHeader, bytes]:
    """The PROXY header that a connection begins with, and what came after it."""
    received = b""
    while (answer := parse(received)) is None:
        part = connection.recv(4096)
        assert part, "the probe ended before its header was complete"
        received += part
    return answer[0], received[answer[1] :]


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("over", ["tcp", "unix"])
def test_the_server_sees_the_claimed_client(version: str, over: str, tmp_path: Path) -> None:
    """Source, destination and text arrive, and what comes back is printed byte for byte."""
    seen: list[tuple[ProxyHeader, bytes]] = []

    def serve(connection: socket.socket) -> None:
        header, rest = read_header(connection)
        while len(rest) < 7:
            rest += connection.recv(4096)
        seen.append((header, rest))
        connection.sendall(b"\x00\xffback\n")

    with server(serve, tmp_path / "s" if over == "unix" else None) as address:
        claim = ["--source", "203.0.113.7:5555", "--destination", "198.51.100.1:443"]
        done = run(address, *claim, "--proxy", version, "--send", "hello\\r\\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout == b"\x00\xffback\n"
    ((header, text),) = seen
    assert (header.source_text, header.source_port) == ("203.0.113.7", 5555)
    assert (header.destination_text, header.destination_port) == ("198.51.100.1", 443)
    assert text == b"hello\r\n"


def test_json_has_everything() -> None:
    """The header that was sent and what came back are in the object, as text and as hex."""

    def serve(connection: socket.socket) -> None:
        read_header(connection)
        connection.sendall("grüß".encode())

    with server(serve) as address:
        done = run(address, "--tlv", "authority=a.example", "--json")
    document: dict[str, Any] = json.loads(done.stdout)
    data = document["data"]
    assert done.returncode == 0
    assert document["ok"] is True
    assert (data["connected"], data["end"], data["received"]) == (True, "closed", "grüß")
    assert bytes.fromhex(data["received_hex"]).decode() == "grüß"
    header = parse(bytes.fromhex(data["header_hex"]))
    assert header is not None
    assert header[0].tlvs == ((2, b"a.example"),)


def test_a_server_that_says_nothing() -> None:
    """Status 5 when the time is over and not one byte came; 0 when one did."""

    def wait_for_end(connection: socket.socket) -> None:
        assert connection.recv(1) == b""

    with server(wait_for_end) as address:
        done = run(address, "--timeout", "200ms")
    assert done.returncode == 5
    assert b"nothing came" in done.stderr

    def greet(connection: socket.socket) -> None:
        connection.sendall(b"220 ready\r\n")
        wait_for_end(connection)

    with server(greet) as address:
        done = run(address, "--timeout", "1s")
    assert (done.returncode, done.stdout) == (0, b"220 ready\r\n")


def test_a_server_that_resets() -> None:
    """Status 1, and what came before the reset is printed."""

    def reset(connection: socket.socket) -> None:
        linger = struct.pack("ii", 1, 0)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    with server(reset) as address:
        done = run(address, "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["data"]["end"] == "reset"


def test_nobody_listens(tmp_path: Path) -> None:
    """Status 1 and the reason, for TCP and for a Unix socket."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        done = run(f"127.0.0.1:{unused.getsockname()[1]}")
    assert done.returncode == 1
    assert b"Connection refused" in done.stderr
    done = run(f"unix:{tmp_path / 'none'}", "--json")
    assert done.returncode == 1
    document = json.loads(done.stdout)
    assert document["data"]["connected"] is False
    assert "No such file" in document["errors"][0]["message"]
