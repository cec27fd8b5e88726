"""How a worker comes to a new generation: built beside the one that serves, then committed."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from typing import Final

from shared.errors import WorkerBootError
from shared.messages import Prepare, PrepareCertificates
from shared.plan import AddressSet, RoutePlan
from worker.access import Access
from worker.chores import Chores
from worker.generation import Generation, Lasting
from worker.held import HeldSockets
from worker.huge_pages import HugePages
from worker.limits import Limits
from worker.tls_contexts import Contexts

MANY_ROUTES: Final = 1000  # whose memory is worth huge pages
AHEAD_S: Final = 0.004  # of building TLS contexts at a time; one step may take as long again


class Preparing:
    """Holds the generation that is being built, and what lives on from one to the next."""

    def __init__(
        self, limits: Limits, contexts: Contexts, access: Access, held: HeldSockets
    ) -> None:
        self.limits = limits
        self.contexts = contexts
        self.access = access
        self._held = held
        self._lasting = Lasting()
        self._chores = Chores()
        self._next: Generation | None = None
        self._huge_pages = HugePages()
        self._collapsing: Iterator[None] | None = None  # of the memory of the next generation

    def begin(self, prepare: Prepare) -> None:
        """Start to build a generation beside the one that serves."""
        self._forget_next()
        self._next = Generation(prepare, self._lasting, self.limits, self.contexts)
        self._collapsing = None
        self.access.prepare(prepare.access)

    def add_set(self, addresses: AddressSet) -> int:
        """Build the next address set; returns how many are built."""
        return self._preparing().add_set(addresses)

    def add_certificates(self, message: PrepareCertificates) -> tuple[int, int]:
        """Take the next certificates and authorities; returns how many there are of each."""
        return self._preparing().add_certificates(message)

    def add_bodies(self, bodies: Mapping[str, bytes]) -> int:
        """Take the next bodies of answers; returns how many there are."""
        return self._preparing().add_bodies(bodies)

    def build_ahead(self) -> bool:
        """Do some of what is done once all routes are there: build TLS contexts, and put what
        many routes take into huge pages. False: call again, others come first.
        """
        generation = self._preparing()
        try:
            if not generation.build_ahead(AHEAD_S):
                return False
        except ssl.SSLError as exc:
            raise WorkerBootError(f"TLS of generation {generation.number}: {exc}") from exc
        if len(generation.routes) < MANY_ROUTES:
            return True
        if self._collapsing is None:
            self._collapsing = self._huge_pages.collapse()
        for _ in self._collapsing:
            return False
        return True

    def add_routes(self, routes: list[RoutePlan]) -> int:
        """Build one batch of routes; returns how many are built in all."""
        generation = self._preparing()
        try:
            generation.add_routes(routes)
        except (LookupError, ValueError) as exc:
            raise WorkerBootError(f"a route of generation {generation.number}: {exc}") from exc
        return len(generation.routes)

    def missing_sockets(self) -> list[tuple[int, int]]:
        """(listener, index) that the generation in preparation needs and that are not held yet."""
        return [
            (plan.id, index)
            for plan in self._preparing().listeners.values()
            for index in range(plan.sockets)
            if (plan.id, index) not in self._held
        ]

    def abort(self, generation: int) -> None:
        """Forget this generation, whose number does not return, and what was lent for it."""
        if self._next is not None and self._next.number == generation:
            self._forget_next()
        self._held.abort(generation)

    def _forget_next(self) -> None:
        if self._next is not None:
            self._chores.add(self._next.dismantle())
        self._next = None
        self.access.abort()

    def _preparing(self) -> Generation:
        if self._next is None:
            raise WorkerBootError("no generation is being prepared")
        return self._next
