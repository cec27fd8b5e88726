"""The key `auth` of a route's security: who may use it."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, Self

from shared.config.base import ConfigStruct, doc
from shared.config.tls import FileName
from shared.units import kind_of, short

MAX_REALM_CHARACTERS: Final = 128


class Realm(str):
    """What a client shows when it asks for a password."""

    __slots__ = ()
    kind: ClassVar[str] = "text"

    @classmethod
    def read(cls, value: object) -> Self:
        """Printable ASCII: what else a client makes of it differs (RFC 7617 section 2.1)."""
        if not isinstance(value, str):
            raise ValueError(f"expected text, got {kind_of(value)}")
        if not value or not value.isascii() or not value.isprintable():
            raise ValueError(f"{short(value)} is no realm; write printable ASCII")
        if len(value) > MAX_REALM_CHARACTERS:
            raise ValueError(f"it has {len(value)} characters, {MAX_REALM_CHARACTERS} at most")
        return cls(value)


class UsersFile(FileName):
    """A file of users and hashed passwords."""

    __slots__ = ("_users",)
    _users: tuple[tuple[str, str], ...]

    @property
    def users(self) -> tuple[tuple[str, str], ...]:
        """(name, hash) of every user; AttributeError before the file was read."""
        return self._users

    def fill(self, users: tuple[tuple[str, str], ...]) -> None:
        """Give it its content."""
        self._users = users


class BasicAuth(ConfigStruct, frozen=True, kw_only=True):
    """Basic authentication (RFC 7617)."""

    plain: ClassVar[tuple[str, ...]] = ("realm",)
    realm: Annotated[Realm, doc("What clients show when they ask for a password")]
    users_file: Annotated[UsersFile, doc("Lines of `name:hash`, as `htpasswd -B` writes them")]
    allow_plain: Annotated[
        bool, doc("true: passwords may come over connections that are not encrypted")
    ] = False


class Auth(ConfigStruct, frozen=True, kw_only=True):
    """Who may use a route. The user is an identity, for `identities`."""

    basic: Annotated[BasicAuth, doc("Names and passwords")]
