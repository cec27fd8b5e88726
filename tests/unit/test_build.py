"""A generation under construction in a worker."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
from msgspec import structs

from shared.errors import WorkerBootError
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
from shared.plan import (
    AddressSet,
    AuthorityPlan,
    CertificatePlan,
    Endpoints,
    RoutePlan,
    Timeouts,
)
from worker.build import Build


class Plane:
    """A data plane that notes what it is told; ``fails_at`` names the step that raises."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.fails_at = ""
        self.missing: list[tuple[int, int]] = []
        self.sets = self.certificates = self.authorities = self.bodies = 0
        self.slices = 1  # that TLS contexts take

    def _step(self, name: str) -> None:
        self.steps.append(name)
        if name == self.fails_at:
            raise WorkerBootError(f"cannot {name}")

    def begin(self, prepare: Prepare) -> None:
        self._step("begin")

    def add_set(self, addresses: AddressSet) -> int:
        self._step("add_set")
        self.sets += 1
        return self.sets

    def add_routes(self, routes: list[RoutePlan]) -> int:
        self._step("add_routes")
        return len(routes)

    def add_certificates(self, message: PrepareCertificates) -> tuple[int, int]:
        self._step("add_certificates")
        self.certificates += len(message.certificates)
        self.authorities += len(message.authorities)
        return self.certificates, self.authorities

    def add_bodies(self, bodies: Mapping[str, bytes]) -> int:
        self._step("add_bodies")
        self.bodies += len(bodies)
        return self.bodies

    def build_ahead(self) -> bool:
        self.slices -= 1
        if self.fails_at == "build_ahead":
            raise WorkerBootError("cannot build_ahead")
        return self.slices <= 0

    def missing_sockets(self) -> list[tuple[int, int]]:
        return self.missing

    def abort(self, generation: int) -> None:
        self.steps.append(f"abort {generation}")

    def commit(self, generation: int) -> tuple[int, int]:
        self.steps.append(f"commit {generation}")
        return 3, 1


def prepare(generation: int, routes: int = 1) -> Prepare:
    """A generation without listeners."""
    return Prepare(
        generation=generation, listeners=[], routes=routes, endpoints=Endpoints(addresses={})
    )


def routes(generation: int, drain: float = 30.0) -> PrepareRoutes:
    """A batch of one route."""
    route = RoutePlan(name="r", order=0, listeners=(), timeouts=Timeouts(drain=drain))
    return PrepareRoutes(generation=generation, routes=[route])


@pytest.fixture
def said() -> list[WorkerMessage]:
    """What the worker has told the supervisor."""
    return []


@pytest.fixture
def plane() -> Plane:
    """A data plane."""
    return Plane()


@pytest.fixture
def due() -> list[Callable[[], None]]:
    """What is to be called in a later turn of the loop."""
    return []


@pytest.fixture
def build(plane: Plane, said: list[WorkerMessage], due: list[Callable[[], None]]) -> Build:
    """Under test."""
    return Build(plane, said.append, due.append)


def test_prepared_after_the_last_route(
    build: Build, plane: Plane, said: list[WorkerMessage]
) -> None:
    """Progress with each batch, Prepared once all routes are built; then it can be committed."""
    build.begin(prepare(2, routes=2))
    build.add_routes(routes(2))
    assert said == [Progress(generation=2, routes=1)]
    build.add_routes(routes(2, drain=45.0))
    assert said[-1] == Prepared(generation=2)
    build.commit(2)
    assert said[-1:] == [Committed(generation=2, kept=3, draining=1)]
    assert plane.steps == ["begin", "add_routes", "add_routes", "commit 2"]
    assert build.drain_s == 45.0


def test_prepared_only_with_every_address_set(
    build: Build, plane: Plane, said: list[WorkerMessage]
) -> None:
    """Sets that rules name are awaited too; one of another generation is ignored."""
    build.begin(structs.replace(prepare(2, routes=0), address_sets=2))
    build.add_set(PrepareSet(generation=2, addresses=AddressSet()))
    build.add_set(PrepareSet(generation=1, addresses=AddressSet()))
    assert said == []
    build.add_set(PrepareSet(generation=2, addresses=AddressSet()))
    assert said == [Prepared(generation=2)]
    assert plane.steps == ["begin", "add_set", "add_set"]


def test_prepared_only_with_every_certificate(
    build: Build, plane: Plane, said: list[WorkerMessage]
) -> None:
    """Certificates and authorities are counted apart; one of another generation is ignored."""
    certificate, authority = _certificate(), AuthorityPlan(name="ca", pem=b"", digest="d")
    build.begin(structs.replace(prepare(2, routes=0), certificates=2, authorities=1))
    build.add_certificates(PrepareCertificates(generation=1, certificates=[certificate] * 2))
    build.add_certificates(PrepareCertificates(generation=2, certificates=[certificate] * 2))
    assert said == []
    build.add_certificates(PrepareCertificates(generation=2, authorities=[authority]))
    assert said == [Prepared(generation=2)]
    assert plane.steps == ["begin", "add_certificates", "add_certificates"]


def test_prepared_only_with_every_body(
    build: Build, plane: Plane, said: list[WorkerMessage]
) -> None:
    """Bodies of answers are awaited too; those of another generation are ignored."""
    build.begin(structs.replace(prepare(2, routes=0), bodies=3))
    build.add_bodies(PrepareBodies(generation=2, bodies={"a": b"1", "b": b"2"}))
    build.add_bodies(PrepareBodies(generation=1, bodies={"c": b"3"}))
    assert said == []
    build.add_bodies(PrepareBodies(generation=2, bodies={"c": b"3"}))
    assert said == [Prepared(generation=2)]
    assert plane.steps == ["begin", "add_bodies", "add_bodies"]


def test_tls_contexts_are_built_in_slices(
    build: Build, plane: Plane, said: list[WorkerMessage], due: list[Callable[[], None]]
) -> None:
    """Each slice in a turn of its own; prepared after the last."""
    plane.slices = 3
    build.begin(prepare(2, routes=0))
    for _ in range(2):
        assert said == []
        due.pop()()
    assert said == [Prepared(generation=2)]
    assert due == []


def test_a_certificate_that_cannot_be_used_is_a_refusal(
    build: Build, plane: Plane, said: list[WorkerMessage]
) -> None:
    """Its reason is told."""
    plane.fails_at = "build_ahead"
    build.begin(prepare(2, routes=0))
    assert said == [Refused(generation=2, reason="cannot build_ahead")]


def _certificate() -> CertificatePlan:
    return CertificatePlan(
        name="a", names=(), chain=b"", key=b"", key_algorithm="", signature_algorithm="", digest="d"
    )


def test_prepared_only_with_every_socket(
    build: Build, plane: Plane, said: list[WorkerMessage], due: list[Callable[[], None]]
) -> None:
    """Routes alone are not enough; the sockets that come later complete it, looked at once."""
    plane.missing = [(1, 0)]
    build.begin(prepare(2, routes=0))
    assert said == []
    plane.missing = []
    build.sockets_came()
    build.sockets_came()
    assert len(due) == 1
    due[0]()
    assert said == [Prepared(generation=2)]


@pytest.mark.parametrize("step", ["begin", "add_routes"])
def test_whatever_fails_is_a_refusal(
    build: Build, plane: Plane, said: list[WorkerMessage], step: str
) -> None:
    """An error at any step is told with its reason, and what was begun is forgotten."""
    plane.fails_at = step
    build.begin(prepare(2))
    build.add_routes(routes(2))
    refusals = [message for message in said if isinstance(message, Refused)]
    assert refusals == [Refused(generation=2, reason=f"cannot {step}")]
    assert plane.steps[-1] == "abort 2"
    plane.fails_at = ""
    build.begin(prepare(3))
    build.add_routes(routes(3))
    assert said[-1] == Prepared(generation=3)


def test_stragglers_are_ignored(build: Build, plane: Plane, said: list[WorkerMessage]) -> None:
    """Routes and an Abort of another generation change nothing."""
    build.add_routes(routes(1))
    build.begin(prepare(2))
    build.add_routes(routes(1))
    build.abort(1)
    assert plane.steps == ["begin", "abort 1"]  # descriptors for it may have come all the same
    build.add_routes(routes(2))
    assert said[-1] == Prepared(generation=2)
    build.abort(2)
    assert plane.steps[-1] == "abort 2"


def test_commit_of_what_is_not_prepared_is_refused(
    build: Build, plane: Plane, said: list[WorkerMessage]
) -> None:
    """It is not carried out, and the worker goes on with what it has."""
    build.begin(prepare(2))
    build.commit(2)
    assert said == [
        Refused(generation=2, reason="commit of 2, but nothing is prepared", is_final=True)
    ]
    assert plane.steps == ["begin"]


def test_new_prepare_takes_the_place_of_the_old(build: Build, plane: Plane) -> None:
    """What was lent for the one before stays: its number may return."""
    build.begin(prepare(2))
    build.begin(prepare(3))
    build.add_routes(routes(2))
    build.begin(prepare(2))
    build.add_routes(routes(2))
    build.commit(2)
    assert plane.steps == ["begin", "begin", "begin", "add_routes", "commit 2"]
