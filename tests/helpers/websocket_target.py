"""A target that reads a PROXY header and then serves a WebSocket, and keeps what came first."""

from __future__ import annotations

import socket

from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from shared.proxy_protocol import ProxyHeader
from tests.helpers.targets import Target, read_header


class WebsocketTarget(Target):
    """Sends messages back. ``openings``: the header, and the bytes of the request behind it."""

    def __init__(self) -> None:
        self.openings: list[tuple[ProxyHeader, bytes]] = []
        super().__init__(self._talk)

    def _talk(self, sock: socket.socket) -> None:
        header, received = read_header(sock)
        while b"\r\n\r\n" not in received:
            part = sock.recv(65536)
            if not part:
                return
            received += part
        head, mark, _ = received.partition(b"\r\n\r\n")
        self.openings.append((header, head + mark))
        protocol = ServerProtocol(max_size=None)
        protocol.receive_data(received)
        while True:
            self._answer(protocol)
            for data in protocol.data_to_send():
                if data:
                    sock.sendall(data)
            if protocol.close_expected() or protocol.state is State.CLOSED:
                return
            data = sock.recv(65536)
            if not data:
                return
            protocol.receive_data(data)

    def _answer(self, protocol: ServerProtocol) -> None:
        for event in protocol.events_received():
            if isinstance(event, Request):
                protocol.send_response(protocol.accept(event))
            elif isinstance(event, Frame) and event.opcode is Opcode.TEXT:
                protocol.send_text(bytes(event.data), fin=event.fin)
            elif isinstance(event, Frame) and event.opcode is Opcode.BINARY:
                protocol.send_binary(bytes(event.data), fin=event.fin)
            elif isinstance(event, Frame) and event.opcode is Opcode.CONT:
                protocol.send_continuation(bytes(event.data), fin=event.fin)
