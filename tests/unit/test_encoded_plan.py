"""A generation in messages: what goes in which, and how much in one."""

from __future__ import annotations

import asyncio

import pytest

from shared.messages import (
    ROUTES_PER_MESSAGE,
    Prepare,
    PrepareCertificates,
    PrepareRoutes,
    PrepareSet,
    decode_supervisor_message,
)
from shared.plan import (
    AddressSet,
    AnswerPlan,
    AuthorityPlan,
    CertificatePlan,
    Endpoints,
    Plan,
    RoutePlan,
)
from supervisor.encoded_plan import (
    CERTIFICATE_BYTES_PER_MESSAGE,
    CERTIFICATES_PER_MESSAGE,
    PLACES_PER_MESSAGE,
    EncodedPlan,
    encode_plan,
)

KEY = b"-----BEGIN PRIVATE KEY-----"


def certificate(number: int, size: int = 0) -> CertificatePlan:
    """One with a chain of so many bytes."""
    return CertificatePlan(
        name=f"{number}.pem",
        names=(),
        chain=bytes(size),
        key=KEY,
        key_algorithm="EC256",
        signature_algorithm="SHA256",
        digest=str(number),
    )


def authority(number: int, size: int) -> AuthorityPlan:
    """One of so many bytes."""
    return AuthorityPlan(name=str(number), pem=bytes(size), digest=str(number))


def encoded(
    certificates: list[CertificatePlan], authorities: list[AuthorityPlan] | None = None
) -> EncodedPlan:
    """A plan with these, and with one set and one route."""
    plan = Plan(
        generation=7,
        listeners=(),
        routes=(RoutePlan(name="a", order=0, listeners=()),),
        endpoints=Endpoints(addresses={}),
        address_sets=(AddressSet(),),
        certificates=tuple(certificates),
        authorities=tuple(authorities or ()),
    )
    return asyncio.run(encode_plan(plan))


def batches(plan: EncodedPlan) -> list[PrepareCertificates]:
    """The messages with certificates."""
    messages = [decode_supervisor_message(raw) for raw in plan.certificates]
    return [one for one in messages if isinstance(one, PrepareCertificates)]


def test_the_order_of_messages() -> None:
    """Prepare says how many follow; certificates come between sets and routes."""
    plan = encoded([certificate(1)], [authority(1, 10)])
    messages = [decode_supervisor_message(raw) for raw in plan.messages()]
    prepare = messages[0]
    assert isinstance(prepare, Prepare)
    assert (prepare.address_sets, prepare.certificates, prepare.authorities) == (1, 1, 1)
    assert [type(one) for one in messages[1:]] == [
        PrepareSet,
        PrepareCertificates,
        PrepareCertificates,
        PrepareRoutes,
    ]


def test_pages_where_no_route_is() -> None:
    """They go with the first message."""
    pages = ((404, AnswerPlan(status=404, body=b"gone")),)
    plan = Plan(
        generation=7,
        listeners=(),
        routes=(),
        endpoints=Endpoints(addresses={}),
        error_pages=pages,
    )
    prepare = decode_supervisor_message(asyncio.run(encode_plan(plan)).prepare)
    assert isinstance(prepare, Prepare)
    assert prepare.error_pages == pages


def test_a_plan_without_certificates_sends_none() -> None:
    """And says so."""
    plan = encoded([])
    prepare = decode_supervisor_message(plan.prepare)
    assert isinstance(prepare, Prepare)
    assert (prepare.certificates, prepare.authorities, plan.certificates) == (0, 0, [])


@pytest.mark.parametrize(
    ("count", "sizes"), [(1, [1]), (64, [64]), (65, [64, 1]), (200, [64, 64, 64, 8])]
)
def test_so_many_in_one_message(count: int, sizes: list[int]) -> None:
    """All of them come, in order, whole."""
    sent = [certificate(number, 100) for number in range(count)]
    found = batches(encoded(sent))
    assert [len(one.certificates) for one in found] == sizes
    assert [plan for one in found for plan in one.certificates] == sent
    assert max(sizes) <= CERTIFICATES_PER_MESSAGE


def test_so_many_bytes_in_one_message() -> None:
    """One that is larger than that goes alone."""
    half = CERTIFICATE_BYTES_PER_MESSAGE // 2
    sent = [authority(number, size) for number, size in enumerate((half, half, 1, 5 * half, 1))]
    found = batches(encoded([], sent))
    assert [len(one.authorities) for one in found] == [2, 1, 1, 1]
    assert [plan for one in found for plan in one.authorities] == sent


def test_so_many_places_in_one_message() -> None:
    """Routes with many networks, domains or targets take as long as many routes."""
    plain = RoutePlan(name="plain", order=0, listeners=())
    wide = RoutePlan(
        name="wide",
        order=1,
        listeners=(),
        domains=("a.test", "b.test"),
        client_ips=tuple(f"10.0.{n}.0/24" for n in range(PLACES_PER_MESSAGE // 4)),
    )
    plan = Plan(
        generation=7,
        listeners=(),
        routes=(plain, wide, wide, wide, *[plain] * (ROUTES_PER_MESSAGE + 1)),
        endpoints=Endpoints(addresses={}),
    )
    messages = [decode_supervisor_message(raw) for raw in asyncio.run(encode_plan(plan)).batches]
    found = [one.routes for one in messages if isinstance(one, PrepareRoutes)]
    assert [len(routes) for routes in found] == [2, 2, ROUTES_PER_MESSAGE, 1]
    assert tuple(one for routes in found for one in routes) == plan.routes


def test_no_repr_shows_a_key() -> None:
    """Neither that of the plan nor that of a message."""
    plan = encoded([certificate(1)])
    assert "PRIVATE" not in repr(plan)
    assert "PRIVATE" not in repr(batches(plan))
