"""The admin listener: metrics, the same numbers as JSON, and health, over HTTP, read only.

A dead or slow client cannot stop anything: every connection ends after CONNECTION_S at the
latest, serves one request, and there are never more than MAX_CONNECTIONS of them.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat
from typing import Any, Final, Protocol

from aiohttp import web

from shared.errors import StartError
from shared.stats import Totals
from supervisor import port_owner
from supervisor.expiry import Use
from supervisor.facts import Facts, WorkerLoad
from supervisor.metrics import Reading, as_json, render

MAX_CONNECTIONS: Final = 64  # a scraper, a health check and a person need three
CONNECTION_S: Final = 15.0  # Prometheus itself gives a scrape 10 s
_HINT: Final = "set `admin: {listen: ...}` to another address, or to null for none"


class AdminView(Protocol):
    """What the admin listener asks of the supervisor; every method returns at once."""

    def totals(self) -> Totals:
        """Merged counters, as a fresh object that nobody changes afterwards."""
        ...

    def worker_states(self) -> dict[str, int]:
        """State: number of workers in it."""
        ...

    def worker_lags(self) -> dict[int, float]:
        """Slot: loop lag in seconds."""
        ...

    def worker_loads(self) -> dict[int, WorkerLoad]:
        """Slot: connections accepted since the start, and open now."""
        ...

    def restarts(self) -> dict[str, int]:
        """Reason: number of workers that were replaced for it."""
        ...

    def is_ready(self) -> bool:
        """A worker is ready, and not silent, and no stop has begun."""
        ...

    def is_stopping(self) -> bool:
        """A stop has begun."""
        ...

    def facts(self) -> Facts:
        """What the supervisor knows of itself."""
        ...

    def certificates(self) -> list[Use]:
        """The certificates that clients see, by route."""
        ...


class AdminServer:
    """One admin listener. ``address`` is where it listens, "" while it does not."""

    def __init__(self, view: AdminView) -> None:
        self._view = view
        self._rendering = asyncio.Lock()  # one scrape at a time: a flood of them waits here
        self._server: asyncio.AbstractServer | None = None
        self._http: _HttpServer | None = None
        self._socket_path: tuple[str, int] | None = None  # path, inode
        self.address = ""

    async def start(self, listen: str) -> None:
        """Listen on "host:port", "[v6]:port" or "unix:/path"; StartError when that cannot be."""
        try:
            listening = _bind(listen)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            if getattr(error, "errno", None) == errno.EADDRINUSE and not listen.startswith("unix:"):
                host, _, port = listen.rpartition(":")
                reason += port_owner.by_whom(host.strip("[]"), int(port))
            message = f"the admin listener cannot listen on {listen}: {reason}"
            raise StartError(message, _HINT) from error
        loop = asyncio.get_running_loop()
        self._http = _HttpServer(
            self._handle,
            handler_cancellation=True,  # or a client that comes and goes leaves a queue behind
            access_log=None,
            lingering_time=0.0,
            keepalive_timeout=0.0,
        )
        if listening.family == socket.AF_UNIX:
            path = listening.getsockname()
            self._socket_path = path, os.stat(path).st_ino
            self._server = await loop.create_unix_server(self._http, sock=listening)
            self.address = f"unix:{path}"
        else:
            host, port = listening.getsockname()[:2]
            self._server = await loop.create_server(self._http, sock=listening)
            self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    async def stop(self) -> None:
        """Stop listening and cut what is open."""
        server, http = self._server, self._http
        self._server = self._http = None
        self.address = ""
        if server is None or http is None:
            return
        server.close()
        http.cut()
        await http.shutdown(1.0)
        await server.wait_closed()
        _unlink_own(self._socket_path)
        self._socket_path = None

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        response = await self._answer(request)
        response.force_close()
        return response

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        if request.path not in {"/metrics", "/stats", "/livez", "/readyz"}:
            known = "not found; there are /metrics, /stats, /livez and /readyz\n"
            return web.Response(status=404, text=known)
        if request.method not in {"GET", "HEAD"}:
            headers = {"Allow": "GET, HEAD"}
            return web.Response(status=405, text="only GET and HEAD\n", headers=headers)
        if request.path == "/livez":
            return web.Response(text="ok\n")  # this line runs: the loop turns
        if request.path == "/readyz":
            return self._readiness()
        async with self._rendering:
            # In a thread, since ten thousand routes take longer than the loop may be held.
            if request.path == "/stats":
                body = await asyncio.to_thread(as_json, self._read())
                return web.Response(body=body, content_type="application/json")
            accept = ",".join(request.headers.getall("Accept", []))
            body, content_type = await asyncio.to_thread(render, self._read(), accept)
            return web.Response(body=body, headers={"Content-Type": content_type})

    def _read(self) -> Reading:
        view = self._view
        return Reading(
            totals=view.totals(),
            facts=view.facts(),
            worker_states=view.worker_states(),
            worker_lags=view.worker_lags(),
            worker_loads=view.worker_loads(),
            restarts=view.restarts(),
            certificates=view.certificates(),
        )

    def _readiness(self) -> web.Response:
        if self._view.is_ready():
            return web.Response(text="ready\n")
        reason = "a stop has begun" if self._view.is_stopping() else "no worker is ready"
        return web.Response(status=503, text=f"not ready: {reason}\n")


class _HttpServer(web.Server):
    """aiohttp's server, with a cap on connections and an end to each of them."""

    def __init__(self, handler: Any, **options: Any) -> None:
        super().__init__(handler, **options)
        self._ends: dict[web.RequestHandler, tuple[asyncio.Transport, asyncio.TimerHandle]] = {}

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        if len(self._ends) >= MAX_CONNECTIONS:
            transport.abort()
            return
        timer = asyncio.get_running_loop().call_later(CONNECTION_S, transport.abort)
        self._ends[handler] = transport, timer

    def connection_lost(
        self, handler: web.RequestHandler, exc: BaseException | None = None
    ) -> None:
        super().connection_lost(handler, exc)
        entry = self._ends.pop(handler, None)
        if entry is not None:
            entry[1].cancel()

    def cut(self) -> None:
        """End every connection now."""
        for transport, timer in self._ends.values():
            timer.cancel()
            transport.abort()


def _bind(listen: str) -> socket.socket:
    if listen.startswith("unix:"):
        return _bind_unix(listen.removeprefix("unix:"))
    host, colon, port = listen.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit():
        raise ValueError("that is no host:port, [v6]:port or unix:/path")
    host = host.removeprefix("[").removesuffix("]")
    found = socket.getaddrinfo(
        host, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
    )
    family, kind, protocol, _, address = found[0]
    listening = socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind(address)
        listening.listen(MAX_CONNECTIONS)
    except OSError:
        listening.close()
        raise
    return listening


def _bind_unix(path: str) -> socket.socket:
    """Bind a Unix socket, mode 0600, over a stale one but never over one that answers."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        if _is_stale(path):
            os.unlink(path)
        listening.bind(path)
        os.chmod(path, 0o600)
        listening.listen(MAX_CONNECTIONS)
    except OSError:
        listening.close()
        raise
    return listening


def _is_stale(path: str) -> bool:
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return False  # bind will say that it is in the way
    except FileNotFoundError:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as trial:
        return trial.connect_ex(path) == errno.ECONNREFUSED


def _unlink_own(socket_path: tuple[str, int] | None) -> None:
    """Remove our socket file, unless a successor has put its own in the same place."""
    if socket_path is None:
        return
    path, inode = socket_path
    try:
        if os.stat(path).st_ino == inode:
            os.unlink(path)
    except FileNotFoundError:
        return
