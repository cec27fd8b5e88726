"""Access rules and limits of a config to plans; each list of addresses is kept once."""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec
from msgspec import structs

from shared.address_set import union
from shared.config import AccessLog, AccessRules, AddressEntry, Identity, RateLimit, RouteSecurity
from shared.plan import AccessPlan, AddressSet, IdentityPlan, RatePlan, SecurityPlan

_DIGEST_BYTES: Final = 16
_encode: Final = msgspec.msgpack.Encoder(order="deterministic").encode


class Rules:
    """Compiles the rules of one generation; ``sets`` are the lists that its plans name by place.

    Expects entries whose list files were read (`supervisor/config_lists.py`).
    """

    def __init__(self) -> None:
        self.sets: list[AddressSet] = []
        self._places: dict[AddressSet, int] = {}
        self._digests: list[bytes] = []
        self._by_text: dict[tuple[str, ...], int] = {}

    def compile(self, rules: AccessRules) -> SecurityPlan:
        """The plan of the whole config's rules, or of a route's without its identities."""
        return SecurityPlan(
            allow=self._place(rules.allow),
            block=self._place(rules.block),
            max_connections=rules.max_connections,
            max_connections_per_ip=rules.max_connections_per_ip,
            connection_rate_per_ip=_rate(rules.connection_rate_per_ip),
        )

    def compile_route(self, rules: RouteSecurity) -> SecurityPlan | None:
        """As `compile`; None where the rules refuse nobody."""
        identities = tuple(self._identity(each) for each in rules.identities)
        plan = structs.replace(self.compile(rules), identities=identities)
        return None if plan == SecurityPlan() else plan

    def content(self, plan: SecurityPlan | None) -> bytes:
        """Equal exactly for equal rules, in whatever notation and place the lists are."""
        if plan is None:
            return b""
        lists = [self._digests_of(plan), *map(self._digests_of, plan.identities)]
        matches = [each.match for each in plan.identities]
        return _encode(
            (lists, matches, structs.replace(plan, allow=None, block=None, identities=()))
        )

    def _digests_of(self, plan: SecurityPlan | IdentityPlan) -> list[bytes | None]:
        return [None if at is None else self._digests[at] for at in (plan.allow, plan.block)]

    def _identity(self, identity: Identity) -> IdentityPlan:
        return IdentityPlan(
            match=tuple(identity.match.given()),
            allow=self._place(identity.allow),
            block=self._place(identity.block),
        )

    def _place(self, entries: list[AddressEntry]) -> int | None:
        if not entries:
            return None
        text = tuple(map(str, entries))
        if text not in self._by_text:
            addresses = union(entry.addresses for entry in entries)
            place = self._places.setdefault(addresses, len(self.sets))
            if place == len(self.sets):
                self.sets.append(addresses)
                digest = hashlib.blake2b(_encode(addresses), digest_size=_DIGEST_BYTES).digest()
                self._digests.append(digest)
            self._by_text[text] = place
        return self._by_text[text]


def _rate(limit: RateLimit | None) -> RatePlan | None:
    if limit is None:
        return None
    return RatePlan(connections=limit.connections, period_s=limit.period_s)


def access_plan(access: AccessLog | None) -> AccessPlan | None:
    """Of a config whose paths are absolute, as `supervisor.config_file` makes them."""
    if access is None:
        return None
    return AccessPlan(
        file=access.file,
        format=str(access.format),
        connect=access.connect,
        interval_s=float(access.interval),
    )
