"""What the admin listener tells beside the counters: facts of the supervisor itself."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

WARN_DAYS: Final = 21  # before a certificate expires


class Facts(Struct, frozen=True, kw_only=True):
    """The state of the supervisor at one moment.

    ``reloads_ok`` and ``reloads_refused`` count reloads since the start, the start itself not
    among them. ``last_reload_at`` is seconds since the epoch of the last generation that was
    accepted or refused, 0 before the first.
    """

    version: str
    generation: int
    reloads_ok: int = 0
    reloads_refused: int = 0
    last_reload_ok: bool = True
    last_reload_at: float = 0.0
    draining_connections: int = 0


class WorkerLoad(Struct, frozen=True):
    """Of one slot: connections that its workers accepted since the start, and that are open now."""

    accepted: int = 0
    connections: int = 0
