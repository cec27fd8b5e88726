"""Who may connect: the two phases of access rules and limits (design section 5, "Limits").

A Gate is of one generation and one scope: of everyone, asked before there is a connection, or of
one route, asked once it is chosen. What it admits is counted in shared memory until `leave`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from shared.address_set import Addresses, pack_ip
from shared.ends import End
from shared.plan import SecurityPlan
from worker.limits import FULL, NOT_COUNTED, TOO_FAST, Limits, Place, Rate, Table

if TYPE_CHECKING:
    from worker.connection import Connection

# Every answer below NOT_COUNTED is a refusal.
BLOCKED: Final = -4  # beside what `Table.enter` says
ALL_FULL: Final = -5  # max_connections, where FULL is the limit of one address
ENDS: Final = {
    FULL: End.LIMIT,
    TOO_FAST: End.RATE,
    BLOCKED: End.BLOCKED,
    ALL_FULL: End.LIMIT,
}

_V6_NETWORK_BYTES: Final = 8
MOST_REMEMBERED: Final = 4096  # clients; then anew


# Cells of all rows, our own first; how many may be open (0: any number); and how often they come.
Counted = tuple[tuple[int, ...], int, Rate | None]
# What a gate counts: its scope, whether all of it, and the key of its addresses.
Counting = tuple[str, bool, tuple[str, float] | None]


class Client:
    """What a gate knows of an address. Free to be forgotten at any time."""

    __slots__ = ("is_blocked", "place")

    def __init__(self, is_blocked: bool, place: Place | None) -> None:
        self.is_blocked = is_blocked
        self.place = place  # None: it is not counted


class Gate:
    """Rules and limits of one scope; ``scope`` is "" for everyone, else the route's name."""

    __slots__ = (
        "_addresses",
        "_allow",
        "_block",
        "_clients",
        "_limits",
        "_most_per_ip",
        "_rate",
        "_route",
        "counted",
        "counts_addresses",
        "key",
        "looks_at_address",
        "most",
        "scope",
    )

    def __init__(
        self, scope: str, plan: SecurityPlan, sets: Sequence[Addresses], limits: Limits
    ) -> None:
        """IndexError for a plan that names a set which has not come."""
        self.scope = scope
        self._allow = None if plan.allow is None else sets[plan.allow]
        self._block = None if plan.block is None else sets[plan.block]
        has_rules = self._allow is not None or self._block is not None
        self.most = plan.max_connections
        self._most_per_ip = plan.max_connections_per_ip
        rate = plan.connection_rate_per_ip
        self._rate = None if rate is None else Rate(rate.connections, rate.period_s)
        self.counts_addresses = bool(self._most_per_ip or self._rate)
        # A period that changed counts its parts anew.
        self.key = (scope, 0.0 if rate is None else rate.period_s)
        # More of it at a reload means to count older connections too.
        counted = (scope, bool(self.most), self.key if self.counts_addresses else None)
        self.counted: Counting = counted
        self.looks_at_address = has_rules or self.counts_addresses
        self._limits = limits
        self._addresses = limits.addresses
        self._clients: dict[str, Client] = {}
        self._route = limits.routes.place(hash(scope))

    @property
    def is_open(self) -> bool:
        """Nothing is refused here."""
        return not (self.looks_at_address or self.most)

    def enter(self, ip: str, now: float) -> int:
        """Judge a connection before there is one.

        Returns the cell that counts it, NOT_COUNTED, or a refusal below that (`ENDS`).
        """
        place = None
        if self.looks_at_address:
            client = self._clients.get(ip) or self._meet(ip)
            if client.is_blocked:
                return BLOCKED
            place = client.place
        if self.most and self._limits.open_everywhere() >= self.most:
            return ALL_FULL
        if place is None:
            return NOT_COUNTED
        return self._addresses.enter(place, self._most_per_ip, self._rate, now)

    def enter_unknown(self) -> int:
        """As `enter`, while the client's address is still to come in a PROXY header."""
        if self.most and self._limits.open_everywhere() >= self.most:
            return ALL_FULL
        return NOT_COUNTED

    def judge(self, ip: str) -> int:
        """Ask the rules alone: 0, or a refusal (`ENDS`)."""
        if not self.looks_at_address:
            return 0
        client = self._clients.get(ip) or self._meet(ip)
        return BLOCKED if client.is_blocked else 0

    def admit(self, conn: Connection, now: float, ip: str = "") -> int:
        """Judge a connection whose client is known now: 0, or a refusal (`ENDS`).

        ``ip``: whom it counts for, where that is not the connection's client.
        """
        place = None
        if self.looks_at_address:
            ip = ip or conn.client[0]
            client = self._clients.get(ip) or self._meet(ip)
            if client.is_blocked:
                return BLOCKED
            place = client.place
        kept = conn.counted_in
        # It may have come for another route, and been counted when this one's limit was new.
        if self.most and self.scope and not (kept and self._limits.routes.own(self._route) in kept):
            cell = self._limits.routes.enter(self._route, self.most, None, now)
            if cell < NOT_COUNTED:
                return ALL_FULL
            if cell >= 0:
                conn.counted_in += (cell,)
        if place is not None and (conn.header is None or conn.has_own_address):
            if kept and self._addresses.own(place) in kept:
                return 0
            cell = self._addresses.enter(place, self._most_per_ip, self._rate, now)
            if cell < NOT_COUNTED:
                return cell
            if cell >= 0:
                conn.counted_in += (cell,)
        return 0

    def counted_under(self, ip: str) -> list[Counted] | None:
        """What a client that may come in is counted under; None: ask `enter` or `admit`."""
        found: list[Counted] = []
        if self.most and self.scope:
            found.append((self._limits.routes.known(self._route), self.most, None))
        if self.looks_at_address:
            client = self._clients.get(ip) or self._meet(ip)
            if client.is_blocked:
                return None
            if client.place is not None:
                cells = self._addresses.known(client.place)
                found.append((cells, self._most_per_ip, self._rate))
        return found if all(cells for cells, _, _ in found) else None

    def take_over(self, conn: Connection, now: float) -> None:
        """Count a connection that was there before the limit was."""
        if self.most and self.scope:
            self._take_over(conn, self._limits.routes, self._route, now)
        if self._most_per_ip and conn.has_own_address:
            ip = conn.client[0]
            client = self._clients.get(ip) or self._meet(ip)
            if client.place is not None:
                self._take_over(conn, self._addresses, client.place, now)

    def _take_over(self, conn: Connection, table: Table, place: Place, now: float) -> None:
        if table.own(place) not in conn.counted_in:
            cell = table.enter(place, 0, None, now)
            if cell >= 0:
                conn.counted_in += (cell,)

    def _meet(self, ip: str) -> Client:
        """Look at an address for the first time since long; "" (a Unix peer) is in no list."""
        is_blocked = self._block is not None and self._block.contains(ip)
        if self._allow is not None and not self._allow.contains(ip):
            is_blocked = True
        place = None
        if self.counts_addresses and ip and not is_blocked:
            # A customer's /64 counts as one client (design section 5).
            packed = pack_ip(ip)  # unfolds what is IPv4-mapped
            key = packed if len(packed) == 4 else packed[:_V6_NETWORK_BYTES]
            place = self._limits.addresses.place(hash((self.key, key)))
        if len(self._clients) >= MOST_REMEMBERED:
            self._clients.clear()
        client = self._clients[ip] = Client(is_blocked, place)
        return client

    def why(self, refusal: int, ip: str) -> str:
        """The rule behind a refusal, for the log."""
        where = f"security of route {self.scope}" if self.scope else "security"
        if refusal == ALL_FULL:
            return f"{where}: max_connections is {self.most}"
        if refusal == FULL:
            return f"{where}: max_connections_per_ip is {self._most_per_ip}"
        if refusal == TOO_FAST and self._rate is not None:
            return (
                f"{where}: {self._rate.most} connections of an address in {self._rate.period_s:g} s"
            )
        if self._block is not None and self._block.contains(ip):
            return f"{where}: block has {self._block.range_of(ip)}"
        return f"{where}: allow does not have it"
