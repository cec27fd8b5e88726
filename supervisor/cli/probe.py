"""`proxyctl probe`: connect with a PROXY header that claims any source; show what comes back."""

from __future__ import annotations

import re
import socket
import sys
import time
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import Any, Final

from msgspec import Struct

from shared.errors import Problem
from shared.messages import Reply
from shared.proxy_protocol import encode_v1, encode_v2, parse_tlv_argument
from shared.proxy_protocol.address import mapped
from shared.units import Address, parse_address
from supervisor.cli.client import FAILED, OK, TIMED_OUT

KEPT_BYTES: Final = 1 << 20  # of what comes back, for --json; a probe is no download
_READ_BYTES: Final = 64 * 1024
_ESCAPE: Final = re.compile(r"\\(x[0-9a-fA-F]{2}|.)", re.DOTALL)
_ESCAPES: Final = {"r": "\r", "n": "\n", "t": "\t", "0": "\0", "\\": "\\"}

Place = tuple[bytes, int]  # packed address and port


class Probe(Struct, frozen=True, kw_only=True):
    """What to send where. ``version`` None: no header."""

    target: Address
    version: str | None  # v1 or v2
    source: Place | None = None  # None: the socket's own
    destination: Place | None = None
    tlvs: tuple[tuple[int, bytes], ...] = ()
    is_local: bool = False
    payload: bytes = b""
    timeout_s: float = 5.0


class Outcome(Struct, kw_only=True):
    """What happened. ``end``: closed, reset, timeout, connect_failed, or limit (--json only)."""

    connected: bool = False
    end: str = ""
    error: str = ""
    header: bytes = b""
    received: bytearray
    received_bytes: int = 0


def parse(
    *,
    target: str,
    proxy: str | None,
    source: str | None,
    destination: str | None,
    tlvs: Sequence[str],
    is_local: bool,
    send: str,
    timeout_s: float,
) -> Probe:
    """The command's arguments as a Probe; ValueError says which of them is wrong."""
    address = parse_address(target)
    has_v2_part = bool(tlvs) or is_local
    if proxy == "v1" and has_v2_part:
        raise ValueError("--tlv and --local need --proxy v2: a v1 header has no place for them")
    if proxy is None and (has_v2_part or source or destination):
        proxy = "v2"
    if destination and not source:
        raise ValueError("--destination needs --source")
    if address.path and proxy and not is_local and not (source and destination):
        raise ValueError("over a Unix socket a header needs --source and --destination")
    return Probe(
        target=address,
        version=proxy,
        source=parse_place(source) if source else None,
        destination=parse_place(destination) if destination else None,
        tlvs=tuple(parse_tlv_argument(text) for text in tlvs),
        is_local=is_local,
        payload=unescape(send),
        timeout_s=timeout_s,
    )


def parse_place(text: str) -> Place:
    """``203.0.113.7:5555`` or ``[2001:db8::1]:5555``; port 0 is allowed, a header may have it."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{text!r} is no IP:PORT")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{text!r}: an IPv6 address needs [ ] before its port")
    return ip_address(host).packed, int(port)


def unescape(text: str) -> bytes:
    r"""``\r \n \t \0 \\ \xHH`` as the bytes they name, the rest as UTF-8."""

    def byte(match: re.Match[bytes]) -> bytes:
        name = match[1].decode("latin-1")
        if len(name) == 3:
            return bytes([int(name[1:], 16)])
        if name not in _ESCAPES:
            raise ValueError(
                f"--send: unknown escape \\{name}; there are \\r \\n \\t \\0 \\\\ \\xHH"
            )
        return _ESCAPES[name].encode()

    return re.sub(_ESCAPE.pattern.encode(), byte, text.encode(), flags=re.DOTALL)


def header(probe: Probe, own: Place | None, peer: Place | None) -> bytes:
    """The header to send; ``own`` and ``peer`` are the socket's ends, None over a Unix socket."""
    if probe.version is None:
        return b""
    source, destination = probe.source or own, probe.destination or peer
    if probe.is_local and (source is None or destination is None):
        source = destination = (bytes(4), 0)
    if source is None or destination is None:
        raise ValueError("a header needs both addresses")
    (from_ip, from_port), (to_ip, to_port) = source, destination
    if len(from_ip) != len(to_ip):
        from_ip, to_ip = mapped(from_ip), mapped(to_ip)
    if probe.version == "v1":
        return encode_v1(from_ip, from_port, to_ip, to_port)
    return encode_v2(from_ip, from_port, to_ip, to_port, tlvs=probe.tlvs, local=probe.is_local)


def run(probe: Probe, on_bytes: Callable[[bytes], None] | None) -> Outcome:
    """Connect, send, and read until the end or the time is over.

    ``on_bytes`` gets what comes back as it comes; without it up to KEPT_BYTES are kept.
    """
    outcome = Outcome(received=bytearray())
    deadline = time.monotonic() + probe.timeout_s
    try:
        connection = _connect(probe)
    except ConnectionResetError as error:
        # It was there and sent RST before we looked: one that never was refuses or is silent.
        outcome.connected, outcome.end, outcome.error = True, "reset", str(error.strerror)
        return outcome
    except OSError as error:
        outcome.end, outcome.error = "connect_failed", error.strerror or str(error)
        return outcome
    with connection:
        outcome.connected = True
        try:
            outcome.header = header(probe, *_ends(connection, probe))
            connection.settimeout(_left(deadline))
            # In one write, as a proxy does it: a header must not be split needlessly.
            connection.sendall(outcome.header + probe.payload)
        except TimeoutError:
            outcome.end = "timeout"
            return outcome
        except OSError:  # EPIPE, ECONNRESET, or ENOTCONN where its RST has come already
            outcome.error = "the peer closed while it was being sent to"  # what it said may wait
        outcome.end = _read(connection, deadline, outcome, on_bytes)
    return outcome


def _connect(probe: Probe) -> socket.socket:
    if not probe.target.path:
        place = (probe.target.host, probe.target.port)
        return socket.create_connection(place, timeout=probe.timeout_s)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(probe.timeout_s)
        connection.connect(probe.target.path)
    except OSError:
        connection.close()
        raise
    return connection


def _ends(connection: socket.socket, probe: Probe) -> tuple[Place | None, Place | None]:
    if probe.target.path:
        return None, None
    ends = connection.getsockname(), connection.getpeername()
    own, peer = ((ip_address(end[0].partition("%")[0]).packed, end[1]) for end in ends)
    return own, peer


def _left(deadline: float) -> float:
    return max(0.001, deadline - time.monotonic())  # 0 would mean non-blocking


def _read(
    connection: socket.socket,
    deadline: float,
    outcome: Outcome,
    on_bytes: Callable[[bytes], None] | None,
) -> str:
    while time.monotonic() < deadline:
        connection.settimeout(_left(deadline))
        try:
            data = connection.recv(_READ_BYTES)
        except TimeoutError:
            break
        except OSError as error:
            outcome.error = error.strerror or str(error)
            return "reset"
        if not data:
            return "closed"
        outcome.received_bytes += len(data)
        if on_bytes is not None:
            on_bytes(data)
        else:
            outcome.received += data
            if len(outcome.received) >= KEPT_BYTES:
                return "limit"
    return "timeout"


def reply(probe: Probe, outcome: Outcome) -> Reply:
    """An outcome as the command's reply: exit code, data, and an error where there is one."""
    data: dict[str, Any] = {
        "target": str(probe.target),
        "connected": outcome.connected,
        "end": outcome.end,
        "header_hex": outcome.header.hex(),
        "received": outcome.received.decode("utf-8", "backslashreplace"),
        "received_hex": outcome.received.hex(),
        "received_bytes": outcome.received_bytes,
    }
    target = str(probe.target)
    if outcome.end == "connect_failed":
        return _failure(data, FAILED, f"cannot connect to {target}: {outcome.error}", outcome.end)
    if outcome.end == "reset":
        return _failure(data, FAILED, f"{target} reset the connection", outcome.end)
    if outcome.end == "timeout" and not outcome.received_bytes:
        message = f"nothing came from {target} within {probe.timeout_s:g} s, and it is still open"
        return _failure(data, TIMED_OUT, message, outcome.end)
    return Reply(exit_code=OK, data=data)


def _failure(data: dict[str, Any], exit_code: int, message: str, code: str) -> Reply:
    return Reply(exit_code=exit_code, data=data, errors=[Problem(message=message, code=code)])


def to_stdout(data: bytes) -> None:
    """Pass on what came, byte for byte."""
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def describe(outcome: Outcome) -> str:
    """How it ended, for stderr."""
    count = f"{outcome.received_bytes} bytes"
    if outcome.end == "closed":
        return f"the peer closed the connection after {count}"
    return f"{count} came; the connection is still open"
