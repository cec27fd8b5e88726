"""A target that sends back what it gets: ``python -m loadtests.echo_target PORT [TLS_PORT CERT]``.

CERT has certificate and key for the second port, which speaks TLS.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from typing import cast

import uvloop


class Echo(asyncio.Protocol):
    """One connection. The end of the client's bytes ends the echo once all of it is out."""

    _transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but class

    def data_received(self, data: bytes) -> None:
        """Send it back."""
        self._transport.write(data)

    def pause_writing(self) -> None:
        """The other side reads slowly: read no more meanwhile."""
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Read on."""
        self._transport.resume_reading()


async def serve(port: int, tls_port: int = 0, certificate: str = "") -> None:
    """Echo on 127.0.0.1 until the process is ended."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, "127.0.0.1", port, backlog=4096)
    if tls_port:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        await loop.create_server(Echo, "127.0.0.1", tls_port, backlog=4096, ssl=context)
    await server.serve_forever()


if __name__ == "__main__":
    words = sys.argv[1:]
    uvloop.run(serve(int(words[0]), *((int(words[1]), words[2]) if len(words) > 1 else ())))
