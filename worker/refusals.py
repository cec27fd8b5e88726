"""Log lines about connections that were refused or failed, and about bugs that ended them: why, and
a few a second at the most.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from shared.access_format import address_text
from shared.ends import End
from worker.gate import ENDS

if TYPE_CHECKING:
    from worker.connection import Address, Connection
    from worker.gate import Gate
    from worker.listener import Listener

Log = Callable[[str, str, dict[str, str]], None]  # level, message, fields

NOTES_A_SECOND: Final = 5  # lines per reason; how many more there were is said in one line

# What is refused or fails here gets a line; how peers end their connections is only counted.
LOGGED: Final = frozenset(
    {
        End.PROXY_HEADER_INVALID,
        End.PROXY_HEADER_MISSING,
        End.PROXY_HEADER_TIMEOUT,
        End.PROXY_HEADER_UNTRUSTED,
        End.PROXY_LOCAL,
        End.NO_ROUTE,
        End.BLOCKED,
        End.LIMIT,
        End.RATE,
        End.PREFACE_TIMEOUT,
        End.TLS_FAILED,
        End.TLS_TIMEOUT,
        End.TLS_ON_PLAIN,
        End.PLAIN_ON_TLS,
        End.BAD_REQUEST,
        End.BAD_ANSWER,
        End.CONNECT_FAILED,
        End.CONNECT_TIMEOUT,
        End.OVERLOAD,
    }
)


class Refusals:
    """The lines of this second, by reason. ``id_prefix`` begins every connection's id."""

    def __init__(self, id_prefix: str, log: Log, now: float) -> None:
        self._id_prefix = id_prefix
        self._log = log
        self._written: dict[str, int] = {}
        self._since = now

    def ended(self, conn: Connection, end: End, detail: str) -> None:
        """A connection was refused, or failed here."""
        if not self._has_room(end):
            return
        fields = self._fields(conn.number, conn.listener, conn.peer_address)
        if conn.header is not None and conn.header.has_addresses:
            fields["client"] = address_text(conn.client)
        if conn.route is not None:
            fields["route"] = conn.route.name
        self._note(end, fields, detail)

    def refused(
        self, number: int, listener: Listener, peer: Address, refusal: int, gate: Gate
    ) -> None:
        """A connection was closed at accept, before there was a record of it."""
        end = ENDS[refusal]
        if self._has_room(end):
            self._note(end, self._fields(number, listener, peer), gate.why(refusal, peer[0]))

    def bug(self, what: str, exc: Exception, conn: Connection | None = None) -> None:
        """Our own mistake, with its trace; a client that has found one may come again and again."""
        if not self._has_room(End.INTERNAL_ERROR):
            return
        fields = {"traceback": "".join(traceback.format_exception(exc))}
        if conn is not None:
            fields |= {"component": "connection", "id": f"{self._id_prefix}{conn.number}"}
        self._log("error", f"{what}: {exc!r}", fields)

    def _has_room(self, end: End) -> bool:
        written = self._written.get(end, 0)
        self._written[end] = written + 1
        return written < NOTES_A_SECOND

    def _fields(self, number: int, listener: Listener, peer: Address) -> dict[str, str]:
        return {
            "component": "connection",
            "id": f"{self._id_prefix}{number}",
            "listener": listener.name,
            "peer": address_text(peer),  # "": a Unix socket's has no address
        }

    def _note(self, end: End, fields: dict[str, str], detail: str) -> None:
        fields["end"] = str(end)
        if detail:
            fields["detail"] = detail
        self._log("warning", f"connection refused: {end}", fields)

    def tick(self, now: float) -> None:
        """Once a second, say what was left out."""
        if now >= self._since + 1.0:
            self.tell()
            self._since = now

    def tell(self) -> None:
        """Say what was left out so far."""
        for end, written in self._written.items():
            if written > NOTES_A_SECOND:
                more = written - NOTES_A_SECOND
                fields = {"end": end, "component": "connection"}
                lines = "line" if more == 1 else "lines"
                self._log("warning", f"connections refused: {more} more {lines} like it", fields)
        self._written = {}
