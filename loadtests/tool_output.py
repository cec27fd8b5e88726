"""Parsers of what wrk, iperf3 and `openssl s_time` print."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec
from msgspec import Struct

MIB: Final = 1024 * 1024

_TOTAL = re.compile(r"^\s*(\d+) requests in ([\d.]+)(us|ms|s|m|h), ", re.MULTILINE)
_SOCKET_ERRORS = re.compile(
    r"^\s*Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", re.MULTILINE
)
_BAD_STATUS = re.compile(r"^\s*Non-2xx or 3xx responses: (\d+)", re.MULTILINE)
_P99 = re.compile(r"^\s*99%\s+([\d.]+)(us|ms|s|m|h)\s*$", re.MULTILINE)
_IN_MS: Final = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0, "h": 3_600_000.0}
_RATE = re.compile(r"^Requests/sec:\s+([\d.]+)", re.MULTILINE)
_S_TIME = re.compile(r"^(\d+) connections in \d+ real seconds", re.MULTILINE)
_S_TIME_EACH = re.compile(r"^([rt*]+)$", re.MULTILINE)  # r: its session was resumed


class ToolError(ValueError):
    """The output is not that of a finished run."""


class WrkRun(Struct, frozen=True):
    """One run of wrk: whole requests, requests per second, failed ones of any kind."""

    requests: int
    per_s: float
    errors: int


class HandshakeRun(Struct, frozen=True):
    """Whole connections of some clients that ran side by side, and how many of them failed."""

    connections: int
    per_s: float
    errors: int


class IperfRun(Struct, frozen=True):
    """One run of iperf3: what the receiver got in bytes and bits per second."""

    received_bytes: int
    bits_per_s: float

    @property
    def mib(self) -> float:
        """Received, in MiB."""
        return self.received_bytes / MIB


def parse_wrk(text: str) -> WrkRun:
    """Parse the report of ``wrk``. ToolError when the totals are missing.

    Lines about errors are printed only where there are any.
    """
    total, rate = _TOTAL.search(text), _RATE.search(text)
    if total is None or rate is None:
        raise ToolError(f"no totals in the output of wrk: {text.strip()[-300:]!r}")
    errors = 0
    if (sockets := _SOCKET_ERRORS.search(text)) is not None:
        errors += sum(map(int, sockets.groups()))
    if (status := _BAD_STATUS.search(text)) is not None:
        errors += int(status[1])
    return WrkRun(int(total[1]), float(rate[1]), errors)


def parse_wrk_p99(text: str) -> float:
    """The 99th percentile of ``wrk --latency``, in ms. ToolError when it is missing."""
    found = _P99.search(text)
    if found is None:
        raise ToolError(f"no percentiles in the output of wrk: {text.strip()[-300:]!r}")
    return float(found[1]) * _IN_MS[found[2]]


def parse_s_time(text: str, resumed: bool) -> int:
    """Connections that one ``openssl s_time`` made. ToolError when its last line is missing.

    So too where one of them was not ``resumed``, or was and should not be. The seconds that it
    prints are whole ones, so the time is taken outside.
    """
    found = _S_TIME.search(text)
    if found is None:
        raise ToolError(f"no sum in the output of openssl s_time: {text.strip()[-300:]!r}")
    each = "".join(_S_TIME_EACH.findall(text))
    others = len(each) - each.count("r") if resumed else each.count("r")
    if others or not each:
        raise ToolError(f"{others} of {len(each)} handshakes were not as asked for")
    return int(found[1])


def parse_iperf(text: str) -> IperfRun:
    """Parse the output of ``iperf3 --json``. ToolError with its own message when it failed."""
    try:
        report: dict[str, Any] = msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise ToolError(f"iperf3 printed no JSON ({error}): {text.strip()[-300:]!r}") from None
    if "error" in report:
        raise ToolError(f"iperf3: {report['error']}")
    try:
        received = report["end"]["sum_received"]
        return IperfRun(int(received["bytes"]), float(received["bits_per_second"]))
    except (KeyError, TypeError) as error:
        raise ToolError(f"iperf3: no sum_received in its report ({error})") from None
