"""Echo connections that know which worker has them, long ones and many short ones."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from msgspec import Struct

from tests.helpers.processes import Config
from tests.helpers.sockets import exchange
from tests.helpers.targets import Target, read_header

REPLY_S: Final = 8.0  # far beyond the 1.5 s within which a hung worker loses its listeners
_PAUSE_S: Final = 0.004  # between two dials: steady, and light on a small machine


def serve(sock: socket.socket) -> None:
    """For `Target`: tell the connection's id as a line, then send back what comes."""
    header, rest = read_header(sock)
    assert header.tlvs is not None
    unique_id = next(value for type_, value in header.tlvs if type_ == 5)
    sock.sendall(unique_id + b"\n" + rest)
    while data := sock.recv(65536):
        sock.sendall(data)


def named_route(name: str, ports: list[int | str], target: Target) -> Config:
    """A route to such a target."""
    action: Config = {
        "type": "forward",
        "targets": [target.address],
        "send_proxy": "v2",
        "send_proxy_tlvs": ["unique_id"],
    }
    return {"name": name, "match": {"ports": ports}, "action": action}


class LongConnection:
    """One connection; ``worker`` is the incarnation of the worker that has it."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.sock = socket.create_connection((host, port), REPLY_S)
        try:
            self.worker = int(self._read_line().split(b"-")[1])
        except BaseException:
            self.sock.close()
            raise

    def _read_line(self) -> bytes:
        line = b""
        while not line.endswith(b"\n"):
            part = self.sock.recv(1)
            assert part, f"ended before its id came: {line!r}"
            line += part
        return line

    def echoes(self) -> bool:
        """Whether it still sends back what it gets."""
        try:
            return exchange(self.sock, b"still there") == b"still there"
        except OSError:
            return False

    def close(self) -> None:
        """End it."""
        self.sock.close()


def one_for_each(port: int, incarnations: set[int]) -> list[LongConnection]:
    """A long connection through each of these workers; the caller closes them."""
    found: dict[int, LongConnection] = {}
    for _ in range(400):
        one = LongConnection(port)
        if one.worker in incarnations and one.worker not in found:
            found[one.worker] = one
        else:
            one.close()
        if set(found) == incarnations:
            return list(found.values())
    raise AssertionError(f"no connection came to {incarnations - set(found)}")


class Failure(Struct, frozen=True):
    """A short connection that did not go as it should, ``began`` by time.monotonic.

    ``worker`` None: it is not known. ``is_refused``: nobody listened.
    """

    what: str
    began: float
    worker: int | None = None
    is_refused: bool = False


class Dialler:
    """Dials a port all the time, one exchange each, until the end of the context."""

    def __init__(self, port: int, host: str = "127.0.0.1", is_named: bool = True) -> None:
        self.served = 0
        self.failures: list[Failure] = []
        self.workers: dict[int, int] = {}  # incarnation: connections
        self._address = (host, port)
        self._is_named = is_named
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Dialler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Let the connection under way end, and dial no more."""
        self._end.set()
        self._thread.join(2 * REPLY_S)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        while not self._end.wait(_PAUSE_S):
            self.dial()

    def dial(self) -> None:
        """One connection."""
        worker: int | None = None
        began = time.monotonic()
        try:
            if self._is_named:
                one = LongConnection(self._address[1], self._address[0])
                worker = one.worker
                sock = one.sock
            else:
                sock = socket.create_connection(self._address, REPLY_S)
            with sock:
                assert exchange(sock, b"short") == b"short", "ended early"
        except (OSError, AssertionError) as error:
            seconds = time.monotonic() - began
            is_refused = isinstance(error, ConnectionRefusedError)
            what = f"{error!r} after {seconds:.3f} s"
            self.failures.append(Failure(what, began, worker, is_refused))
        else:
            self.served += 1
            if worker is not None:
                self.workers[worker] = self.workers.get(worker, 0) + 1


def incarnations(workers: list[dict[str, Any]]) -> set[int]:
    """Of those that are ready."""
    return {worker["incarnation"] for worker in workers if worker["state"] == "ready"}


def are_ready(count: int, generation: int = 0) -> Callable[[list[dict[str, Any]]], bool]:
    """For `Proxyctl.wait_for_workers`: so many, all ready; on this generation unless it is 0."""

    def look(workers: list[dict[str, Any]]) -> bool:
        serving = [worker for worker in workers if worker["state"] == "ready"]
        are_there = len(serving) == len(workers) == count
        return are_there and all(generation in (0, one["generation"]) for one in serving)

    return look
