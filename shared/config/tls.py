"""The keys `tls` and `upstream_tls` of an action: how TLS is ended, and begun again."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, Literal, Self

from msgspec import Meta, field
from msgspec.structs import force_setattr

from shared.config.base import ConfigStruct, doc
from shared.config.domains import ServerName
from shared.plan import AuthorityPlan, CertificatePlan
from shared.units import kind_of, short

TlsMode = Literal["passthrough", "terminate", "terminate-and-reencrypt"]
VERSIONS: Final = ("1.0", "1.1", "1.2", "1.3")
MAX_ALPN_BYTES: Final = 255  # RFC 7301 section 3.1
MAX_ALPN_NAMES: Final = 64
MAX_CERTIFICATES: Final = 1000  # of one route


def _version(value: object) -> str:
    if isinstance(value, float | int) and str(value) in VERSIONS:
        raise ValueError(f'{value} is a number here; write "{value}", in quotes')
    if not isinstance(value, str):
        raise ValueError(f'expected a TLS version such as "1.3", got {kind_of(value)}')
    if value not in VERSIONS:
        raise ValueError(f"{short(value)} is no TLS version; one of: {', '.join(VERSIONS)}")
    return value


class TlsVersion(str):
    """A version that a ClientHello offers."""

    __slots__ = ()
    kind: ClassVar[str] = ", ".join(f"`{version}`" for version in VERSIONS)

    @classmethod
    def read(cls, value: object) -> Self:
        """ "1.0" to "1.3"."""
        return cls(_version(value))


class MinVersion(str):
    """The least version that is spoken."""

    __slots__ = ()
    kind: ClassVar[str] = "`1.2`, `1.3`"

    @classmethod
    def read(cls, value: object) -> Self:
        """ "1.2" or "1.3"."""
        version = _version(value)
        if version in ("1.0", "1.1"):
            raise ValueError(f"TLS {version} is not spoken: RFC 8996 forbids it; 1.2 is the least")
        return cls(version)


class AlpnName(str):
    """The name of a protocol, as in ALPN."""

    __slots__ = ()
    kind: ClassVar[str] = "name of a protocol, as `h2`"

    @classmethod
    def read(cls, value: object) -> Self:
        """1 to 255 printable ASCII characters."""
        if not isinstance(value, str):
            raise ValueError(f"expected the name of a protocol such as h2, got {kind_of(value)}")
        if not value or not value.isascii() or not value.isprintable() or " " in value:
            raise ValueError(f"{short(value)} is no name of a protocol; write h2, http/1.1 or such")
        if len(value) > MAX_ALPN_BYTES:
            raise ValueError(f"the name has {len(value)} bytes, {MAX_ALPN_BYTES} at most")
        return cls(value)


class FileName(str):
    """The path of a file; a relative one starts at the config file's directory."""

    __slots__ = ()
    kind: ClassVar[str] = "path"

    @classmethod
    def read(cls, value: object) -> Self:
        """Printable text, and no PEM: YAML joins the lines of an unquoted key with blanks."""
        if not isinstance(value, str):
            raise ValueError(f"expected the path of a file, got {kind_of(value)}")
        if not value or not value.isprintable() or "-----BEGIN" in value:
            raise ValueError(f"{short(value)} names no file")
        return cls(value)


class CertificateFile(FileName):
    """A PEM file with a certificate, and those of the authorities between it and the root.

    What it stands for comes into ``plan`` when the config is checked.
    """

    __slots__ = ("_plan",)
    _plan: CertificatePlan

    @property
    def plan(self) -> CertificatePlan:
        """The certificate with its key; AttributeError before the files were read."""
        return self._plan

    def fill(self, plan: CertificatePlan) -> None:
        """Give it the content of its files."""
        self._plan = plan


class AuthorityFile(FileName):
    """A PEM file with certificates of authorities; "" stands for the system's own."""

    __slots__ = ("_plan",)
    _plan: AuthorityPlan

    @property
    def plan(self) -> AuthorityPlan:
        """The authorities; AttributeError before the file was read."""
        return self._plan

    def fill(self, plan: AuthorityPlan) -> None:
        """Give it the content of its file."""
        self._plan = plan


class Certificate(ConfigStruct, frozen=True, kw_only=True):
    """A certificate and its key, in PEM files."""

    cert: Annotated[CertificateFile, doc("The certificate first, then those that lead to the root")]
    key: Annotated[FileName | None, doc("Its key; null: it is in the file of `cert`")] = None
    password_file: Annotated[
        FileName | None, doc("The first line of this file is the password of an encrypted key")
    ] = None


class ClientAuth(ConfigStruct, frozen=True, kw_only=True):
    """Certificates of clients."""

    mode: Annotated[
        Literal["none", "optional", "required"],
        doc("`optional`: one that is sent must be valid; `required`: no service without one"),
    ] = "none"
    ca: Annotated[
        AuthorityFile | None, doc("PEM file of the authorities that sign certificates of clients")
    ] = None


class Tls(ConfigStruct, frozen=True, kw_only=True):
    """What is done with TLS of clients; a route with it is for TLS clients only."""

    plain: ClassVar[tuple[str, ...]] = ("min_version", "alpn")
    not_yet: ClassVar[frozenset[str]] = frozenset({"certificate", "acme", "ocsp", "early_data"})
    elsewhere: ClassVar[dict[str, str]] = {
        **dict.fromkeys(("cert", "key", "password_file"), "write it in `certificates`"),
        "ca": "write it in `client_auth`, or in `upstream_tls` beside `tls`",
        **dict.fromkeys(
            ("verify", "server_name", "upstream_tls"), "`upstream_tls` is beside `tls`"
        ),
        "upstream_tls": "write it in `action`, beside `tls`",
        "domains": "write it in `match`",
    }
    mode: Annotated[
        TlsMode,
        doc(
            "`passthrough`: TLS stays closed; `terminate`: it ends here; "
            "`terminate-and-reencrypt`: and the target is spoken to over TLS again"
        ),
    ] = "passthrough"
    certificates: Annotated[
        list[Certificate],
        Meta(max_length=MAX_CERTIFICATES),
        doc("Chosen by the name that the client asks for; the first is the default"),
    ] = field(default_factory=list)
    min_version: Annotated[MinVersion | None, doc("The least TLS version; null is `1.2`")] = None
    ciphers: Annotated[
        Annotated[str, Meta(min_length=1, max_length=4096)] | None,
        doc("Of TLS 1.2, as OpenSSL writes them; null: OpenSSL's own choice"),
    ] = None
    alpn: Annotated[
        list[AlpnName],
        Meta(max_length=MAX_ALPN_NAMES),
        doc("Protocols to agree on, the best first; `[]`: none is answered"),
    ] = field(default_factory=list)
    client_auth: Annotated[ClientAuth, doc("Certificates of clients")] = ClientAuth()

    @property
    def terminates(self) -> bool:
        """Whether TLS of the client ends here."""
        return self.mode != "passthrough"


class UpstreamTls(ConfigStruct, frozen=True, kw_only=True):
    """TLS to the target."""

    plain: ClassVar[tuple[str, ...]] = ("server_name", "alpn")
    elsewhere: ClassVar[dict[str, str]] = {
        "certificates": "write `cert` and `key`",
        "client_auth": "write `cert` and `key`, which are ours for the target",
    }
    verify: Annotated[
        bool, doc("The target's certificate must be valid and for its name; false: any will do")
    ] = True
    ca: Annotated[
        AuthorityFile | None,
        doc("PEM file of the authorities to believe; null: those of the system"),
    ] = None
    server_name: Annotated[
        ServerName | None, doc("The name to ask for and to check; null: the target's host")
    ] = None
    cert: Annotated[
        CertificateFile | None, doc("Our certificate, for targets that want one; PEM")
    ] = None
    key: Annotated[FileName | None, doc("Its key; null: it is in the file of `cert`")] = None
    password_file: Annotated[
        FileName | None, doc("The first line of this file is the password of an encrypted key")
    ] = None
    alpn: Annotated[
        list[AlpnName],
        Meta(max_length=MAX_ALPN_NAMES),
        doc("Protocols to offer to the target; `[]`: none"),
    ] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Without ``ca`` the system's authorities are asked, which are read like a file."""
        super().__post_init__()
        if self.verify and self.ca is None:
            force_setattr(self, "ca", AuthorityFile())
