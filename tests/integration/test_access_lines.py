"""What a line of the access log says of a connection, in a real data plane."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Final

import pytest

from shared.plan import AccessPlan, ProxyPolicy
from tests.data_plane_harness import route, running
from tests.data_plane_sockets import read_to_end
from tests.helpers.waiting import wait_until

MAY_SEND_HEADER: Final = ProxyPolicy(trusted=("127.0.0.0/8",), required=False)


@pytest.mark.parametrize("speaks_first", [True, False], ids=["target", "client"])
def test_the_first_byte_of_the_target_has_its_instant(tmp_path: Path, speaks_first: bool) -> None:
    """Bytes both ways, and a time to the first byte, whoever speaks first; FIN alone has none."""
    file = tmp_path / "access.log"
    with running() as plane:
        listener, target = plane.listen(), plane.target()
        plane.commit(route("r", listener, target), access=AccessPlan(file=str(file)))
        for answer in (b"hello", b""):
            client = plane.connect(listener)
            if not speaks_first:
                client.sendall(b"request")
            server = target.accept()
            server.sendall(answer)
            server.close() if speaks_first else server.shutdown(socket.SHUT_WR)
            assert read_to_end(client) == answer
            client.close()
            server.close()
            wait_until(lambda: plane.plane.connections == 0, "the end")
        wait_until(lambda: file.read_text().count("\n") == 2, "two lines")
        spoken, silent = (json.loads(line) for line in file.read_text().splitlines())
        assert spoken["sent"] == 5
        assert 0 <= spoken["t_first_byte"] <= spoken["t_total"]
        assert silent["sent"] == 0
        assert silent["t_first_byte"] is None
        assert {spoken["received"], silent["received"]} == {0 if speaks_first else 7}


@pytest.mark.parametrize(
    ("header", "client", "destination"),
    [
        (b"PROXY TCP4 203.0.113.7 192.0.2.1 5000 443\r\n", "203.0.113.7:5000", "192.0.2.1:443"),
        (b"PROXY TCP6 2001:db8::7 2001:db8::1 5000 443\r\n",
         "[2001:db8::7]:5000", "[2001:db8::1]:443"),
        (b"PROXY UNKNOWN\r\n", "", ""),
        (b"", "", ""),
    ],
    ids=["IPv4", "IPv6", "UNKNOWN", "none"],
)  # fmt: skip
def test_a_line_has_the_words_of_the_header(
    tmp_path: Path, header: bytes, client: str, destination: str
) -> None:
    """Client and destination of the header, the peer beside them, and the time that it took."""
    file = tmp_path / "access.log"
    with running() as plane:
        listener, target = plane.listen(MAY_SEND_HEADER), plane.target()
        plane.commit(route("r", listener, target), access=AccessPlan(file=str(file)))
        sock = plane.connect(listener)
        peer = f"127.0.0.1:{sock.getsockname()[1]}"
        sock.sendall(header + b"request")
        server = target.accept()
        assert server.recv(64) == b"request"
        server.sendall(b"hello")
        server.close()
        assert read_to_end(sock) == b"hello"
        sock.close()
        wait_until(lambda: file.read_text().count("\n") == 1, "a line")
        line = json.loads(file.read_text())
        assert (line["peer"], line["client"]) == (peer, client or peer)
        assert line["destination"] == (destination or f"127.0.0.1:{listener.port}")
        assert 0 <= line["t_proxy"] <= line["t_total"]
        assert (line["received"], line["sent"]) == (7, 5)
