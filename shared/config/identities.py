"""Who a client is, in `security.identities`: what its ClientHello, its
certificate and its `auth` must say."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Final, Self

from shared.config.base import ConfigStruct, doc
from shared.config.domains import parse_name_glob
from shared.units import kind_of, short

MAX_GLOB_CHARACTERS: Final = 1024  # a subject that is longer is a mistake
CERTIFICATE_FIELDS: Final = ("cn", "san", "subject", "issuer", "fingerprint")
_FINGERPRINT_DIGITS: Final = 64  # of SHA-256
_HEX_GLOB: Final = re.compile(r"[0-9a-f*?]+", re.ASCII)


def _glob(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"expected a glob, got {kind_of(value)}")
    if not value or not value.isprintable():
        raise ValueError(f"{short(value)} matches nobody; write text, with * for any part of it")
    if len(value) > MAX_GLOB_CHARACTERS:
        raise ValueError(f"the glob has {len(value)} characters, {MAX_GLOB_CHARACTERS} at most")
    return value


class TextGlob(str):
    """Text of a certificate, with ``*`` and ``?``."""

    __slots__ = ()
    kind: ClassVar[str] = "text with `*` and `?`"

    @classmethod
    def read(cls, value: object) -> Self:
        """Printable text."""
        return cls(_glob(value))


class NameGlob(str):
    """The name that a ClientHello asks for, with ``*`` and ``?``."""

    __slots__ = ()
    kind: ClassVar[str] = "host name with `*` and `?`"

    @classmethod
    def read(cls, value: object) -> Self:
        """In the form that is compared: lower case, A-labels."""
        return cls(parse_name_glob(_glob(value)))


class FingerprintGlob(str):
    """SHA-256 of a certificate in hexadecimal digits, with ``*`` and ``?``."""

    __slots__ = ()
    kind: ClassVar[str] = "SHA-256 in hexadecimal, with `*` and `?`"

    @classmethod
    def read(cls, value: object) -> Self:
        """Colons and case do not count."""
        text = _glob(value)
        digits = text.replace(":", "").lower()
        whole = not set("*?").intersection(digits)
        size = len(digits.replace("*", ""))
        if _HEX_GLOB.fullmatch(digits) is None or size > _FINGERPRINT_DIGITS:
            raise ValueError(f"{short(text)} is no SHA-256; write its 64 hexadecimal digits")
        if whole and size != _FINGERPRINT_DIGITS:
            raise ValueError(
                f"a SHA-256 has {_FINGERPRINT_DIGITS} hexadecimal digits, this has {size};"
                " see `openssl x509 -noout -fingerprint -sha256`"
            )
        return cls(digits)


class IdentityMatch(ConfigStruct, frozen=True, kw_only=True):
    """Every field that is given must match; `*` is any text, `?` any character."""

    plain: ClassVar[tuple[str, ...]] = ("sni", *CERTIFICATE_FIELDS, "user")
    sni: Annotated[NameGlob | None, doc("The name that the ClientHello asks for")] = None
    cn: Annotated[TextGlob | None, doc("Common name of the client's certificate")] = None
    san: Annotated[
        TextGlob | None, doc("One of its alternative names, `DNS:a.example` or without the kind")
    ] = None
    subject: Annotated[TextGlob | None, doc("Its subject, as RFC 4514 writes it")] = None
    issuer: Annotated[TextGlob | None, doc("Its issuer, as RFC 4514 writes it")] = None
    fingerprint: Annotated[
        FingerprintGlob | None, doc("Its SHA-256; colons and case do not count")
    ] = None
    user: Annotated[TextGlob | None, doc("The name that `auth` of the route has verified")] = None

    def given(self) -> list[tuple[str, str]]:
        """(field, glob) of those that are written."""
        pairs = [(name, getattr(self, name)) for name in self.plain]
        return [(name, str(glob)) for name, glob in pairs if glob is not None]
