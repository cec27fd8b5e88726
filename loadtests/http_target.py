"""A web server of a load run: ``python -m loadtests.http_target PORT``.

Sends back bodies, and on a WebSocket messages.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Final

import uvloop
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from loadtests.http_echo import LIMIT, Message, Torn, read_message

CHUNK: Final = 65536


async def serve(port: int) -> None:
    """Listen on 127.0.0.1 until the process is ended."""
    server = await asyncio.start_server(connection, "127.0.0.1", port, limit=LIMIT, backlog=4096)
    await server.serve_forever()


async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One client: requests, and perhaps a WebSocket behind them."""
    try:
        while "upgrade" not in (asked := await read_message(reader)).fields:
            head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(asked.body)}\r\n\r\n"
            writer.write(head.encode() + asked.body)
            await writer.drain()
        await _talk(asked, reader, writer)
    except (ConnectionError, Torn):
        writer.close()  # the other side has ended
    finally:
        writer.close()


async def _talk(asked: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """From the handshake to the end of a WebSocket."""
    protocol = ServerProtocol(max_size=None)
    fields = "".join(f"{name}: {value}\r\n" for name, value in asked.fields.items())
    data = f"{' '.join(asked.words)}\r\n{fields}\r\n".encode()
    while data and protocol.state is not State.CLOSED:
        protocol.receive_data(data)
        for event in protocol.events_received():
            if isinstance(event, Request):
                protocol.send_response(protocol.accept(event))
            elif isinstance(event, Frame) and event.opcode is Opcode.BINARY:
                protocol.send_binary(bytes(event.data))
        writer.writelines(protocol.data_to_send())
        await writer.drain()
        if protocol.close_expected():
            return
        data = await reader.read(CHUNK)


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
