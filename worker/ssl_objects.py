"""Where objects of Python's ssl keep their pointers to OpenSSL, which is no API.

Whoever reads through one of these asks first whether there is memory at all, and then OpenSSL
whether it is what it should be.
"""

from __future__ import annotations

import _ssl
import ctypes
from pathlib import Path
from typing import Final

MAPS: Final = Path("/proc/self/maps")
FIRST_MEMBER: Final = object.__basicsize__  # of PySSLContext, PySSLMemoryBIO
SSL_MEMBER: Final = FIRST_MEMBER + ctypes.sizeof(ctypes.c_void_p)  # of PySSLSocket, the second


def module_path() -> str:
    """The file of `_ssl`, which is linked with the libssl in use; ValueError: there is none."""
    path: str | None = getattr(_ssl, "__file__", None)
    if path is None:
        raise ValueError("this Python has its ssl module built in")
    return path


def pointer_in(holder: object, at: int = FIRST_MEMBER) -> int:
    """The pointer that an object has so many bytes behind its beginning; 0 if it is too small."""
    if type(holder).__basicsize__ < at + ctypes.sizeof(ctypes.c_void_p):
        return 0
    return ctypes.c_void_p.from_address(id(holder) + at).value or 0


def is_writable(address: int) -> bool:
    """Whether this address is mapped for reading and writing: proc_pid_maps(5)."""
    for line in MAPS.read_text().splitlines():
        place, rights = line.split(" ", 2)[:2]
        first, _, end = place.partition("-")
        if int(first, 16) <= address < int(end, 16):
            return rights.startswith("rw")
    return False
