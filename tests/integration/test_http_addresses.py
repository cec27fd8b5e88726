"""Requests by the address of the host, for whoever has no name for it."""

from __future__ import annotations

import pytest

from tests.conftest import StartProxyctl
from tests.helpers.ports import free_port
from tests.helpers.sockets import connect


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:{port}", 204),
        ("127.0.0.1", 204),
        ("[::1]:{port}", 205),
        ("[::1]", 205),
        ("127.0.0.2", 404),
        ("a.example", 404),
    ],
)
def test_an_address_is_a_host_like_any_other(
    proxyctl: StartProxyctl, host: str, status: int
) -> None:
    """With a port and without, IPv6 in brackets."""
    port = free_port()
    proxyctl(
        {
            "listen": ["127.0.0.1"],
            "admin": None,
            "routes": [
                {
                    "name": name,
                    "match": {"ports": [port], "domains": [address]},
                    "action": {"type": "respond", "status": answer},
                }
                for name, address, answer in (("four", "127.0.0.1", 204), ("six", "0::1", 205))
            ],
        },
        workers=1,
    )
    with connect(port) as client:
        client.sendall(f"GET / HTTP/1.1\r\nHost: {host.format(port=port)}\r\n\r\n".encode())
        assert client.recv(100).startswith(b"HTTP/1.1 %d" % status)
