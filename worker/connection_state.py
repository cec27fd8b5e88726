"""The states of a connection and every move between them. All moves live here.

    ACCEPTED -> PROXY_HEADER -> PREFACE -> TLS_HANDSHAKE -> CONNECTING
             -> RELAYING -> HALF_CLOSED -> CLOSING -> CLOSED

HTTP stays in EXCHANGING from its first head on, until an upgrade makes a relay of it.

PROXY_HEADER, PREFACE, TLS_HANDSHAKE, HALF_CLOSED and CLOSING may be skipped, and every state has a
way to CLOSED. CLOSING means that nothing more is read and what is queued still goes out. What is
not in the table is our bug.
"""

from __future__ import annotations

from enum import IntEnum, auto
from typing import Final

from shared.errors import InternalError


class State(IntEnum):
    """Where a connection is; each state has its timeout (`Connection.on_deadline`)."""

    ACCEPTED = 0
    PROXY_HEADER = auto()
    PREFACE = auto()
    TLS_HANDSHAKE = auto()
    CONNECTING = auto()
    RELAYING = auto()
    HALF_CLOSED = auto()
    EXCHANGING = auto()
    CLOSING = auto()
    CLOSED = auto()


class Event(IntEnum):
    """What moves it."""

    NEEDS_HEADER = 0  # the peer is trusted: a PROXY header comes first
    NEEDS_BYTES = auto()  # a candidate route can only be judged by the first bytes
    NEEDS_TLS = auto()  # the route is chosen, and ends TLS
    NEEDS_REQUEST = auto()  # it speaks HTTP: routes are chosen by request
    ROUTED = auto()  # the route is chosen, the dial begins
    CONNECTED = auto()  # the target is there
    SIDE_ENDED = auto()  # one side sent FIN
    LINGER = auto()  # it is over, but bytes are still queued
    END = auto()


_MOVES: Final = {
    State.ACCEPTED: {
        Event.NEEDS_HEADER: State.PROXY_HEADER,
        Event.NEEDS_BYTES: State.PREFACE,
        Event.ROUTED: State.CONNECTING,
        Event.END: State.CLOSED,
    },
    State.PROXY_HEADER: {
        Event.NEEDS_BYTES: State.PREFACE,
        Event.ROUTED: State.CONNECTING,
        Event.END: State.CLOSED,
    },
    State.PREFACE: {
        Event.NEEDS_TLS: State.TLS_HANDSHAKE,
        Event.NEEDS_REQUEST: State.EXCHANGING,
        Event.ROUTED: State.CONNECTING,
        Event.END: State.CLOSED,
    },
    State.TLS_HANDSHAKE: {
        Event.NEEDS_REQUEST: State.EXCHANGING,
        Event.ROUTED: State.CONNECTING,
        Event.END: State.CLOSED,
    },
    State.CONNECTING: {
        Event.CONNECTED: State.RELAYING,
        Event.END: State.CLOSED,
    },
    State.RELAYING: {
        Event.SIDE_ENDED: State.HALF_CLOSED,
        Event.LINGER: State.CLOSING,
        Event.END: State.CLOSED,
    },
    State.HALF_CLOSED: {
        Event.LINGER: State.CLOSING,
        Event.END: State.CLOSED,
    },
    State.EXCHANGING: {
        Event.ROUTED: State.CONNECTING,
        Event.CONNECTED: State.RELAYING,
        Event.END: State.CLOSED,
    },
    State.CLOSING: {
        Event.END: State.CLOSED,
    },
    State.CLOSED: {
        Event.END: State.CLOSED,  # a late end of a dead connection is normal
    },
}

# Two indexings of tuples: a connection makes four moves, so a dict of pairs would be felt.
_TABLE: Final = tuple(tuple(_MOVES[state].get(event) for event in Event) for state in State)


def step(state: State, event: Event) -> State:
    """The next state; InternalError for a move that the table does not have."""
    after = _TABLE[state][event]
    if after is None:
        raise InternalError(f"{event.name} in {state.name}")
    return after
