"""Which client a PROXY header names, and the account of headers that name none."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final

from loadtests.soak_wire import Account, Numbers, Tally, parse_id

if TYPE_CHECKING:
    from loadtests.soak_client import Client, Key

STRANGE_KEPT: Final = 20  # of the headers that name no client, with what they say


class Names:
    """The clients of a traffic process by what a target reads of them."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._clients: dict[Key, Client] = {}
        self._numbers: dict[int, Numbers] = {}

    def add(self, client: Client) -> None:
        """From now on its header may be read."""
        self._clients[client.key] = client

    def forget(self, client: Client) -> None:
        """No header of it can come any more."""
        if self._clients.get(client.key) is client:
            del self._clients[client.key]

    def named(self, key: Key, unique_id: str, now: float) -> tuple[Tally, Client | None]:
        """A target read a header: the tally of its worker, and the client where it is known."""
        account = self._account
        account.headers += 1
        known = parse_id(unique_id)
        incarnation, number = known if known is not None else (-1, 0)
        tally = account.incarnations.get(incarnation)
        if tally is None:
            tally = account.incarnations[incarnation] = Tally()
            self._numbers[incarnation] = Numbers()
        client = self._clients.get(key)
        if not self._numbers[incarnation].add(number):
            self._strange(key, f"the id {unique_id} was there before", now)
        if client is None or client.unique_id:
            whose = "that nobody dialled from" if client is None else f"of {client.unique_id}"
            self._strange(key, f"id {unique_id} of an address {whose}", now)
            return tally, None
        client.unique_id, client.tally = unique_id, tally
        return tally, client

    def _strange(self, key: Key, what: str, now: float) -> None:
        account = self._account
        account.strangers += 1
        if len(account.strange) < STRANGE_KEPT:
            source = f"{socket.inet_ntop(socket.AF_INET, key[0])}:{key[1]}"
            account.strange.append(f"{what}: {source} to port {key[2]} at {now:.3f}")

    def ids(self) -> dict[int, bytes]:
        """By incarnation: the numbers that were read, as in Numbers."""
        return {one: bytes(found.bits) for one, found in self._numbers.items()}
