"""One thing for everyone, and one for each network: found for a client at a cost that does not
grow with the number of networks, only with that of the prefix lengths that occur.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from shared.networks import BITS, Network

T = TypeVar("T")

# As `shared.networks.split_ip` gives it; None: a client on a Unix socket, whom no network holds.
Client = tuple[int, int] | None


class ByNetwork(Generic[T]):
    """What ``make`` gives, made at the first use of its network."""

    __slots__ = ("_make", "_tables", "anyone")

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self.anyone = make()
        self._tables: dict[tuple[int, int], dict[int, T]] = {}  # by version and bits to drop

    @property
    def has_networks(self) -> bool:
        """Whether the client's address makes a difference."""
        return bool(self._tables)

    def at(self, network: Network | None) -> T:
        """The one of this network, or of everyone."""
        if network is None:
            return self.anyone
        shift = BITS[network.version] - network.prefix
        table = self._tables.setdefault((network.version, shift), {})
        base = network.base >> shift
        found = table.get(base)
        if found is None:
            found = table[base] = self._make()
        return found

    def over(self, client: Client) -> list[T]:
        """Those of all networks that hold this client, and the one of everyone."""
        found = [self.anyone]
        if self._tables and client is not None:
            version, number = client
            for (family, shift), table in self._tables.items():
                if family == version:
                    one = table.get(number >> shift)
                    if one is not None:
                        found.append(one)
        return found

    def __iter__(self) -> Iterator[T]:
        """Every one that was made."""
        yield self.anyone
        for table in self._tables.values():
            yield from table.values()
