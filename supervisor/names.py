"""Host names to addresses, for targets and trusted sources; workers never resolve.

The supervisor asks again every ``dns_refresh`` and pushes what changed. Lookups run in the loop's
threads, so a name server that hangs holds nothing up: after the timeout the last good addresses
stay in use, and the lookup still under way is waited for by the next call instead of piling up.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Callable, Iterable

Log = Callable[[str, str, dict[str, str]], None]  # level, message, fields


def _to_logging(level: str, message: str, fields: dict[str, str]) -> None:
    """Where no other log is given: the standard one."""
    detail = " ".join(f"{key}={value}" for key, value in fields.items())
    logging.getLogger("proxyctl").log(logging.getLevelName(level.upper()), "%s %s", message, detail)


class Resolver:
    """Resolves names and remembers what each one last resolved to.

    ``log`` is told once when a name stops resolving, and once when it resolves again.
    """

    def __init__(self, log: Log = _to_logging) -> None:
        self._log = log
        self._good: dict[str, tuple[str, ...]] = {}
        self._failing: set[str] = set()
        self._lookups: dict[str, asyncio.Task[tuple[str, ...]]] = {}

    async def resolve(self, names: Iterable[str], timeout_s: float) -> dict[str, tuple[str, ...]]:
        """The IP addresses of every name, IPv4 before IPv6, each in ascending order.

        A name that fails keeps the addresses that it last had; () if it never had any. All names
        together take at most ``timeout_s``. Raises nothing.
        """
        wanted = list(dict.fromkeys(names))
        for name in self._good.keys() - set(wanted):
            del self._good[name]
        self._failing &= set(wanted)
        for name in wanted:
            if name not in self._lookups:
                self._lookups[name] = asyncio.ensure_future(_look_up(name))
        if wanted:
            await asyncio.wait([self._lookups[name] for name in wanted], timeout=timeout_s)
        for name in wanted:
            self._take(name, timeout_s)
        return {name: self._good.get(name, ()) for name in wanted}

    def _take(self, name: str, timeout_s: float) -> None:
        lookup = self._lookups[name]
        if not lookup.done():
            self._fail(name, f"no answer within {timeout_s:g} s")
            return
        del self._lookups[name]
        try:
            addresses = lookup.result()
        # ValueError: a label over 63 bytes (UnicodeError), or a NUL in the name.
        except (OSError, ValueError, asyncio.CancelledError) as error:
            self._fail(name, str(error) or type(error).__name__)
            return
        if not addresses:
            self._fail(name, "no address")
            return
        self._good[name] = addresses
        if name in self._failing:
            self._failing.discard(name)
            self._log("info", "name resolves again", {"name": name})

    def _fail(self, name: str, reason: str) -> None:
        if name in self._failing:
            return
        self._failing.add(name)
        kept = self._good.get(name)
        what = "the last good addresses stay in use" if kept else "it counts as down"
        self._log("warning", f"name does not resolve, {what}", {"name": name, "reason": reason})


async def _look_up(name: str) -> tuple[str, ...]:
    loop = asyncio.get_running_loop()
    # SOCK_STREAM: else the same address comes once per socket type.
    found = await loop.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    addresses = {str(entry[4][0]) for entry in found}
    return tuple(sorted(addresses, key=_order))


def _order(address: str) -> tuple[int, int, str]:
    parsed = ipaddress.ip_address(address)
    return parsed.version, int(parsed), address  # the text tells scopes of fe80:: apart
