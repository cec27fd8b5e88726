"""TLS of each message: what is compiled does as the source says, words of errors included."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest

from shared.errors import TlsError
from tests.helpers.certificates import Authority, Files
from worker import openssl, openssl_form, syscalls
from worker.openssl_form import INCOMING, OUTGOING, RECORD_BYTES
from worker.relay import BUFFER
from worker.tls_material import TlsObject, wrap

SIZE: Final = 4096  # of the buffer
NAME: Final = "form.example"


class Form:
    """One form of the module, with a buffer of its own."""

    def __init__(self, module: ModuleType, use: Callable[[ModuleType], str]) -> None:
        self.calls = module
        assert not use(module)
        self.is_compiled = not (module.__file__ or "").endswith(".py")


@pytest.fixture(params=["as imported", "from source"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Form]:
    """Either form, reading SIZE bytes at a time."""
    buffer = bytearray(SIZE)
    with monkeypatch.context() as patch:
        patch.setattr(openssl_form, "BUFFER", buffer)
        patch.setattr(openssl_form, "_ROOM", bytearray(SIZE + 2 * RECORD_BYTES))
        syscalls.use(buffer)
        module = openssl if request.param == "as imported" else openssl_form._source()
        yield Form(module, openssl_form._use)
    syscalls.use(BUFFER)
    openssl_form._use(openssl)
    INCOMING.read()
    OUTGOING.read()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Issues what is shown here."""
    return Authority(tmp_path_factory.mktemp("form"), "form ca")


@pytest.fixture(scope="module")
def leaf(authority: Authority) -> Files:
    """A server's certificate."""
    return authority.leaf(NAME, key="ec")


def server_context(leaf: Files) -> ssl.SSLContext:
    """A server's."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(leaf.cert, leaf.key)
    context.num_tickets = 0
    return context


def client_context(authority: Authority | None) -> ssl.SSLContext:
    """A client's; without an authority it trusts nobody."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if authority is not None:
        context.load_verify_locations(authority.cert)
    return context


class End:
    """Our end of a connection, and Python's at the other side of it."""

    def __init__(self, form: Form, ours: TlsObject, theirs: ssl.SSLContext, **how: Any) -> None:
        self.calls = form.calls
        self.ours = ours
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.theirs = theirs.wrap_bio(self._in, self._out, **how)

    def said(self) -> bytes:
        """What the other side has for us."""
        return self._out.read()

    def hear(self, data: bytes) -> None:
        """What we have for the other side."""
        self._in.write(data)

    def shake(self) -> None:
        """The whole handshake; TlsError or ssl.SSLError of the end that refuses."""
        is_done = is_over = False
        for _ in range(6):
            if not is_over:
                try:
                    self.theirs.do_handshake()
                    is_over = True
                except ssl.SSLWantReadError:
                    pass
            if not is_done:
                is_done, answer = self.calls.shake(self.ours, self.said())
                self.hear(answer)
        assert is_done
        assert is_over

    def read(self) -> bytes:
        """What the other side can read now."""
        try:
            return self.theirs.read(1 << 20)
        except ssl.SSLWantReadError:
            return b""


def serving(form: Form, authority: Authority, leaf: Files) -> End:
    """We serve, and hands are shaken."""
    ours = wrap(server_context(leaf), INCOMING, OUTGOING, True)
    end = End(form, ours, client_context(authority), server_hostname=NAME)
    end.shake()
    return end


class Sockets:
    """A client and a target, and our two sockets between them."""

    def __init__(self) -> None:
        self.client, self.down = socket.socketpair()
        self.up, self.target = socket.socketpair()
        for sock in (self.client, self.target):
            sock.settimeout(5.0)
        for sock in (self.down, self.up):
            sock.setblocking(False)

    def relay(self, form: Form, from_: End | None, to: End | None) -> int:
        """Once, from the client to the target."""
        done: int = form.calls.relay(
            self.down,
            self.down.fileno(),
            None if from_ is None else from_.ours,
            self.up,
            self.up.fileno(),
            None if to is None else to.ours,
        )
        return done

    def close(self) -> None:
        """All of them."""
        for sock in (self.client, self.down, self.up, self.target):
            sock.close()


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    """Four sockets."""
    made = Sockets()
    yield made
    made.close()


def test_the_tests_run_both_forms() -> None:
    """What is compiled can be used with this Python, or the reason would be here."""
    assert openssl_form.REASON == ""


@pytest.mark.parametrize("from_tls", [False, True])
@pytest.mark.parametrize("to_tls", [False, True])
@pytest.mark.parametrize("size", [1, 100, SIZE - 100])
def test_a_message_is_relayed(
    form: Form,
    sockets: Sockets,
    authority: Authority,
    leaf: Files,
    from_tls: bool,
    to_tls: bool,
    size: int,
) -> None:
    """Plain or encrypted on either side: how many bytes of payload went."""
    data = bytes(number % 251 for number in range(size))
    from_ = serving(form, authority, leaf) if from_tls else None
    to = serving(form, authority, leaf) if to_tls else None
    for _ in range(3):
        sent = data
        if from_ is not None:
            from_.theirs.write(data)
            sent = from_.said()
        sockets.client.sendall(sent)
        assert sockets.relay(form, from_, to) == size
        got = sockets.target.recv(1 << 20)
        if to is not None:
            to.hear(got)
            got = to.read()
        assert got == data
    assert sockets.relay(form, from_, to) == form.calls.EMPTY
    assert INCOMING.pending == OUTGOING.pending == 0


def test_a_full_buffer_says_so(
    form: Form, sockets: Sockets, authority: Authority, leaf: Files
) -> None:
    """More may wait; with TLS a record may end in the next part."""
    calls = form.calls
    sockets.client.sendall(bytes(SIZE))
    assert sockets.relay(form, None, None) == calls.FULL
    assert calls.found() == SIZE
    assert len(sockets.target.recv(SIZE)) == SIZE
    from_ = serving(form, authority, leaf)
    from_.theirs.write(bytes(2 * SIZE))  # one record over three reads
    sockets.client.sendall(from_.said())
    for _ in range(2):
        assert sockets.relay(form, from_, None) == calls.ODD
        assert calls.found() == calls.WAS_FULL
    assert sockets.relay(form, from_, None) == 2 * SIZE
    assert len(sockets.target.recv(1 << 20, socket.MSG_WAITALL | socket.MSG_DONTWAIT)) == 2 * SIZE


def test_nothing_an_end_and_a_reset(form: Form, sockets: Sockets) -> None:
    """Three answers that are not bytes, and no exception."""
    assert sockets.relay(form, None, None) == form.calls.EMPTY
    sockets.client.close()
    assert sockets.relay(form, None, None) == 0
    fd = sockets.down.fileno()
    sockets.down.close()
    lost = form.calls.relay(sockets.down, fd, None, sockets.up, sockets.up.fileno(), None)
    assert lost == form.calls.LOST


def test_who_cannot_be_written_to(form: Form, sockets: Sockets) -> None:
    """What was read is told, so that it is counted."""
    sockets.target.close()
    sockets.client.sendall(b"payload")
    assert sockets.relay(form, None, None) == form.calls.UNSENT
    assert form.calls.found() == 7


def test_what_has_no_room_is_kept(
    form: Form, sockets: Sockets, authority: Authority, leaf: Files
) -> None:
    """The rest of the records, to be sent as they are."""
    to = serving(form, authority, leaf)
    sockets.up.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
    got = b""
    sent = 0
    for _ in range(100):
        sockets.client.sendall(bytes(SIZE - 1))
        how = sockets.relay(form, None, to)
        sent += form.calls.found()
        if how != SIZE - 1:
            break
    assert how == form.calls.PARTLY
    rest = form.calls.rest()
    assert rest
    sockets.target.setblocking(False)
    try:
        while part := sockets.target.recv(1 << 16):
            got += part
    except BlockingIOError:
        pass
    to.hear(got + rest)
    read = b""
    while part := to.read():
        read += part
    assert read == bytes(sent)


def test_the_end_comes_with_the_last_bytes(
    form: Form, sockets: Sockets, authority: Authority, leaf: Files
) -> None:
    """And what follows a close_notify is ignored."""
    from_ = serving(form, authority, leaf)
    from_.theirs.write(b"bye")
    with pytest.raises(ssl.SSLWantReadError):
        from_.theirs.unwrap()
    sockets.client.sendall(from_.said() + b"\x17\x03\x03 nothing")
    assert sockets.relay(form, from_, None) == form.calls.ODD
    assert form.calls.found() == 3 | form.calls.ENDED
    assert INCOMING.pending == 0


def test_nothing_is_encrypted_behind_a_close_notify(
    form: Form, sockets: Sockets, authority: Authority, leaf: Files
) -> None:
    """The payload counts as read, and the error is kept."""
    to = serving(form, authority, leaf)
    goodbye = form.calls.close(to.ours)
    to.hear(goodbye)
    assert to.theirs.read(1) == b""
    sockets.client.sendall(b"late")
    assert sockets.relay(form, None, to) == form.calls.NO_RECORD
    assert form.calls.found() == 4
    assert str(form.calls.failure()) == "protocol is shutdown"
    with pytest.raises(TlsError, match="protocol is shutdown"):
        form.calls.encrypt(to.ours, b"late")


def test_a_bad_record_is_an_error_with_an_alert(
    form: Form, sockets: Sockets, authority: Authority, leaf: Files
) -> None:
    """And both BIOs are empty for the next connection."""
    from_ = serving(form, authority, leaf)
    sockets.client.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
    with pytest.raises(TlsError, match="decryption failed or bad record mac") as raised:
        sockets.relay(form, from_, None)
    assert raised.value.alert
    assert INCOMING.pending == OUTGOING.pending == 0


@pytest.mark.parametrize(
    ("first", "words"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "http request"),
        (b"\x16\x03\x01\x00\x05\x02\x00\x00\x01\x00", "unexpected message"),
        (bytes(64), "wrong version number"),
    ],
)
def test_what_is_no_handshake_is_named(form: Form, leaf: Files, first: bytes, words: str) -> None:
    """In the words that Python's ssl has for it."""
    ours = wrap(server_context(leaf), INCOMING, OUTGOING, True)
    with pytest.raises(TlsError) as raised:
        form.calls.shake(ours, first)
    assert str(raised.value) == words


def test_a_client_that_is_not_believed_is_told_of(
    form: Form, authority: Authority, leaf: Files, tmp_path: Path
) -> None:
    """A certificate of another authority, and none at all."""
    context = server_context(leaf)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority.cert)
    stranger = Authority(tmp_path, "stranger").leaf("client.example", key="ec")
    theirs = client_context(authority)
    nobody = End(form, wrap(context, INCOMING, OUTGOING, True), theirs, server_hostname=NAME)
    with pytest.raises(TlsError, match=r"^peer did not return a certificate$"):
        nobody.shake()
    theirs.load_cert_chain(stranger.cert, stranger.key)
    other = End(form, wrap(context, INCOMING, OUTGOING, True), theirs, server_hostname=NAME)
    with pytest.raises(TlsError, match=r"^certificate verify failed: unable to get local issuer"):
        other.shake()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "other.example",
            "certificate verify failed: Hostname mismatch, certificate is not valid for"
            " 'other.example'.",
        ),
        (
            "192.0.2.1",
            "certificate verify failed: IP address mismatch, certificate is not valid for"
            " '192.0.2.1'.",
        ),
    ],
)
def test_a_target_of_another_name_is_told_of(
    form: Form, authority: Authority, leaf: Files, name: str, words: str
) -> None:
    """We are the client here."""
    ours = wrap(client_context(authority), INCOMING, OUTGOING, False, name)
    end = End(form, ours, server_context(leaf), server_side=True)
    hello = form.calls.shake(ours, b"")[1]
    end.hear(hello)
    with pytest.raises(ssl.SSLWantReadError):
        end.theirs.do_handshake()
    with pytest.raises(TlsError) as raised:
        form.calls.shake(ours, end.said())
    assert str(raised.value) == words
    assert raised.value.alert


def test_a_client_that_believes_us_not_is_told_of(form: Form, leaf: Files) -> None:
    """Its alert is the reason."""
    ours = wrap(server_context(leaf), INCOMING, OUTGOING, True)
    end = End(form, ours, client_context(None), server_hostname=NAME)
    with pytest.raises(ssl.SSLCertVerificationError):
        end.shake()
    with pytest.raises(TlsError, match=r"^tlsv1 alert unknown ca$"):
        form.calls.shake(ours, end.said())


def test_an_end_within_the_handshake_is_told_of(form: Form, leaf: Files) -> None:
    """A close_notify, after a ClientHello of TLS 1.2."""
    ours = wrap(server_context(leaf), INCOMING, OUTGOING, True)
    theirs = client_context(None)
    theirs.maximum_version = ssl.TLSVersion.TLSv1_2
    end = End(form, ours, theirs, server_hostname=NAME)
    with pytest.raises(ssl.SSLWantReadError):
        end.theirs.do_handshake()
    assert form.calls.shake(ours, end.said())[0] is False
    with pytest.raises(TlsError, match=r"^closed by a close_notify within the handshake$"):
        form.calls.shake(ours, b"\x15\x03\x03\x00\x02\x01\x00")


def test_errors_that_others_left_are_not_taken_for_ours(
    form: Form, authority: Authority, leaf: Files, tmp_path: Path
) -> None:
    """OpenSSL keeps one list of them for each thread."""
    from_ = serving(form, authority, leaf)
    with pytest.raises(ssl.SSLError):
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(leaf.key, leaf.cert)
    from_.theirs.write(b"whole")
    record = from_.said()
    assert form.calls.decrypt(from_.ours, record[:9]) == 0
    assert form.calls.decrypt(from_.ours, record[9:]) == 5


def test_strange_arguments_are_refused(form: Form) -> None:
    """What is no object of ssl is not read through."""
    if not form.is_compiled:
        return  # the source takes whatever has the methods
    for call in (form.calls.shake, form.calls.decrypt, form.calls.encrypt):
        with pytest.raises(TypeError):
            call(object(), b"")
        with pytest.raises(TypeError):
            call(object())
    with pytest.raises(TypeError):
        form.calls.close(object())
    with pytest.raises(TypeError):
        form.calls.relay(None, 0, object(), None, 0, None)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("_NAMES", {}, "its names of OpenSSL's errors"),
        ("is_writable", lambda _: False, "has its SSL in another place"),
        ("pointer_in", lambda *_: 0, "has its SSL in another place"),
        ("module_path", lambda: "/nowhere/_ssl.so", "not there to be looked into"),
    ],
)
def test_another_python_is_noticed_and_the_source_runs(
    monkeypatch: pytest.MonkeyPatch, name: str, value: Any, words: str
) -> None:
    """Nothing is read through a pointer that is somewhere else; TLS goes on, slower."""
    if (openssl.__file__ or "").endswith(".py"):
        assert openssl_form._use(openssl) == ""
        return
    with monkeypatch.context() as patch:
        patch.setattr(openssl_form, name, value)
        chosen, reason = openssl_form._choose()
    assert words in reason
    assert (chosen.__file__ or "").endswith("openssl.py")
    assert openssl_form._use(openssl) == ""
