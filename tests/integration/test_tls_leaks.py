"""Connections with TLS leave nothing behind, however they end, and need no garbage collector."""

from __future__ import annotations

import gc
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from shared.plan import ListenerPlan, TlsPlan, UpstreamTlsPlan
from tests.data_plane_harness import Plane, route, running
from tests.data_plane_sockets import Target, reset
from tests.helpers.certificates import Authority
from tests.helpers.tls_pairs import authority_plan, certificate_plan
from tests.helpers.waiting import wait_until
from worker.client_tls import ClientTls
from worker.coded_side import CodedSide
from worker.connection import Connection
from worker.dial import Dial
from worker.handshake import ClientHandshake, TargetHandshake
from worker.openssl_form import INCOMING, OUTGOING
from worker.preface import PrefaceReader
from worker.tls_engine import Tls

NAME: Final = "leaks.example"
KINDS: Final = (
    Connection, CodedSide, ClientTls, ClientHandshake, TargetHandshake, Dial, PrefaceReader, Tls,
)  # fmt: skip


class Scenes:
    """A listener that ends TLS, one that begins it anew, and one method per way to end."""

    def __init__(self, plane: Plane, directory: Path) -> None:
        authority = Authority(directory, "ca")
        files = authority.leaf(NAME, key="ec")
        self.plane = plane
        self.target = plane.target()
        self.ending, self.anew, self.broken, self.hasty = (plane.listen() for _ in range(4))
        terminate = TlsPlan(certificates=(0,))
        upstream = UpstreamTlsPlan(ca=0, server_name=NAME)
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.server.load_cert_chain(files.cert, files.key)
        begun_anew = (
            ("anew", self.anew, self.serving(self._echo)),
            ("broken", self.broken, self.target),
            ("hasty", self.hasty, self.serving(self._break_off)),
        )
        plane.commit(
            route("end", self.ending, self.target, tls=True, terminate=terminate),
            *(
                route(
                    name,
                    listener,
                    target,
                    tls=True,
                    terminate=terminate,
                    upstream_tls=upstream,
                    order=order,
                )
                for order, (name, listener, target) in enumerate(begun_anew, 1)
            ),
            certificates=[certificate_plan(files, [NAME])],
            authorities=[authority_plan(authority)],
        )
        self.client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.client.load_verify_locations(authority.cert)

    def serving(self, talk: Callable[[socket.socket], None]) -> Target:
        """A target whose connections each have a thread that ends with its socket."""
        target = self.plane.target()

        def serve() -> None:
            while True:
                try:
                    sock, _ = target.sock.accept()
                except OSError:
                    return
                threading.Thread(target=talk, args=(sock,), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        return target

    def _echo(self, sock: socket.socket) -> None:
        """Speak TLS, and send back what comes."""
        try:
            with self.server.wrap_socket(sock, server_side=True) as server:
                while data := server.recv(65536):
                    server.sendall(data)
        except OSError:
            pass

    def _break_off(self, sock: socket.socket) -> None:
        """Speak before the handshake is done, and reset at once."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        server = self.server.wrap_bio(incoming, outgoing, server_side=True)
        incoming.write(sock.recv(65536))
        try:
            server.do_handshake()
        except ssl.SSLWantReadError:
            pass
        sock.sendall(outgoing.read() + b"\x17\x03\x03\x00\x20" + bytes(32))
        reset(sock)

    def _shaken(self, listener: ListenerPlan) -> ssl.SSLSocket:
        sock = self.plane.connect(listener)
        return self.client.wrap_socket(sock, server_hostname=NAME)

    def an_echo(self) -> None:
        """A message there and back, and a proper end."""
        client = self._shaken(self.ending)
        server = self.target.accept()
        client.sendall(b"ping")
        assert server.recv(4) == b"ping"
        server.sendall(b"pong")
        assert client.recv(4) == b"pong"
        server.close()
        assert client.recv(1) == b""
        client.close()

    def anew_with_bulk(self) -> None:
        """TLS on both sides."""
        client = self._shaken(self.anew)
        data = bytes(3_000_000)
        sender = threading.Thread(target=client.sendall, args=(data,))
        sender.start()
        left = len(data)
        while left:
            left -= len(client.recv(1 << 16))
        sender.join()
        client.close()

    def a_reset_in_the_handshake(self) -> None:
        """Half a handshake, then RST."""
        sock = self.plane.connect(self.ending)
        sock.sendall(_hello(self.client))
        assert sock.recv(10)
        reset(sock)

    def garbage_in_the_handshake(self) -> None:
        """A ClientHello, and what is no TLS behind it."""
        sock = self.plane.connect(self.ending)
        sock.sendall(_hello(self.client))
        assert sock.recv(10)
        sock.sendall(b"garbage" * 100)
        while sock.recv(65536):
            pass
        sock.close()

    def half_a_hello(self) -> None:
        """FIN within the ClientHello."""
        sock = self.plane.connect(self.ending)
        sock.sendall(_hello(self.client)[:100])
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(1) == b""
        sock.close()

    def a_target_without_tls(self) -> None:
        """It answers the ClientHello with something else."""
        client = self._shaken(self.broken)
        server = self.target.accept()
        server.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        assert client.recv(1) == b""
        client.close()
        server.close()

    def an_end_and_a_reset_in_one_batch(self) -> None:
        """The target's FIN is seen first: the close_notify for the client meets its RST."""
        client = self._shaken(self.ending)
        server = self.target.accept()
        client.sendall(b"ping")
        assert server.recv(4) == b"ping"

        def both() -> None:
            server.close()
            reset(client)

        self.plane.call(both)

    def a_target_that_breaks_off(self) -> None:
        """Its flight with more behind it, then RST, before our Finished is sent."""
        sock = self.plane.connect(self.hasty)
        with self.client.wrap_socket(sock, server_hostname=NAME) as client:
            try:
                assert client.recv(1) == b""
            except OSError:
                pass

    def a_reset_of_the_target(self) -> None:
        """RST in the middle of the relay."""
        client = self._shaken(self.ending)
        reset(self.target.accept())
        try:
            assert client.recv(1) == b""
        except OSError:
            pass
        client.close()


def _hello(context: ssl.SSLContext) -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    connection = context.wrap_bio(incoming, outgoing, server_hostname=NAME)
    try:
        connection.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()


def _has_ended(plane: Plane, before: int) -> bool:
    return plane.cells[2] > before


def objects() -> Counter[str]:
    """How many objects of connections are alive."""
    return Counter(type(one).__name__ for one in gc.get_objects() if isinstance(one, KINDS))


def test_nothing_is_left_of_any_end(tmp_path: Path) -> None:
    """Reference counts alone free all of a connection, and the shared BIOs are empty."""
    with running() as plane:
        scenes = Scenes(plane, tmp_path)
        methods: list[Callable[[], None]] = [
            scenes.an_echo,
            scenes.anew_with_bulk,
            scenes.a_reset_in_the_handshake,
            scenes.garbage_in_the_handshake,
            scenes.half_a_hello,
            scenes.a_target_without_tls,
            scenes.a_reset_of_the_target,
            scenes.an_end_and_a_reset_in_one_batch,
            scenes.a_target_that_breaks_off,
        ]
        gc.collect()
        gc.disable()
        try:
            for scene in methods * 3:
                before = plane.cells[2]
                scene()
                wait_until(partial(_has_ended, plane, before), scene.__name__)
                wait_until(lambda: plane.call(lambda: not plane.plane.touched), "the account")
                assert objects() == {}, scene.__name__
                assert INCOMING.pending == OUTGOING.pending == 0
        finally:
            gc.enable()
        assert set(plane.ends()) >= {"target_closed", "client_gone", "tls_failed", "connect_failed"}
