"""HAProxy, nginx and Redis as processes, for tests: started in the foreground, ended by id."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from pathlib import Path
from typing import Final

import psutil

from tests.helpers.sockets import TIMEOUT_S
from tests.helpers.waiting import DEADLINE_S, wait_until
from tests.programs import find_program

_NOT_OPEN: Final = frozenset({psutil.CONN_LISTEN, psutil.CONN_TIME_WAIT, psutil.CONN_NONE})
_OUTPUT_CHARS: Final = 6000  # of the end of a log, in a test's failure

HAPROXY_HEAD: Final = """\
global
  stats socket {directory}/stats level admin
  nbthread 1
defaults
  mode tcp
  retries 0
  timeout connect 3s
  timeout client 30s
  timeout server 30s
  timeout check 2s
  timeout client-fin 1s
  timeout server-fin 1s
"""

NGINX_HEAD: Final = """\
load_module {stream};
daemon off;
user root;
worker_processes 1;
pid {directory}/pid;
error_log stderr notice;
events {{ worker_connections 2048; }}
http {{
  access_log off;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  server {{ listen unix:{directory}/ready; return 204; }}
{http}
}}
stream {{
  proxy_connect_timeout 3s;
{stream_text}
}}
"""


class Daemon:
    """One process in the foreground. Its output is in a file, so that a full pipe blocks nobody."""

    def __init__(self, name: str, directory: Path, command: list[str], ready: Path | int) -> None:
        """``ready``: the Unix socket, or port, that it takes once everything else is bound."""
        self.name = name
        self._output = directory / "output"
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=directory
            )
        try:
            wait_until(lambda: self._has_ended() or _accepts(ready), f"{name} is ready")
            assert not self._has_ended(), f"{name} has ended: {self.log()}"
        except BaseException:
            self.end()
            raise

    def log(self) -> str:
        """The end of what it has printed."""
        return self._output.read_text(errors="replace")[-_OUTPUT_CHARS:]

    def open_connections(self) -> int:
        """TCP connections that it holds, in either direction."""
        count = 0
        parent = psutil.Process(self._process.pid)
        for process in [parent, *parent.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                found = process.net_connections(kind="tcp")
                count += sum(one.status not in _NOT_OPEN for one in found)
        return count

    def end(self) -> None:
        """End it and its children, by process id."""
        children: list[psutil.Process] = []
        if not self._has_ended():
            children = psutil.Process(self._process.pid).children(recursive=True)
            self._process.terminate()
        try:
            self._process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(DEADLINE_S)
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()  # psutil checks that the id still means the same process

    def _has_ended(self) -> bool:
        return self._process.poll() is not None


def _accepts(place: Path | int) -> bool:
    is_port = isinstance(place, int)
    with socket.socket(socket.AF_INET if is_port else socket.AF_UNIX) as client:
        try:
            client.connect(("127.0.0.1", place) if is_port else str(place))
        except OSError:
            return False
        return True


def _program(name: str) -> str:
    found = find_program(name)
    assert found is not None, f"{name} is not installed"
    return found


class Haproxy(Daemon):
    """HAProxy with ``text`` behind the usual global and defaults sections."""

    def __init__(self, name: str, directory: Path, text: str) -> None:
        self._stats = directory / "stats"
        config = directory / "haproxy.cfg"
        config.write_text(HAPROXY_HEAD.format(directory=directory) + text)
        command = [_program("haproxy"), "-db", "-f", str(config)]
        super().__init__(name, directory, command, self._stats)

    def ask(self, command: str) -> str:
        """The answer of its runtime interface."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(TIMEOUT_S)
            client.connect(str(self._stats))
            client.sendall(command.encode() + b"\n")
            return b"".join(iter(lambda: client.recv(65536), b"")).decode()

    def server_status(self, backend: str) -> str:
        """``UP``, ``DOWN``, ... of the one server of ``backend``."""
        lines = self.ask("show stat").splitlines()
        keys = lines[0].removeprefix("# ").split(",")
        rows = [dict(zip(keys, line.split(","), strict=False)) for line in lines[1:] if line]
        (row,) = [
            row
            for row in rows
            if row["pxname"] == backend and row["svname"] not in ("FRONTEND", "BACKEND")
        ]
        return row["status"]


class Nginx(Daemon):
    """nginx with these texts inside its http and stream blocks."""

    def __init__(self, name: str, directory: Path, *, http: str = "", stream: str = "") -> None:
        config = directory / "nginx.conf"
        config.write_text(
            NGINX_HEAD.format(
                directory=directory,
                http=http,
                stream_text=stream,
                stream=_program("ngx_stream_module.so"),
            )
        )
        command = [_program("nginx"), "-e", "stderr", "-p", str(directory), "-c", str(config)]
        super().__init__(name, directory, command, directory / "ready")


class Redis(Daemon):
    """redis-server on ``port`` of 127.0.0.1, without files."""

    def __init__(self, name: str, directory: Path, port: int) -> None:
        ready = directory / "ready"
        options = ["--bind", "127.0.0.1", "--port", str(port), "--unixsocket", str(ready)]
        command = [_program("redis-server"), *options, "--save", "", "--appendonly", "no"]
        super().__init__(name, directory, command, ready)
