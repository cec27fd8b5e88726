"""A running proxyctl whose routes speak HTTP, and the servers behind it."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.helpers.certificates import Authority, Files
from tests.helpers.daemons import Daemon
from tests.helpers.http_servers import SERVERS
from tests.helpers.processes import Config, whole_lines
from tests.helpers.targets import dual_ports
from tests.helpers.tls_site import Site, route, terminate
from tests.helpers.waiting import wait_until


def http_route(name: str, port: int, target: str, **more: Any) -> Config:
    """A route that speaks HTTP, with these criteria or keys of its action."""
    match = {"protocol": "http", **more.pop("match", {})}
    return route(name, port, target, match=match, **more)


class HttpSite(Site):
    """`lines` are those of its access log."""

    def lines(self, **wanted: object) -> list[dict[str, Any]]:
        """The access log's lines that have these values."""
        if not self.access_path.exists():
            return []
        found: list[dict[str, Any]] = [
            json.loads(line) for line in whole_lines(self.access_path.read_text())
        ]
        return [line for line in found if wanted.items() <= line.items()]

    def wait_lines(self, count: int, **wanted: object) -> list[dict[str, Any]]:
        """These lines, once there are as many."""
        wait_until(lambda: len(self.lines(**wanted)) >= count, f"{count} lines with {wanted}")
        found = self.lines(**wanted)
        assert len(found) == count, found
        return found


class Servers:
    """Web servers of others, each behind a plain port and one where TLS ends."""

    def __init__(self, directory: Path, names: tuple[str, ...] = tuple(SERVERS)) -> None:
        self._stack = ExitStack()
        self.daemons: dict[str, Daemon] = {}
        self.addresses: dict[str, str] = {}
        self.ports: dict[tuple[str, str], int] = {}  # by server and scheme
        self.root = Authority(directory)
        self.files: Files = self.root.leaf("site.example", "127.0.0.1", stem="site")
        free = dual_ports(3 * len(names))
        try:
            for name in names:
                place = directory / name
                place.mkdir()
                own, self.ports[name, "http"], self.ports[name, "https"] = (
                    free.pop() for _ in range(3)
                )
                self.daemons[name] = SERVERS[name](place, own)
                self._stack.callback(self.daemons[name].end)
                self.addresses[name] = f"127.0.0.1:{own}"
        except BaseException:
            self.end()
            raise

    def routes(self) -> list[Config]:
        """Two for each server."""
        tls = terminate(self.files)
        return [
            http_route(
                f"{name}-{scheme}",
                port,
                self.addresses[name],
                **({"tls": tls} if scheme == "https" else {}),
            )
            for (name, scheme), port in self.ports.items()
        ]

    def url(self, name: str, scheme: str, path: str) -> str:
        """Where a client finds it."""
        return f"{scheme}://127.0.0.1:{self.ports[name, scheme]}{path}"

    def end(self) -> None:
        """End them all."""
        self._stack.close()
