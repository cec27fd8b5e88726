"""The web server of a load run: it sends back bodies and messages, and shakes hands properly."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.uri import parse_uri

from loadtests.http_echo import read_message
from loadtests.http_target import connection

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def talk_to_it(talk: Talk) -> None:
    """Have ``talk`` with the server, over a connection of its own."""

    async def run() -> None:
        server = await asyncio.start_server(connection, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.timeout(10):
            await talk(reader, writer)
            writer.close()
            await writer.wait_closed()
        server.close()

    asyncio.run(run())


def test_bodies_come_back() -> None:
    """On one connection, with a length and in chunks."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = b"POST /echo HTTP/1.1\r\nHost: a\r\n"
        for framed in (
            b"Content-Length: 5\r\n\r\nhello",
            b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
        ):
            writer.write(head + framed)
            answer = await read_message(reader)
            assert (answer.words[1], answer.body) == ("200", b"hello")

    talk_to_it(talk)


def test_messages_come_back() -> None:
    """The client finds the handshake right, has its message again, and a proper end."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        protocol = ClientProtocol(parse_uri("ws://a/echo"))

        async def events() -> list[object]:
            writer.writelines(protocol.data_to_send())
            while not (found := protocol.events_received()):
                protocol.receive_data(await reader.read(65536))
            return list(found)

        protocol.send_request(protocol.connect())
        await events()
        assert protocol.state is State.OPEN
        protocol.send_binary(b"message")
        (message,) = await events()
        assert isinstance(message, Frame)
        assert (message.opcode, bytes(message.data)) == (Opcode.BINARY, b"message")
        protocol.send_close(1000)
        (end,) = await events()
        assert isinstance(end, Frame)
        assert end.opcode is Opcode.CLOSE
        assert await reader.read() == b""

    talk_to_it(talk)
