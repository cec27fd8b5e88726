"""Who listens on a port, on a host with many connections."""

from __future__ import annotations

import contextlib
import os
import socket
import tracemalloc

from supervisor import port_owner

CONNECTIONS = 400
PEAK_BYTES = 96 * 1024  # the table has 150 bytes for each end of each connection


def test_the_listener_is_found_without_holding_the_whole_table() -> None:
    """The process is named, and what that takes does not grow with the connections there are."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=64))
        address = listener.getsockname()
        for _ in range(CONNECTIONS):
            stack.enter_context(socket.create_connection(address))
            stack.enter_context(listener.accept()[0])
        port_owner.find(*address)  # what is imported and compiled once
        tracemalloc.start()
        stack.callback(tracemalloc.stop)
        owner = port_owner.find(*address)
        _, peak = tracemalloc.get_traced_memory()
        assert owner is not None
        assert owner[0] == os.getpid()
        assert peak < PEAK_BYTES
