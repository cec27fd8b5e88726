"""The key `security`, of the whole config and of a route: access rules and limits."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Final, Self

from msgspec import Meta, field

from shared.address_set import build, parse_range
from shared.config.auth import Auth
from shared.config.base import ConfigStruct, doc
from shared.config.identities import IdentityMatch
from shared.config.scalars import Readable
from shared.plan import AddressSet
from shared.units import kind_of, parse_duration, short

LIMITS: Final = ("max_connections", "max_connections_per_ip", "connection_rate_per_ip")
MAX_CONNECTIONS: Final = 1_000_000_000  # far beyond what descriptors allow
MAX_RATE: Final = 1_000_000
MAX_RATE_PERIOD_S: Final = 86400.0  # longer is a quota, and counts do not outlive a full stop

_FILE: Final = "file:"
_COUNT: Final = re.compile(r"[1-9][0-9]{0,6}", re.ASCII)


class AddressEntry(str):
    """One of ``allow`` or ``block``: addresses, or the name of a file that lists such.

    The file's content comes into ``addresses`` when the config is checked
    (`supervisor/config_lists.py`).
    """

    kind: ClassVar[str] = 'address, CIDR, "first-last", glob or "file:path"'
    __slots__ = ("_addresses",)
    _addresses: AddressSet

    @classmethod
    def read(cls, value: object) -> Self:
        """Notations as in `shared.address_set.parse_range`, and ``file:lists/a.txt``."""
        if not isinstance(value, str):
            raise ValueError(f"expected {cls.kind}, got {kind_of(value)}")
        entry = cls(value)
        if not entry.is_file:
            entry._addresses = build([parse_range(value)])
        elif not entry.path or not entry.path.isprintable():
            raise ValueError(f"{short(value)} names no file; write file:lists/a.txt")
        return entry

    @property
    def is_file(self) -> bool:
        """Whether this names a list file."""
        return self.startswith(_FILE)

    @property
    def path(self) -> str:
        """Of the list file, as it is written."""
        return self.removeprefix(_FILE)

    @property
    def addresses(self) -> AddressSet:
        """What it stands for; AttributeError for a list file that was not read yet."""
        return self._addresses

    def fill(self, addresses: AddressSet) -> None:
        """Give it the content of its list file."""
        self._addresses = addresses


class RateLimit(str):
    """So many connections in so much time: ``"300/1m"``."""

    kind: ClassVar[str] = 'count/duration, as "300/1m"'
    __slots__ = ("connections", "period_s")
    connections: int
    period_s: float

    @classmethod
    def read(cls, value: object) -> Self:
        """The count is 1 to MAX_RATE, the duration above 0 and at most MAX_RATE_PERIOD_S."""
        if not isinstance(value, str):
            raise ValueError(f"expected count/duration, as 300/1m, got {kind_of(value)}")
        count, slash, period = value.partition("/")
        if not slash or _COUNT.fullmatch(count) is None or int(count) > MAX_RATE:
            raise ValueError(f"{short(value)} is no rate; write 300/1m, with a count up to 1000000")
        rate = cls(value)
        rate.connections = int(count)
        rate.period_s = parse_duration(period)
        if not 0 < rate.period_s <= MAX_RATE_PERIOD_S:
            raise ValueError(f"the time of a rate is above 0 and at most 24h, got {short(period)}")
        return rate


assert issubclass(AddressEntry, Readable)
assert issubclass(RateLimit, Readable)


class AccessRules(ConfigStruct, frozen=True, kw_only=True):
    """What the global `security` and that of a route have in common."""

    allow: Annotated[
        list[AddressEntry], doc("Who may connect; `[]`: anyone whom `block` does not have")
    ] = field(default_factory=list)
    block: Annotated[list[AddressEntry], doc("Who may not, even if `allow` has them")] = field(
        default_factory=list
    )
    max_connections: Annotated[
        Annotated[int, Meta(ge=0, le=MAX_CONNECTIONS)],
        doc("Open at the same time, over all workers; 0: no limit"),
    ] = 0
    max_connections_per_ip: Annotated[
        Annotated[int, Meta(ge=0, le=MAX_CONNECTIONS)],
        doc("The same for one client address (IPv6: its /64 network); 0: no limit"),
    ] = 0
    connection_rate_per_ip: Annotated[
        RateLimit | None,
        doc("New connections of one client address within any such time; null: no limit"),
    ] = None


class Identity(ConfigStruct, frozen=True, kw_only=True):
    """From where clients with this identity may come. The first entry that matches rules."""

    elsewhere: ClassVar[dict[str, str]] = dict.fromkeys(
        IdentityMatch.plain, "write it in `match`, beside `allow` and `block`"
    )
    match: Annotated[IdentityMatch, doc("Who the client is")]
    allow: Annotated[list[AddressEntry], doc("Where they may come from; `[]`: from anywhere")] = (
        field(default_factory=list)
    )
    block: Annotated[
        list[AddressEntry], doc("Where they may not come from, even if `allow` has it")
    ] = field(default_factory=list)


class RouteSecurity(AccessRules, frozen=True, kw_only=True):
    """Access rules and limits of one route, in addition to the global `security`."""

    not_yet: ClassVar[frozenset[str]] = frozenset({"rate_limit"})
    identities: Annotated[
        list[Identity],
        doc("Rules by who the client is; whom none matches is refused. `[]`: not asked"),
    ] = field(default_factory=list)
    auth: Annotated[Auth | None, doc("Users and passwords of HTTP; null: not asked")] = None


class Security(AccessRules, frozen=True, kw_only=True):
    """Access rules and limits for every connection, before anything else is done with it."""

    elsewhere: ClassVar[dict[str, str]] = dict.fromkeys(
        ("identities", "auth", "rate_limit"), "it belongs to the `security` of a route"
    )
    max_connections: Annotated[
        Annotated[int, Meta(ge=0, le=MAX_CONNECTIONS)],
        doc("Open at the same time, over all workers; 0: no limit"),
    ] = 10_000
