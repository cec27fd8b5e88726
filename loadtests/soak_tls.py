"""TLS in the soak: clients and targets that speak it, with the same account as the others.

Both say close_notify before their FIN, and a client takes an end without one for a cut connection.
"""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING, Final

from loadtests.soak_client import Client, Way
from loadtests.soak_loop import ENDED, IN, OUT
from loadtests.soak_target import Target
from loadtests.soak_wire import ClientKind, Place, Shown, parse_id

if TYPE_CHECKING:
    from loadtests.soak_traffic import Traffic

RESUMED_PART: Final = 0.5  # of the clients that have a session of an earlier connection
_PLAIN_BYTES: Final = 65536  # of one read


class Tls:
    """One end of TLS in memory. ``out`` is to be sent, and taken from the front when it was."""

    __slots__ = ("_incoming", "_outgoing", "has_said_end", "is_ended", "is_shaken", "object", "out")

    def __init__(
        self,
        context: ssl.SSLContext,
        server_name: str = "",
        session: ssl.SSLSession | None = None,
    ) -> None:
        """A client's with a server name, else a server's."""
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.object = context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_side=not server_name,
            server_hostname=server_name or None,
            session=session,
        )
        self.out = bytearray()
        self.is_shaken = False
        self.is_ended = False  # the other side's close_notify came
        self.has_said_end = False
        if server_name:
            self.feed(b"")

    def feed(self, data: bytes) -> bytes:
        """The plaintext of what came; ssl.SSLError when it is not good."""
        self._incoming.write(data)
        parts = []
        try:
            if not self.is_shaken:
                self.object.do_handshake()
                self.is_shaken = True
            while part := self.object.read(_PLAIN_BYTES):
                parts.append(part)
            self.is_ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.is_ended = True
        finally:
            self.out += self._outgoing.read()
        return b"".join(parts)

    def say(self, data: bytes) -> None:
        """Encrypt."""
        view = memoryview(data)
        while view:
            view = view[self.object.write(view) :]
        self.out += self._outgoing.read()

    def end(self) -> None:
        """Say close_notify. All that came was fed, so nothing that follows it is taken for it."""
        if self.has_said_end:
            return
        self.has_said_end = True
        try:
            self.object.unwrap()
        except ssl.SSLError:
            pass  # it asks for the other side's
        self.out += self._outgoing.read()


class TlsClient(Client):
    """A client to a place that has a server name."""

    __slots__ = ("_has_fin", "_offered", "_tls")

    def __init__(
        self,
        traffic: Traffic,
        place: Place,
        token: int,
        size: int,
        way: Way,
        kind: ClientKind = "short",
        until: float | None = None,
    ) -> None:
        random = traffic.random
        context = random.choice(traffic.contexts.clients)
        self._offered: ssl.SSLSession | None = None
        if random.random() < RESUMED_PART:
            self._offered = traffic.contexts.session(place.name, context)
        self._tls = Tls(context, place.server_name, self._offered)
        self._has_fin = False
        super().__init__(traffic, place, token, size, way, kind, until)

    def ready(self, events: int) -> None:
        """The socket can be written, or there is something to read."""
        if events & OUT and not self._flush():
            return
        if events & (IN | ENDED):
            self._read(events)

    def _flush(self) -> bool:
        """Send what can be sent; False when the connection has ended by that."""
        tls = self._tls
        if tls.is_shaken and self._sent < len(self._message):
            tls.say(self._message)
            self._sent = len(self._message)
            if not self.place.is_passed:
                self._gave(self._sent)
            if self._way is Way.CLIENT_EARLY and self.until is None:
                self._end()
                return not self.how
        while tls.out:
            try:
                count = self.sock.send(tls.out)
            except BlockingIOError:
                return True
            except OSError as error:
                self._failed(error.errno or 0)
                return False
            self._established()
            del tls.out[:count]
            if self.place.is_passed:
                self._gave(count)
        if self._is_ending and not self._has_fin:
            self._has_fin = True
            self._shut()
        return True

    def _came(self, data: bytes) -> bool:
        tls = self._tls
        if self.place.is_passed:
            super()._got(len(data))
        was_shaken = tls.is_shaken
        try:
            payload = tls.feed(data)
        except ssl.SSLError:
            self._over("tls")
            return False
        if tls.is_shaken and not was_shaken:
            self._shaken()
        if payload:
            traffic = self.traffic
            traffic.contexts.keep(self.place.name, tls.object, traffic.loop.now)
            if not self._take(payload) or self.how:
                return False
        return self._flush()

    def _shaken(self) -> None:
        """Count the handshake, and tell which certificate was shown."""
        account, traffic = self.traffic.account, self.traffic
        account.handshakes += 1
        if self._tls.object.session_reused:
            account.resumed += 1
            return
        account.not_resumed += self._offered is not None
        if not self.place.is_passed and traffic.contexts.is_looked_at():
            version = traffic.contexts.version(self._tls.object.getpeercert(binary_form=True))
            begun_at, now = self.begun_at, traffic.loop.now
            traffic.tell(Shown(version=version, begun_at=begun_at, ended_at=now))

    def _got(self, size: int) -> None:
        if not self.place.is_passed:
            super()._got(size)

    def _end(self) -> None:
        """Say close_notify, then FIN."""
        if not self._is_ending:
            self._is_ending = True
            self._tls.end()
            self._flush()

    def _on_end(self) -> None:
        """The other side's FIN: before it there has to be a close_notify."""
        if not self._tls.is_ended:
            self._established()
            self._over("truncated")
            return
        if not self._is_ending:
            self._tls.end()
            if not self._flush():
                return
        super()._on_end()


class TlsTarget(Target):
    """A target that speaks TLS behind the PROXY header."""

    __slots__ = ("_tls",)

    def __init__(self, traffic: Traffic, sock: socket.socket) -> None:
        super().__init__(traffic, sock)
        self._tls = Tls(traffic.contexts.target)
        self._out = self._tls.out  # the same bytes: what is encrypted waits to be sent

    @property
    def _is_passed(self) -> bool:
        """Whether all of TLS is payload of proxyctl's relay."""
        return self._client is not None and self._client.place.is_passed

    def _payload(self, data: bytes) -> bytes | None:
        """The plaintext to send back; None: the connection is over."""
        behind = data if self._tally is not None else self._header(data)
        if not behind:
            return behind
        if self._is_passed:
            self._count(len(behind))
        try:
            plain = self._tls.feed(behind)
        except ssl.SSLError:
            self._close()
            return None
        if plain:
            plain = self._request(plain)
        if not plain and not self._flush():
            return None
        return plain

    def _count(self, size: int) -> None:
        super()._got(size)

    def _got(self, size: int) -> None:
        if not self._is_passed:
            super()._got(size)

    def _say(self, data: bytes) -> None:
        self._tls.say(data)
        if not self._is_passed:
            super()._gave(len(data))

    def _gave(self, size: int) -> None:
        if self._is_passed:
            super()._gave(size)

    def _close(self) -> None:
        client = self._client
        if client is not None and not client.place.is_passed and not self._tls.is_shaken:
            known = parse_id(client.unique_id)
            incarnation = -1 if known is None else known[0]
            unshaken = self.traffic.account.unshaken
            unshaken[incarnation] = unshaken.get(incarnation, 0) + 1
        super()._close()

    def _finish(self) -> bool:
        """End what can be ended; False when the connection is over."""
        tls = self._tls
        if self._out:
            return True
        # Through a relay the client's FIN may come some packets behind its close_notify, and who is
        # answered before it looks as if it had ended second.
        has_ended = self._is_ended or (tls.is_ended and not self._is_passed)
        is_due = has_ended or self._total == 0
        if is_due and tls.is_shaken and not tls.has_said_end:
            tls.end()
            return self._flush()
        if self._is_ended:
            self._close()
            return False
        return self._shut() if is_due else True
