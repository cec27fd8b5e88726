"""Every exception that proxyctl raises on purpose.

    ProxyctlError
    |-- ConfigError          the config file is wrong; carries every problem found in it
    |-- CertificateError     a file of a certificate, key or password cannot be used
    |-- ProtocolError        bytes from the network break a protocol
    |   |-- ProxyHeaderError a PROXY protocol header is malformed
    |   |-- ClientHelloError a ClientHello is malformed, or too long
    |   `-- TlsError         a TLS handshake or record is refused
    |-- ControlError         supervisor, worker or CLI got a bad message, or none
    |-- StartError           `proxyctl start` cannot go on; says what to mend
    |-- WorkerBootError      a worker could not get ready
    `-- InternalError        our bug

"More bytes needed" and "end of stream" are values, not exceptions. A wrong argument to an
encoder is ValueError.
"""

from __future__ import annotations

from msgspec import Struct


class Problem(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One finding about a file or a command, in the shape of the CLI's JSON.

    ``line`` and ``col`` count from 1; 0 means that the place is not known.
    """

    message: str
    code: str = ""
    file: str = ""
    line: int = 0
    col: int = 0
    path: str = ""  # of the key, as in routes[2].action.targets[0]
    hint: str = ""
    width: int = 1  # of the caret, in columns
    source: str = ""  # the line of the file that is meant

    def text(self, kind: str = "error") -> str:
        """``file:line:col: kind: path: message (hint)``, without the parts that are not known."""
        place = ":".join(str(part) for part in (self.file, self.line, self.col) if part)
        head = f"{place}: {kind}: " if place else ""
        path = f"{self.path}: " if self.path else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{head}{path}{self.message}{hint}"


class ProxyctlError(Exception):
    """Base."""


class ConfigError(ProxyctlError):
    """The config is refused; ``problems`` has all that is wrong with it."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(problem.text() for problem in problems))
        self.problems = problems


class CertificateError(ProxyctlError):
    """A file of a certificate, key or password cannot be used: ``path``, ``reason``, ``hint``.

    Nothing of a key or a password is in any of them.
    """

    def __init__(self, reason: str, path: str, hint: str = "") -> None:
        super().__init__(f"{path}: {reason}")
        self.reason = reason
        self.path = path
        self.hint = hint


class ProtocolError(ProxyctlError):
    """Bytes from the network break a protocol."""


class ProxyHeaderError(ProtocolError):
    """A PROXY protocol header is malformed, too long, or fails its checksum."""


class HttpError(ProtocolError):
    """A head or a body that is not accepted. ``status``: of the answer to a client."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class ClientHelloError(ProtocolError):
    """A TLS ClientHello is malformed, or longer than is accepted."""


class TlsError(ProtocolError):
    """A TLS handshake or record is refused. ``alert``: what is still to be sent to the peer."""

    def __init__(self, reason: str, alert: bytes = b"") -> None:
        super().__init__(reason)
        self.alert = alert


class ControlError(ProxyctlError):
    """A control message is bad, or did not come."""


class StartError(ProxyctlError):
    """`proxyctl start` cannot go on. ``hint`` says how to mend it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(f"{message} ({hint})" if hint else message)
        self.message = message
        self.hint = hint


class WorkerBootError(ProxyctlError):
    """A worker could not get ready."""


class InternalError(ProxyctlError):
    """Our own bug: a state and an event that should never meet."""
