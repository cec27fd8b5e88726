"""Judges a load run by the JSON that locust wrote: no failure, and enough of every kind.

    python -m loadtests.gate FILE --seconds 30

A step of its own, because an exception in a locust listener only logs: locust may end with 0
although a check of its own never ran.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

SHORT: Final = "short connection"
LONG: Final = "message on a long connection"
BULK: Final = "bulk, hash checked"
FROM_V1: Final = "address sent by PROXY v1"
FROM_V2: Final = "address sent by PROXY v2"
GARBAGE: Final = "bad client: garbage header"
TRUNCATED: Final = "bad client: truncated header"
SILENT: Final = "bad client: silent"
RESET: Final = "bad client: reset"
AT_ONCE: Final = "bad client: FIN at once"
TLS_PASSED: Final = "TLS passed through by SNI"
TLS_12: Final = "TLS 1.2 ended by the proxy"
TLS_13: Final = "TLS 1.3 ended by the proxy"
TLS_REENCRYPTED: Final = "TLS encrypted again"
TLS_CLIENT: Final = "TLS with a client certificate"
TLS_RESUMED: Final = "TLS session resumed"
TLS_LONG: Final = "message on a long TLS connection"
TLS_NO_CLIENT: Final = "bad client: no client certificate"
TLS_CUT: Final = "bad client: TLS handshake cut"
TLS_GARBAGE: Final = "bad client: garbage after a ClientHello"
TLS_PLAIN: Final = "bad client: plain HTTP instead of TLS"
HTTP_KEPT: Final = "HTTP request on a kept connection"
HTTP_ONCE: Final = "HTTP request on its own connection"
HTTPS_KEPT: Final = "HTTPS request on a kept connection"
HTTPS_ONCE: Final = "HTTPS request on its own connection"
HTTP_BAD: Final = "bad client: ambiguous HTTP request"
WEBSOCKET: Final = "message on a WebSocket"
WEBSOCKET_TLS: Final = "message on a WebSocket over TLS"
WEBSOCKET_ONCE: Final = "WebSocket opened and closed"

# Requests per second that even a busy machine reaches: this gate asks "did it run", not "how fast"
MINIMUM_PER_S: Final = {
    SHORT: 5.0,
    LONG: 20.0,
    BULK: 0.2,
    FROM_V1: 2.0,
    FROM_V2: 2.0,
    GARBAGE: 0.2,
    TRUNCATED: 0.2,
    SILENT: 0.1,
    RESET: 0.2,
    AT_ONCE: 0.2,
    TLS_PASSED: 0.5,
    TLS_12: 0.5,
    TLS_13: 0.5,
    TLS_REENCRYPTED: 0.5,
    TLS_CLIENT: 0.5,
    TLS_RESUMED: 1.0,
    TLS_LONG: 5.0,
    TLS_NO_CLIENT: 0.2,
    TLS_CUT: 0.2,
    TLS_GARBAGE: 0.2,
    TLS_PLAIN: 0.2,
    HTTP_KEPT: 10.0,
    HTTP_ONCE: 2.0,
    HTTPS_KEPT: 5.0,
    HTTPS_ONCE: 0.5,
    HTTP_BAD: 0.5,
    WEBSOCKET: 10.0,
    WEBSOCKET_TLS: 5.0,
    WEBSOCKET_ONCE: 1.0,
}


class Entry(Struct, frozen=True):
    """One kind of request in locust's JSON; the two dicts count by second since the epoch."""

    name: str
    num_requests: int
    num_failures: int
    num_reqs_per_sec: dict[int, int] = {}
    num_fail_per_sec: dict[int, int] = {}


def read_entries(path: Path) -> list[Entry]:
    """Read what ``locust --json-file`` wrote. OSError or msgspec.DecodeError when it is not that.

    locust appends ".json" to the name it is given.
    """
    return msgspec.json.decode(path.read_bytes(), type=list[Entry])


def failed_requests(entries: Sequence[Entry]) -> int:
    """Failures of all kinds together."""
    return sum(entry.num_failures for entry in entries)


def by_second(entries: Sequence[Entry]) -> tuple[dict[int, int], dict[int, int]]:
    """Requests and failures of all kinds together, by second since the epoch."""
    requests: dict[int, int] = {}
    failures: dict[int, int] = {}
    for entry in entries:
        for second, count in entry.num_reqs_per_sec.items():
            requests[second] = requests.get(second, 0) + count
        for second, count in entry.num_fail_per_sec.items():
            failures[second] = failures.get(second, 0) + count
    return requests, failures


def judge(entries: Sequence[Entry], seconds: float) -> list[str]:
    """What is wrong with a run of ``seconds``, one sentence each; empty: nothing."""
    found = {entry.name: entry for entry in entries}
    wrong = [
        f"{entry.name}: {entry.num_failures} of {entry.num_requests} failed"
        for entry in entries
        if entry.num_failures
    ]
    for name, per_s in MINIMUM_PER_S.items():
        least = max(1, int(per_s * seconds))
        done = found[name].num_requests if name in found else 0
        if done < least:
            wrong.append(f"{name}: {done} requests, fewer than the {least} that prove anything")
    wrong += [f"{name}: not a kind that is known" for name in found if name not in MINIMUM_PER_S]
    return wrong


def table(entries: Sequence[Entry]) -> str:
    """Requests and failures by kind, for a terminal."""
    lines = [f"{'requests':>9} {'failures':>9}  kind"]
    lines += [
        f"{entry.num_requests:>9,} {entry.num_failures:>9,}  {entry.name}"
        for entry in sorted(entries, key=lambda entry: entry.name)
    ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table, the number of failures and what is wrong; 0 when nothing is."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.gate")
    parser.add_argument("file", type=Path, help="JSON of locust")
    parser.add_argument("--seconds", type=float, required=True, help="how long the run was")
    options = parser.parse_args(argv)
    try:
        entries = read_entries(options.file)
    except (OSError, msgspec.DecodeError) as error:
        print(f"error: no result of locust in {options.file}: {error}", file=sys.stderr)
        return 1
    print(table(entries))
    print(f"failures: {failed_requests(entries)}")
    wrong = judge(entries, options.seconds)
    for sentence in wrong:
        print(f"FAIL {sentence}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
