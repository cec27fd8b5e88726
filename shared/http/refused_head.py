"""What can be told of a request whose head was refused: for the log and an error page alone."""

from __future__ import annotations

import re
from typing import Final

from shared.http.head import Request

# As far as a line can be read at all; visible ASCII, so that it is safe wherever it is told.
_LINE: Final = re.compile(
    rb"(?:\r\n)?([!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}) ([\x21-\x7e]{1,1024})(?: HTTP/1\.([01])\r)?"
)
_HOST: Final = re.compile(rb"\r\nhost:[ \t]*([\x21-\x7e]{1,255})", re.IGNORECASE)


def refused_request(head: bytes) -> Request:
    """Method, target and Host as the client wrote them; the method is "" where it wrote none.

    Nothing of it is checked: it must decide nothing. A target is cut off behind 1,024 bytes.
    """
    line = _LINE.match(head)
    if line is None:
        request = Request("", "", None, "", "", is_11=True)
    else:
        path, mark, query = line[2].decode("ascii").partition("?")
        host = _HOST.search(head)
        request = Request(
            line[1].decode("ascii"),
            path,
            query if mark else None,
            "" if host is None else host[1].decode("ascii"),
            "",
            is_11=line[3] != b"0",
        )
    request.keep_alive = False
    return request
