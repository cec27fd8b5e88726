"""Who listens on a port, from /proc: so that "address in use" can say by whom."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

_LISTEN: Final = "0A"  # TCP_LISTEN in /proc/net/tcp
_COMMAND_MAX: Final = 80


def find(host: str, port: int) -> tuple[int, str] | None:
    """(pid, command) of a process that listens where ``host:port`` would; None if not to be seen.

    Processes of other users are seen by root only.
    """
    inodes = _listening_inodes(host, port)
    if not inodes:
        return None
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and _holds(process, wanted):
            return int(process.name), _command(process)
    return None


def by_whom(host: str, port: int) -> str:
    """`` by pid 4711: nginx -g ...``, to go behind "address in use"; "" if it is not to be seen."""
    owner = find(host, port)
    return f" by pid {owner[0]}: {owner[1]}" if owner else ""


def _listening_inodes(host: str, port: int) -> set[str]:
    inodes = set()
    for table in ("tcp", "tcp6"):
        try:
            with Path("/proc/net", table).open("rb") as lines:
                next(lines, b"")  # the heads of the columns
                inodes |= _inodes_of(lines, host, port)
        except OSError:
            continue
    return inodes


def _inodes_of(lines: Iterable[bytes], host: str, port: int) -> set[str]:
    """Line by line, and only as far as need be: of a busy host the table has megabytes."""
    inodes = set()
    for line in lines:
        fields = line.decode().split()
        address, _, hex_port = fields[1].partition(":")
        if fields[3] != _LISTEN:
            break  # the kernel shows listeners first (tcp_get_idx in net/ipv4/tcp_ipv4.c)
        if int(hex_port, 16) == port and _overlaps(address, host):
            inodes.add(fields[9])
    return inodes


def _overlaps(raw: str, host: str) -> bool:
    """Whether an address of the table, 32-bit words in host order, can clash with ``host``."""
    words = [bytes.fromhex(raw[at : at + 8])[::-1] for at in range(0, len(raw), 8)]
    bound = ipaddress.ip_address(b"".join(words))
    ours = ipaddress.ip_address(host.partition("%")[0])
    if bound.is_unspecified or ours.is_unspecified:
        return bound.version == ours.version or bound.version == 6  # [::] may be dual stack
    return bound == ours


def _holds(process: Path, wanted: set[str]) -> bool:
    try:
        with os.scandir(process / "fd") as entries:
            return any(_target(entry.path) in wanted for entry in entries)
    except OSError:
        return False  # it has ended, or is not ours to see


def _target(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""  # closed meanwhile


def _command(process: Path) -> str:
    try:
        words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
    words = words.strip()
    return words if len(words) <= _COMMAND_MAX else words[: _COMMAND_MAX - 3] + "..."
