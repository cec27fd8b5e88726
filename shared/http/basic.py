"""Basic authentication (RFC 7617): what a client sends, and what it is asked with.

Strict, as all that is read of a request: a value that two readers could take for different users
is none.
"""

from __future__ import annotations

import re
from binascii import a2b_base64, b2a_base64
from typing import Final

MAX_BYTES: Final = 4096  # of the field; more than a browser lets anyone type twice over

_CONTROL: Final = re.compile(rb"[\x00-\x1f\x7f]")  # CTL of RFC 5234 appendix B.1
_UNQUOTABLE: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")  # RFC 9110 section 5.6.4
_SPECIAL: Final = re.compile(r'["\\]')


def parse_basic(value: bytes) -> tuple[str, str] | None:
    """(user, password) of the value of an Authorization field; None: it is not of this form.

    The scheme may be in upper case, with blanks after it (RFC 9110 section 11.4). The rest is
    Base64 with its padding and without a bit too many, of UTF-8 without control characters
    (RFC 7617 section 2). A user's name is not empty and has no colon, a password may.
    """
    if len(value) > MAX_BYTES or value[:6].lower() != b"basic ":
        return None
    token = value[6:].lstrip(b" ")
    try:
        pair = a2b_base64(token)
        text = pair.decode()
    except ValueError:  # binascii.Error and UnicodeDecodeError are such
        return None
    # The decoder skips what is no digit, and the bits behind the last byte: neither is taken
    # (RFC 4648 sections 3.3 and 3.5).
    if b2a_base64(pair, newline=False) != token or _CONTROL.search(pair) is not None:
        return None
    user, colon, password = text.partition(":")
    if not colon or not user:
        return None
    return user, password


def challenge(realm: str) -> bytes:
    """The value of WWW-Authenticate for this realm (RFC 7617 section 2.1).

    ValueError for a control character, which no quoted string can have.
    """
    if _UNQUOTABLE.search(realm) is not None:
        raise ValueError("a realm has no control characters")
    quoted = _SPECIAL.sub(r"\\\g<0>", realm)
    return f'Basic realm="{quoted}", charset="UTF-8"'.encode()
