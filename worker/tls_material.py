"""What all TLS contexts are made of: certificates from bytes, and TLS objects over memory BIOs."""

from __future__ import annotations

import os
import ssl
from collections.abc import Generator, Iterable, Iterator
from time import monotonic
from typing import Any, Final, Protocol, TypeVar

from shared.plan import AuthorityPlan, CertificatePlan

T = TypeVar("T")
# Something done in parts, none of which holds the loop for long; what it returns is the result.
Steps = Generator[None, None, T]

MOST_AHEAD: Final = 256  # contexts built before a generation is served; the rest at first use

# A system has some 140 authorities, and OpenSSL takes 0.14 ms for each.
_AUTHORITIES_AT_ONCE: Final = 24
_END: Final = "-----END CERTIFICATE-----"
_MINIMUM: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_OPTIONS: Final = (
    ssl.OP_NO_RENEGOTIATION
    | ssl.OP_NO_COMPRESSION
    | ssl.OP_SINGLE_DH_USE
    | ssl.OP_SINGLE_ECDH_USE
    | ssl.OP_CIPHER_SERVER_PREFERENCE
)
_NEVER_ASK: Final = ""  # for a key that is encrypted after all: fail, and do not ask a terminal


class TlsObject(Protocol):
    """What `_ssl._SSLSocket` offers; it is quicker than `ssl.SSLObject`, which wraps it.

    Every call may raise ssl.SSLError; see `ssl.SSLObject` for what they do. ``shutdown`` is called
    ``unwrap`` there.
    """

    session: ssl.SSLSession | None

    @property
    def server_hostname(self) -> str | None: ...

    @property
    def session_reused(self) -> bool: ...

    def do_handshake(self) -> None: ...

    def read(self, size: int, buffer: Any = ..., /) -> Any: ...

    def write(self, data: Any, /) -> int: ...

    def pending(self) -> int: ...

    def shutdown(self) -> Any: ...

    def version(self) -> str | None: ...

    def cipher(self) -> tuple[str, str, int] | None: ...

    def selected_alpn_protocol(self) -> str | None: ...

    def getpeercert(self, der: bool = ..., /) -> Any: ...


def wrap(
    context: Any,
    incoming: ssl.MemoryBIO,
    outgoing: ssl.MemoryBIO,
    server_side: bool,
    name: str | None = None,
    session: ssl.SSLSession | None = None,
) -> TlsObject:
    """A TLS object over two BIOs, by the method behind `ssl.SSLContext.wrap_bio`.

    It takes these arguments in CPython 3.11, 3.12 and 3.13.
    """
    made: TlsObject = context._wrap_bio(incoming, outgoing, server_side, name, session=session)
    return made


def new_context(
    protocol: int, min_version: str = "1.2", alpn: tuple[str, ...] = ()
) -> ssl.SSLContext:
    """A context of either side, without certificates. ssl.SSLError where OpenSSL refuses."""
    context = ssl.SSLContext(protocol)
    context.minimum_version = _MINIMUM[min_version]
    context.options |= _OPTIONS
    if alpn:
        context.set_alpn_protocols(alpn)
    return context


def load_chain(context: ssl.SSLContext, certificate: CertificatePlan) -> None:
    """Give a context its certificate, chain and key.

    `load_cert_chain` takes paths only, so they go through a file in memory that no other process
    can name. OSError where no descriptor is left, ssl.SSLError where OpenSSL takes none of it.
    """
    descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)
    try:
        content = memoryview(certificate.chain + b"\n" + certificate.key)
        while content:
            content = content[os.write(descriptor, content) :]
        context.load_cert_chain(f"/proc/self/fd/{descriptor}", password=_NEVER_ASK)
    finally:
        os.close(descriptor)


def load_authority(context: ssl.SSLContext, authority: AuthorityPlan) -> Steps[None]:
    """Trust these authorities. What stands between the certificates may be in any encoding."""
    blocks = authority.pem.decode("ascii", "ignore").split(_END)[:-1]
    for at in range(0, len(blocks), _AUTHORITIES_AT_ONCE):
        some = blocks[at : at + _AUTHORITIES_AT_ONCE]
        context.load_verify_locations(cadata=_END.join(some) + _END)
        yield


def finish(steps: Steps[T]) -> T:
    """All that is left to do, at once."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            result: T = stop.value
            return result


class Missing(Protocol):
    """What may have contexts that are still to be built."""

    def first(self) -> Iterator[int]:
        """Places that most handshakes will ask for."""

    def rest(self) -> Iterator[int]:
        """All others."""

    def build(self, place: int) -> Steps[bool]:
        """Have this context; False where an equal one was there already.

        OSError, ssl.SSLError among them, where it cannot be built.
        """


class Ahead:
    """Builds contexts of a generation before it is served, in slices, at most ``most`` of them.

    One step takes a millisecond; 4 where authorities are read.
    """

    def __init__(self, parts: Iterable[Missing], most: int = MOST_AHEAD) -> None:
        self._left = most
        self._todo = _places(list(parts))
        self._steps: Steps[bool] | None = None

    def build_some(self, deadline: float) -> bool:
        """Build until the deadline, an instant of `time.monotonic`, at least a step; True: done.

        ssl.SSLError for a certificate that OpenSSL refuses. Any other OSError means that this
        worker lacks descriptors or memory at the moment: then the rest is built at first use.
        """
        while self._left > 0:
            if self._steps is None:
                following = next(self._todo, None)
                if following is None:
                    break
                part, place = following
                self._steps = part.build(place)
            try:
                next(self._steps)
            except StopIteration as stop:
                self._left -= bool(stop.value)
                self._steps = None
            except ssl.SSLError:
                raise
            except OSError:
                break
            if monotonic() >= deadline:
                return False
        self._left = 0
        return True


def _places(parts: list[Missing]) -> Iterator[tuple[Missing, int]]:
    for part in parts:
        for place in part.first():
            yield part, place
    for part in parts:
        for place in part.rest():
            yield part, place
