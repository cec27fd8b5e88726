"""The state machine of a connection: every state with every event."""

from __future__ import annotations

from itertools import product
from typing import Final

import pytest

from shared.errors import InternalError
from worker.connection_state import Event, State, step

# Written out by hand, so that a move that slips into the table is seen here.
MOVES: Final = {
    (State.ACCEPTED, Event.NEEDS_HEADER): State.PROXY_HEADER,
    (State.ACCEPTED, Event.NEEDS_BYTES): State.PREFACE,
    (State.ACCEPTED, Event.ROUTED): State.CONNECTING,
    (State.ACCEPTED, Event.END): State.CLOSED,
    (State.PROXY_HEADER, Event.NEEDS_BYTES): State.PREFACE,
    (State.PROXY_HEADER, Event.ROUTED): State.CONNECTING,
    (State.PROXY_HEADER, Event.END): State.CLOSED,
    (State.PREFACE, Event.NEEDS_TLS): State.TLS_HANDSHAKE,
    (State.PREFACE, Event.NEEDS_REQUEST): State.EXCHANGING,
    (State.PREFACE, Event.ROUTED): State.CONNECTING,
    (State.PREFACE, Event.END): State.CLOSED,
    (State.TLS_HANDSHAKE, Event.NEEDS_REQUEST): State.EXCHANGING,
    (State.TLS_HANDSHAKE, Event.ROUTED): State.CONNECTING,
    (State.TLS_HANDSHAKE, Event.END): State.CLOSED,
    (State.CONNECTING, Event.CONNECTED): State.RELAYING,
    (State.CONNECTING, Event.END): State.CLOSED,
    (State.RELAYING, Event.SIDE_ENDED): State.HALF_CLOSED,
    (State.RELAYING, Event.LINGER): State.CLOSING,
    (State.RELAYING, Event.END): State.CLOSED,
    (State.HALF_CLOSED, Event.LINGER): State.CLOSING,
    (State.HALF_CLOSED, Event.END): State.CLOSED,
    (State.EXCHANGING, Event.ROUTED): State.CONNECTING,
    (State.EXCHANGING, Event.CONNECTED): State.RELAYING,
    (State.EXCHANGING, Event.END): State.CLOSED,
    (State.CLOSING, Event.END): State.CLOSED,
    (State.CLOSED, Event.END): State.CLOSED,
}
PAIRS: Final = list(product(State, Event))


@pytest.mark.parametrize(("state", "event"), PAIRS, ids=lambda value: str(value.name))
def test_every_pair_moves_as_listed_or_is_our_bug(state: State, event: Event) -> None:
    """A listed pair gives its state, any other raises InternalError that names both."""
    expected = MOVES.get((state, event))
    if expected is not None:
        assert step(state, event) is expected
        return
    with pytest.raises(InternalError, match=f"{event.name} in {state.name}"):
        step(state, event)


def test_every_state_can_end() -> None:
    """From every state one event leads to CLOSED, and nothing leads out of it again."""
    assert all(step(state, Event.END) is State.CLOSED for state in State)
    assert {event for (state, event) in MOVES if state is State.CLOSED} == {Event.END}


def test_every_state_can_be_reached() -> None:
    """No state of the machine is dead."""
    reached = {State.ACCEPTED}
    for _ in State:
        reached |= {after for (before, _), after in MOVES.items() if before in reached}
    assert reached == set(State)
