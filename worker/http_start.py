"""How a connection comes to speak HTTP: from its first bytes, or behind its TLS handshake."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.connection_state import Event
from worker.handshake import ClientHandshake
from worker.http_client import HttpClient

if TYPE_CHECKING:
    from worker.connection import Connection
    from worker.generation import Route


def begin_http(conn: Connection) -> None:
    """From now on requests choose their routes; ``conn.pending`` has what was read of the first."""
    conn.move(Event.NEEDS_REQUEST)
    conn.guard = None  # what begins a PROXY header begins no request
    conn.phase = client = HttpClient(conn)
    client.begin()


def shake_for_http(conn: Connection, route: Route) -> None:
    """Shake hands as this route asks; which one a request is for is known behind that."""
    facts, terminator = conn.tls, route.terminator
    assert facts is not None  # such a route is found by a ClientHello alone
    assert terminator is not None
    facts.plan = route.plan.terminate
    conn.move(Event.NEEDS_TLS)
    conn.phase = shaking = ClientHandshake(conn, facts, route.tls_handshake_s)
    shaking.begin(terminator)
