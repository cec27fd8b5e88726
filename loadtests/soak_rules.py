"""Clients that the rules of the config refuse, each refusal expected and counted.

A crowd from one address dials a route that serves few of it; guests dial from addresses that a
block list has now and then. When everything else rests, the limit must let in exactly as many as
it says: whoever was counted and is gone must have been counted off.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from loadtests.soak_client import Client, Way
from loadtests.soak_wire import Guest, Rules, parse_id

if TYPE_CHECKING:
    from loadtests.soak_traffic import Traffic

MOST_NOTED: Final = 20
_STAYS_S: Final = (0.2, 1.5)
_WANTED_MORE: Final = 2  # dials under way beyond what is served
_GUESTS_A_LOOK: Final = 0.5  # on average; ten looks a second


class Refusals:
    """Dials what may be refused, and keeps its account. ``crowd_open``: as the targets see it."""

    def __init__(self, traffic: Traffic) -> None:
        self.crowd_open = 0
        self._traffic = traffic
        self._rules: Rules | None = None
        self._is_exact = False  # the check at a rest is over
        self._exact: list[Client] = []

    def obey(self, rules: Rules) -> None:
        """What is refused from now on."""
        self._rules = rules

    def check(self) -> None:
        """After each turn of the loop, when every end that has come is taken in."""
        account, rules = self._traffic.account, self._rules
        if rules is None or self.crowd_open <= account.crowd_most:
            return
        account.crowd_most = self.crowd_open
        if self.crowd_open > rules.bound:
            self._note(f"{self.crowd_open} connections of one address, at most {rules.bound} may")

    def look(self, now: float) -> None:
        """Ten times a second under load."""
        rules, traffic = self._rules, self._traffic
        if rules is None:
            return
        random = traffic.random
        here = sum(client.kind == "crowd" for client in traffic.clients)
        for _ in range(max(0, min(2, rules.most + _WANTED_MORE - here))):
            self._dial_crowd(now + random.uniform(*_STAYS_S))
        if random.random() < _GUESTS_A_LOOK:
            size, way = traffic.small(), Way(random.randrange(3))
            place = traffic.stable_place()
            if place is not None:
                traffic.begin(place, size, way, "guest", source=random.choice(rules.guests))

    def rested(self) -> bool:
        """All but the long ones have ended: fill the limit, exactly. True when that is done."""
        rules = self._rules
        if rules is None or self._is_exact:
            return True
        exact = self._exact
        if exact and not exact[-1].how and not exact[-1].is_answered():
            return False
        served = [client for client in exact if not client.how]
        if len(exact) <= rules.most and len(served) == len(exact):
            self._dial_crowd(float("inf"))
            return False
        if len(exact) <= rules.most or exact[-1].how == "timeout":
            self._note(f"of {len(exact)} where {rules.most} may, one ended: {exact[-1].how}")
        elif not exact[-1].how:
            self._note(f"{len(exact)} were served where {rules.most} may")
        for client in served:
            client.finish()
        self._exact, self._is_exact = [], True
        return False  # they have to end first

    @property
    def is_busy(self) -> bool:
        """The limit is being filled."""
        return bool(self._exact)

    def begin_rest(self) -> None:
        """A new rest."""
        self._is_exact, self._exact = False, []

    def settle(self, client: Client) -> str:
        """The outcome of one that failed a while ago, when no target can still name it."""
        is_refused = (
            client.is_established
            and not client.unique_id
            and not client.received
            and client.how in ("reset", "truncated")
        )
        if not is_refused:
            return client.how
        how = "limited" if client.kind == "crowd" else "blocked"
        account = self._traffic.account
        account.sent -= client.sent  # nobody has read it
        if how == "blocked":  # before a route was chosen
            account.established[client.place.route] -= 1
        return how

    def tell(self, client: Client, how: str) -> None:
        """A guest has its outcome, or a crowd's client."""
        if client.kind == "guest" and how in ("ok", "blocked"):
            self._traffic.tell(
                Guest(
                    host=client.source,
                    route=client.place.route,
                    begun_at=client.begun_at,
                    ended_at=client.ended_at,
                    how=how,
                )
            )

    def _dial_crowd(self, until: float) -> None:
        rules, traffic = self._rules, self._traffic
        assert rules is not None
        client = traffic.begin(
            rules.limited, traffic.small(), Way.CLIENT_LATE, "crowd", until, rules.crowd
        )
        if until == float("inf"):
            self._exact.append(client)

    def _note(self, sentence: str) -> None:
        found = self._traffic.account.limit_wrong
        if len(found) < MOST_NOTED:
            found.append(f"limit: {sentence} (at {self._traffic.loop.now:.3f})")


def is_refusable(client: Client) -> bool:
    """Whether the rules may close it."""
    return client.kind in ("crowd", "guest")


def open_ids(clients: list[Client]) -> list[str]:
    """Of long ones that go on."""
    return [client.unique_id for client in clients if parse_id(client.unique_id) is not None]
