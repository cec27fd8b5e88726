"""Bodies of many GiB through one worker: hashed at both ends, its memory watched all along.

    python -m loadtests.bodies --gib 10

Four bodies, each with a connection of its own: up with a length, up in chunks, down with a length,
down in chunks. First plain, then with TLS between client and proxyctl. Ends with 1 where a hash
differs, or where the worker's memory has risen by more than 16 MiB.
"""

from __future__ import annotations

import argparse
import json
import socket
import ssl
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from time import monotonic
from typing import Any, Final

from msgspec import Struct

from loadtests.body_wire import (
    WAIT_S,
    Asked,
    Body,
    BodyClient,
    BodyTarget,
    MemoryWatch,
)
from loadtests.peers import start_proxyctl
from loadtests.proc_files import parse_stat
from loadtests.processes import LoadTestError, Started, Workspace, tree
from tests.helpers.certificates import Authority

NAME: Final = "bodies.test"
MIB: Final = 1 << 20
GIB: Final = 1 << 30
MOST_RISE_KIB: Final = 16 << 10
_SCHEMES: Final = ("http", "https")


class Result(Struct, frozen=True, kw_only=True):
    """One body, as it was at the client and at the target; and the worker's anonymous memory."""

    scheme: str
    what: str
    seconds: float
    at_client: Body
    at_target: Body
    first_kib: int
    most_kib: int

    @property
    def is_same(self) -> bool:
        """What was sent has arrived."""
        return self.at_client == self.at_target

    @property
    def is_good(self) -> bool:
        """And nothing of it was held."""
        return self.is_same and self.most_kib - self.first_kib <= MOST_RISE_KIB

    def line(self) -> str:
        """For the table."""
        size = self.at_client.size
        return (
            f"{self.scheme:<6} {self.what:<16} {size / GIB:>6.1f} GiB {self.seconds:>7.1f} s"
            f" {size * 8 / self.seconds / 1e9:>6.2f} Gbit/s  {self.at_client.sha256[:16]}"
            f" {'same' if self.is_same else 'OTHER'}  worker {self.first_kib / 1024:.1f} MiB,"
            f" at most {self.most_kib / 1024:.1f}"
        )


def works(size: int) -> dict[str, Asked]:
    """What is asked for: name to request."""
    return {
        "up, length": Asked(up=size),
        "up, chunks": Asked(up=size, up_framing="chunks"),
        "down, length": Asked(down=size),
        "down, chunks": Asked(down=size, down_framing="chunks"),
    }


def config_text(ports: dict[str, int], target: int, both: Path) -> str:
    """proxyctl, JSON: one route for each scheme."""
    routes: list[dict[str, Any]] = []
    for scheme, port in ports.items():
        action: dict[str, Any] = {"type": "forward", "targets": [f"127.0.0.1:{target}"]}
        if scheme == "https":
            action["tls"] = {"mode": "terminate", "certificates": [{"cert": str(both)}]}
        match = {"ports": [port], "protocol": "http", "tls": scheme == "https"}
        routes.append({"name": scheme, "match": match, "action": action})
    return json.dumps({"listen": ["127.0.0.1"], "admin": None, "routes": routes})


def dial(port: int, context: ssl.SSLContext | None) -> socket.socket:
    """A client's connection."""
    sock = socket.create_connection(("127.0.0.1", port), WAIT_S)
    return sock if context is None else context.wrap_socket(sock, server_hostname=NAME)


def measure(
    scheme: str, what: str, asked: Asked, sock: socket.socket, target: BodyTarget, worker: int
) -> Result:
    """Send one request, and compare what both ends have seen."""
    client = BodyClient(sock, NAME)
    with MemoryWatch(worker) as watch:
        began = monotonic()
        up, down = client.ask(asked)
        received, sent = target.received.get(timeout=WAIT_S), target.sent.get(timeout=WAIT_S)
        seconds = monotonic() - began
    at_client, at_target = (up, received) if asked.up else (down, sent)
    return Result(
        scheme=scheme, what=what, seconds=seconds, at_client=at_client, at_target=at_target,
        first_kib=watch.first, most_kib=watch.most,
    )  # fmt: skip


def worker_of(started: Started) -> int:
    """The only worker's pid: that of the youngest process, which the fork server was before."""

    def born(pid: int) -> int:
        return parse_stat(Path(f"/proc/{pid}/stat").read_text()).start_ticks

    return max(tree(started.popen.pid), key=born)


def run(gib: float, schemes: Sequence[str]) -> list[Result]:
    """All bodies over each scheme; a line is printed for each."""
    results: list[Result] = []
    with Workspace("proxyctl-bodies-") as space, BodyTarget() as target:
        authority = Authority(space.directory)
        both = authority.leaf(NAME).both
        context = ssl.create_default_context(cafile=str(authority.cert))
        ports = {scheme: space.port() for scheme in schemes}
        config = space.write("bodies.json", config_text(ports, target.port, both))
        worker = worker_of(start_proxyctl(space, "bodies", config, 1))
        for scheme in schemes:
            wanted = context if scheme == "https" else None
            for size in (MIB, int(gib * GIB)):  # the first ones are to warm up
                for what, asked in works(size).items():
                    with closing(dial(ports[scheme], wanted)) as sock:
                        found = measure(scheme, what, asked, sock, target, worker)
                    if size > MIB:
                        results.append(found)
                        print(found.line(), flush=True)
    return results


def main(argv: Sequence[str] | None = None) -> int:
    """Run it and say whether all is as it should be."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.bodies", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--gib", type=float, default=1.0, help="size of each body (1)")
    parser.add_argument("--only", choices=_SCHEMES, help="leave the other scheme out")
    options = parser.parse_args(argv)
    if options.gib * GIB <= MIB:
        parser.error("--gib must be more than a MiB")
    try:
        results = run(options.gib, [options.only] if options.only else _SCHEMES)
    except (LoadTestError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    is_good = all(result.is_good for result in results)
    print("PASS" if is_good else "FAIL")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
