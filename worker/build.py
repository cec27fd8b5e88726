"""A generation under construction in a worker (design section 3).

Routes come in batches and are built as they come, so traffic goes on in between. The generation
is prepared when all of its routes are built and all of its listeners are held. Whatever goes
wrong on the way is a Refused to the supervisor, never the end of the worker.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from shared.errors import InternalError, ProxyctlError
from shared.messages import (
    Committed,
    Prepare,
    PrepareBodies,
    PrepareCertificates,
    Prepared,
    PrepareRoutes,
    PrepareSet,
    Progress,
    Refused,
    WorkerMessage,
)
from shared.plan import AddressSet, RoutePlan

_NO_DRAIN_S = 0.0


class Generations(Protocol):
    """What of the data plane builds generations; see `worker/data_plane.py`."""

    def begin(self, prepare: Prepare) -> None: ...

    def add_set(self, addresses: AddressSet) -> int: ...

    def add_certificates(self, message: PrepareCertificates) -> tuple[int, int]: ...

    def add_bodies(self, bodies: Mapping[str, bytes]) -> int: ...

    def add_routes(self, routes: list[RoutePlan]) -> int: ...

    def build_ahead(self) -> bool: ...

    def missing_sockets(self) -> list[tuple[int, int]]: ...

    def abort(self, generation: int) -> None: ...

    def commit(self, generation: int) -> tuple[int, int]: ...


class Build:
    """At most one generation at a time. ``drain_s``: the longest drain of a committed route."""

    def __init__(
        self,
        plane: Generations,
        say: Callable[[WorkerMessage], None],
        later: Callable[[Callable[[], None]], object],
    ) -> None:
        """``later`` calls back in a later turn of the loop."""
        self._plane = plane
        self._say = say
        self._later = later
        self._prepare: Prepare | None = None
        self.routes = 0  # that have come
        self._sets = self._bodies = 0  # that have come
        self._certificates = self._authorities = 0
        self._prepared = 0  # generation that only waits for its Commit
        self._next_drain_s = _NO_DRAIN_S
        self._is_check_due = False
        self.drain_s = _NO_DRAIN_S

    def begin(self, prepare: Prepare) -> None:
        """Start over with this generation.

        What was lent for another one stays: its number may return, and its descriptors may have
        come before this does.
        """
        self._prepare = prepare
        self._prepared = 0
        self.routes = self._sets = self._certificates = self._authorities = self._bodies = 0
        self._next_drain_s = _NO_DRAIN_S
        try:
            self._plane.begin(prepare)
        except Exception as error:
            self._refuse(error)
            return
        self._check()

    def add_set(self, message: PrepareSet) -> None:
        """Build one address set; a straggler is ignored."""
        if self._prepare is None or self._prepare.generation != message.generation:
            return
        try:
            self._sets = self._plane.add_set(message.addresses)
        except Exception as error:
            self._refuse(error)
            return
        self._check()

    def add_certificates(self, message: PrepareCertificates) -> None:
        """Take certificates and authorities; a straggler is ignored."""
        if self._prepare is None or self._prepare.generation != message.generation:
            return
        self._certificates, self._authorities = self._plane.add_certificates(message)
        self._check()

    def add_bodies(self, message: PrepareBodies) -> None:
        """Take bodies of answers; a straggler is ignored."""
        if self._prepare is None or self._prepare.generation != message.generation:
            return
        self._bodies = self._plane.add_bodies(message.bodies)
        self._check()

    def add_routes(self, batch: PrepareRoutes) -> None:
        """Build one batch; a straggler of a generation that was given up is ignored."""
        if self._prepare is None or self._prepare.generation != batch.generation:
            return
        try:
            built = self._plane.add_routes(batch.routes)
        except Exception as error:
            self._refuse(error)
            return
        self.routes += len(batch.routes)
        longest = max((route.timeouts.drain for route in batch.routes), default=0.0)
        self._next_drain_s = max(self._next_drain_s, longest)
        self._say(Progress(generation=batch.generation, routes=built))
        self._check()

    def sockets_came(self) -> None:
        """Descriptors have come: look once, after all that are there have been taken."""
        if self._prepare is not None:
            self._check_later()

    def _check_later(self) -> None:
        if not self._is_check_due:
            self._is_check_due = True
            self._later(self._check)

    def commit(self, generation: int) -> None:
        """Serve by the prepared generation and say so; Refused when it is not that one.

        What is served goes on either way: a worker must not end for a message that it cannot obey.
        """
        if self._prepared != generation:
            reason = f"commit of {generation}, but {self._prepared or 'nothing'} is prepared"
            self._say(Refused(generation=generation, reason=reason, is_final=True))
            return
        self._prepared = 0
        kept, draining = self._plane.commit(generation)
        self.drain_s = self._next_drain_s
        self._say(Committed(generation=generation, kept=kept, draining=draining))

    def abort(self, generation: int) -> None:
        """Forget this generation, whose number does not return."""
        if self._building == generation:
            self._prepare = None
            self._prepared = 0
        self._plane.abort(generation)  # descriptors may be here even where its Prepare is not

    def forget(self) -> None:
        """Forget whatever is under construction."""
        if self._building:
            self.abort(self._building)

    @property
    def _building(self) -> int:
        return self._prepare.generation if self._prepare is not None else self._prepared

    def _check(self) -> None:
        self._is_check_due = False
        prepare = self._prepare
        if prepare is None or self.routes < prepare.routes or self._sets < prepare.address_sets:
            return
        if self._certificates < prepare.certificates or self._authorities < prepare.authorities:
            return
        if self._bodies < prepare.bodies:
            return
        try:
            if self._plane.missing_sockets():
                return
            if not self._plane.build_ahead():
                self._check_later()
                return
        except Exception as error:
            self._refuse(error)
            return
        self._prepare = None
        self._prepared = prepare.generation
        self._say(Prepared(generation=prepare.generation))

    def _refuse(self, error: Exception) -> None:
        prepare = self._prepare
        if prepare is None:
            raise InternalError("refused without a generation") from error
        reason = str(error) if isinstance(error, ProxyctlError) else f"{error!r}"
        self.forget()
        self._say(Refused(generation=prepare.generation, reason=reason))
