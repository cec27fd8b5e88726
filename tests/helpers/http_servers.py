"""Web servers of others as targets: uvicorn, gunicorn, nginx and Python's own."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.helpers.daemons import Daemon, Nginx
from tests.helpers.http_apps import FILE

ROOT: Final = Path(__file__).parents[2]
APPS: Final = "tests.helpers.http_apps"


def uvicorn(directory: Path, port: int) -> Daemon:
    """uvicorn with the application of tests, WebSockets too."""
    return _python(
        "uvicorn",
        directory,
        port,
        *("uvicorn", f"{APPS}:asgi", "--app-dir", str(ROOT)),
        *("--port", str(port), "--log-level", "warning", "--no-proxy-headers"),
    )


def gunicorn(directory: Path, port: int) -> Daemon:
    """gunicorn with threads, which keeps connections."""
    return _python(
        "gunicorn",
        directory,
        port,
        *("gunicorn", f"{APPS}:wsgi", "--pythonpath", str(ROOT)),
        *("--bind", f"127.0.0.1:{port}", "--workers", "1", "--threads", "8"),
        *("--keep-alive", "5", "--log-level", "warning", "--worker-tmp-dir", str(directory)),
        "--no-control-socket",
    )


def python_server(directory: Path, port: int) -> Daemon:
    """``python -m http.server``, which speaks HTTP/1.0 and has files only."""
    return _python(
        "python",
        directory,
        port,
        *("http.server", str(port), "--bind", "127.0.0.1", "--directory", str(_files(directory))),
    )


def nginx(directory: Path, port: int, more: str = "") -> Nginx:
    """nginx with the file, and ``more`` inside its server."""
    text = f"server {{ listen 127.0.0.1:{port}; root {_files(directory)}; {more} }}"
    return Nginx("nginx", directory, http=text)


SERVERS: Final[dict[str, Callable[[Path, int], Daemon]]] = {
    "uvicorn": uvicorn,
    "gunicorn": gunicorn,
    "nginx": nginx,
    "python": python_server,
}


def _files(directory: Path) -> Path:
    files = directory / "files"
    files.mkdir()
    (files / "file").write_bytes(FILE)
    return files


def _python(name: str, directory: Path, port: int, *arguments: str) -> Daemon:
    return Daemon(name, directory, [sys.executable, "-m", *arguments], port)
