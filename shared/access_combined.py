"""Lines of the access log in the combined format of Apache and nginx.

    client - user [10/Oct/2026:13:55:36 +0000] "GET /a?b HTTP/1.1" 200 2326 "referer" "user agent"

Apache's mod_log_config calls it ``combined``, nginx's log module too; the time is UTC. A connection
that is no request has ``"-" 000 sent "-" "-"``.
"""

from __future__ import annotations

from typing import Final

from shared.access_entry import (
    Entry,
    LineMaker,
    RequestEntry,
    path_of,
    protocol_of,
    value_of,
)
from shared.access_text import Remembered, plain_name, quoted, value_quoted

_MONTHS: Final = (
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
)  # fmt: skip
_NO_STATUS: Final = "000"  # as Squid has it: nobody was sent any


def combined_lines() -> LineMaker:
    """Lines in the combined format; "-" for what there was not."""
    seconds = Remembered(_clock)
    values = Remembered(value_quoted)

    def line(time: str, entry: Entry | RequestEntry) -> str:
        if len(entry) == 5:
            base, request, status, _, user = entry
        else:
            base, request, status, user = entry, None, 0, None
        ip = base[2][0]
        client = plain_name(ip) if ip else "-"  # a zone (%eth0) may hold anything
        first = referer = agent = "-"
        if request is not None and request.method:
            first = f"{quoted(request.method)} {quoted(path_of(request))} {protocol_of(request)}"
            referer = values[value_of(request, b"referer")]
            agent = values[value_of(request, b"user-agent")]
        who = quoted(user).replace(" ", "\\x20")  # not between quotes
        return (
            f'{client} - {who} [{seconds[time[:19]]}] "{first}" {status or _NO_STATUS} {base[9]}'
            f' "{referer}" "{agent}"\n'
        )

    return line


def _clock(time: str) -> str:
    """``2026-10-10T13:55:36`` as ``10/Oct/2026:13:55:36 +0000``."""
    return f"{time[8:10]}/{_MONTHS[int(time[5:7]) - 1]}/{time[:4]}:{time[11:]} +0000"
