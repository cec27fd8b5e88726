"""What was worked out of a field block alone, remembered by that block.

Whoever remembers has a key of its own, a number, so that nothing of an earlier generation is kept
alive by a block that is still in use.
"""

from __future__ import annotations

from itertools import count
from typing import Final

from shared.http.head import Fields

# Of one block. There are at most 1,024 blocks of at most 4 KiB: 16 MiB where each of them is used
# on four routes with rules.
MEMO_ENTRIES: Final = 4

_keys: Final = count(1)


def new_key() -> int:
    """A key that nobody else has."""
    return next(_keys)


def remember(fields: Fields, key: int, found: object) -> None:
    """Keep ``found`` under this key; what was kept before may be dropped for it."""
    memo = fields.memo
    if len(memo) >= MEMO_ENTRIES:
        memo.clear()
    memo[key] = found
