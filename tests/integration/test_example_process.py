"""The process behind the built-in example, without a proxy in front of it."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil
import pytest

from shared.errors import StartError
from supervisor.example import ECHO_SOCKET, PAGE_SOCKET, ExampleProcess, example_config

Told = list[tuple[str, dict[str, str]]]


def run(scenario: Callable[[ExampleProcess, Told], Awaitable[None]], directory: Path) -> None:
    """Run a scenario with a started process, which is stopped whatever happens."""

    async def main() -> None:
        told: Told = []
        process = ExampleProcess(directory, lambda _, text, fields: told.append((text, fields)))
        await process.start()
        try:
            await scenario(process, told)
        finally:
            await process.stop()

    asyncio.run(main())


def exchange(path: Path, data: bytes, *, half_close: bool = True) -> bytes:
    """Send, end our side where asked, and read until the other ends."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(path))
        client.sendall(data)
        if half_close:
            client.shutdown(socket.SHUT_WR)
        received = b""
        while part := client.recv(65536):
            received += part
        return received


def get(path: Path, accept: str) -> bytes:
    """The page, for a client that accepts this."""
    request = f"GET / HTTP/1.1\r\nHost: a\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
    return exchange(path, request.encode(), half_close=False)


def test_page_and_echo(tmp_path: Path) -> None:
    """A browser gets HTML, curl gets text, both with the supervisor's pid; the echo echoes."""

    async def scenario(_: ExampleProcess, told: Told) -> None:
        page = tmp_path / PAGE_SOCKET
        browser = await asyncio.to_thread(get, page, "text/html,*/*;q=0.8")
        curl = await asyncio.to_thread(get, page, "*/*")
        assert browser.startswith(b"HTTP/1.1 200")
        assert b"<h1>" in browser
        assert b"Content-Type: text/plain" in curl
        for answer in (browser, curl):
            assert str(os.getpid()).encode() in answer
            assert b"validate proxyctl.yaml" in answer
            assert b"$" not in answer
        data = os.urandom(300_000)
        assert await asyncio.to_thread(exchange, tmp_path / ECHO_SOCKET, data) == data
        assert told == []

    run(scenario, tmp_path)
    assert list(tmp_path.iterdir()) == []  # its socket files went with it


def test_its_death_is_told(tmp_path: Path) -> None:
    """A killed example process is named in the log, and stopping afterwards is no error."""

    async def scenario(process: ExampleProcess, told: Told) -> None:
        pid = process.pid
        psutil.Process(pid).kill()
        async with asyncio.timeout(10):
            await process.wait()
        assert [fields["pid"] for _, fields in told] == [str(pid)]

    run(scenario, tmp_path)


def test_it_takes_over_sockets_of_an_earlier_run(tmp_path: Path) -> None:
    """Socket files that a killed run left behind do not hinder the next one."""
    for name in (PAGE_SOCKET, ECHO_SOCKET):
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(tmp_path / name))

    async def scenario(_: ExampleProcess, __: Told) -> None:
        assert await asyncio.to_thread(exchange, tmp_path / ECHO_SOCKET, b"hi") == b"hi"

    run(scenario, tmp_path)


def test_it_ends_when_its_supervisor_is_killed(tmp_path: Path) -> None:
    """No process is left when the one that started it dies without a word."""
    script = (
        "import asyncio, pathlib, sys\n"
        "from supervisor.example import ExampleProcess\n"
        "async def main():\n"
        "    process = ExampleProcess(pathlib.Path(sys.argv[1]), lambda *_: None)\n"
        "    await process.start()\n"
        "    print(process.pid, flush=True)\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
        try:
            assert parent.stdout is not None
            example = psutil.Process(int(parent.stdout.readline()))
        finally:
            parent.kill()
        try:
            psutil.wait_procs([example], timeout=10)
            assert not example.is_running() or example.status() == psutil.STATUS_ZOMBIE
        finally:
            if example.is_running():
                example.kill()


def test_a_failed_start_is_told(tmp_path: Path) -> None:
    """Where the sockets cannot be made, the start ends with an error instead of waiting."""

    async def main() -> None:
        await ExampleProcess(tmp_path / "missing", lambda *_: None).start()

    with pytest.raises(StartError, match="example"):
        asyncio.run(main())


def test_the_example_is_a_valid_config(tmp_path: Path) -> None:
    """The built-in config has two forward routes, on loopback only."""
    config = example_config(tmp_path)
    assert [route.name for route in config.routes] == ["page", "echo"]
    assert [str(host) for host in config.listen] == ["127.0.0.1"]
    assert [target.address.path for route in config.routes for target in route.action.targets] == [
        str(tmp_path / PAGE_SOCKET),
        str(tmp_path / ECHO_SOCKET),
    ]
