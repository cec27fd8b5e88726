"""Who has asked for a reload, and whether the answer has been read.

A port that leaves is to serve whoever dials before the reload has returned (design section 2), and
it has returned when its caller has the answer, which takes a busy machine its time.
"""

from __future__ import annotations

import asyncio
from typing import Final

_READ_S: Final = 5.0  # a caller that has not read its answer by then is gone


class Receipts:
    """One future per answer that its reader will acknowledge; each ends by itself."""

    def __init__(self) -> None:
        self._expected: dict[str, asyncio.Future[None]] = {}

    def expect(self, name: object) -> asyncio.Future[None] | None:
        """For a request that names its receipt; None: it names none."""
        if not isinstance(name, str) or not name:
            return None
        if name not in self._expected:
            self._expected[name] = asyncio.get_running_loop().create_future()
        return self._expected[name]

    def answered(self, name: object) -> None:
        """The answer goes out now."""
        asyncio.get_running_loop().call_later(_READ_S, self.came, name)

    def came(self, name: object) -> None:
        """The answer has been read; nothing for a name that is not expected."""
        if isinstance(name, str) and (read := self._expected.pop(name, None)) is not None:
            read.set_result(None)
