"""Max-Forwards: how many more proxies a TRACE or OPTIONS may pass (RFC 9110 section 7.6.2)."""

from __future__ import annotations

from typing import Final

from shared.errors import HttpError
from shared.http.head import Request

HOPS_ARE_LIMITED: Final = frozenset({"TRACE", "OPTIONS"})
NO_LIMIT: Final = -1
MOST_HOPS: Final = 255  # that are passed on: our own maximum, which the section asks for
_MAX_DIGITS: Final = 20


def hops_left(request: Request) -> int:
    """What a request of these methods says; 0: it goes no further; NO_LIMIT: nothing is said.

    HttpError(400) for what is no single number.
    """
    values = request.fields.named.get(b"max-forwards")
    if values is None:
        return NO_LIMIT
    value = values[0]
    if len(values) > 1 or not value.isdigit() or len(value) > _MAX_DIGITS:
        raise HttpError(400, "Max-Forwards is no number (RFC 9110 section 7.6.2)")
    return min(int(value), MOST_HOPS + 1)
