"""Routes with TLS for tests, and a running proxyctl that is asked what became of a connection."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from prometheus_client.parser import text_string_to_metric_families

from tests.helpers.certificates import Authority, Files
from tests.helpers.chain import Hop, hop_config, read_to_end
from tests.helpers.processes import Config, whole_lines
from tests.helpers.sockets import TIMEOUT_S
from tests.helpers.tls_clients import Way
from tests.helpers.waiting import wait_until

UNIQUE_ID: Final[Config] = {"send_proxy": "v2", "send_proxy_tlvs": ["unique_id"]}


def certificate(files: Files) -> dict[str, str]:
    """A certificate as configs name it."""
    return {"cert": str(files.cert), "key": str(files.key)}


def terminate(*files: Files, **more: object) -> Config:
    """An action's ``tls`` with these certificates."""
    return {"mode": "terminate", "certificates": [certificate(one) for one in files], **more}


def client_auth(mode: str, root: Authority) -> Config:
    """``client_auth`` of a ``tls``."""
    return {"mode": mode, "ca": str(root.cert)}


def route(
    name: str,
    ports: int | str | list[int],
    target: str,
    *,
    match: Config | None = None,
    security: Config | None = None,
    **action: object,
) -> Config:
    """One route. ``match``: beside the ports, which may be one of "unix:/path"."""
    made: Config = {
        "name": name,
        "match": {"ports": [ports] if isinstance(ports, int | str) else ports, **(match or {})},
        "action": {"type": "forward", "targets": [target], **action},
    }
    if security is not None:
        made["security"] = security
    return made


class Site(Hop):
    """A proxyctl with an access log and an admin listener."""

    def __init__(
        self,
        directory: Path,
        routes: Iterable[Config],
        *,
        workers: int = 2,
        trusted: Iterable[str] = (),
        **more: object,
    ) -> None:
        directory.mkdir(exist_ok=True)
        self.access_path = directory / "access.log"
        self._admin = directory / "admin"
        self._trusted = list(trusted)
        super().__init__("site", directory, self.config(routes, **more))
        self._workers = workers

    def config(self, routes: Iterable[Config], **more: object) -> Config:
        """A config for this site."""
        head: Config = {
            "admin": {"listen": f"unix:{self._admin}"},
            "log": {"access": {"file": str(self.access_path)}},
            **more,
        }
        return hop_config(routes, self._trusted, **head)

    def reload(self, routes: Iterable[Config] | None = None, **more: object) -> Config:
        """Reload, with these routes if any are given: the reply. It must be accepted."""
        if routes is not None:
            self.write(self.config(routes, **more))
        code, reply = self.run("reload")
        assert code == 0, reply
        return reply

    def line_of(self, way: Way) -> dict[str, Any]:
        """The access log's line about this connection, once it has ended."""
        return wait_until(lambda: self._find(way), f"a line about {way}")

    def end_of(self, way: Way) -> str:
        """How this connection has ended."""
        return str(self.line_of(way)["end"])

    def logged(self, *words: str) -> str:
        """The line of the operational log that has all of these words, once it is there."""

        def look() -> str:
            lines = whole_lines(self.log())
            return next((line for line in lines if all(word in line for word in words)), "")

        return wait_until(look, f"a log line with {words}")

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(TIMEOUT_S)
            client.connect(str(self._admin))
            client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            text = read_to_end(client).partition(b"\r\n\r\n")[2].decode()
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == f"proxyctl_{name}" and labels.items() <= sample.labels.items()
        )

    def wait_metric(self, value: float, name: str, **labels: str) -> None:
        """Wait until a metric has this value."""
        last: list[float] = []

        def look() -> bool:
            last[:] = [self.metric(name, **labels)]
            return last == [value]

        try:
            wait_until(look, f"{name} {labels} is {value}")
        except AssertionError as error:
            raise AssertionError(f"{error}; it is {last}") from None

    def _find(self, way: Way) -> dict[str, Any]:
        if not self.access_path.exists():
            return {}
        for text in whole_lines(self.access_path.read_text()):
            if f'"{way.own or way.peer}"' not in text:
                continue
            line: dict[str, Any] = json.loads(text)
            if (line["peer"] or "", line["listener"]) == way[:2] and line["time"] >= way.since:
                return line
        return {}
