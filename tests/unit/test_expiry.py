"""Which certificates are in use, and when one that expires is told of."""

from __future__ import annotations

from typing import Any, Final

from shared.plan import CertificatePlan, Endpoints, Plan, RoutePlan, TlsPlan, UpstreamTlsPlan
from supervisor.expiry import (
    DAY_S,
    WARN_S,
    Expiring,
    ExpiryWatch,
    Use,
    certificates_data,
    days_left,
    due,
    uses,
)

NOW: Final = 1_800_000_000.0


def certificate(name: str, days: float) -> CertificatePlan:
    """One that expires so many days after NOW."""
    return CertificatePlan(
        name=name,
        names=(f"{name}.example",),
        chain=b"",
        key=b"",
        key_algorithm="EC256",
        signature_algorithm="SHA256",
        digest=name,
        expires=NOW + days * DAY_S,
    )


def plan(*days: float) -> Plan:
    """Route `one` shows all certificates, `two` the first; `three` shows the last to targets."""
    certificates = tuple(certificate(chr(ord("a") + at), left) for at, left in enumerate(days))
    last = len(certificates) - 1
    every = tuple(range(len(certificates)))
    routes = (
        RoutePlan(name="one", order=0, listeners=(), terminate=TlsPlan(certificates=every)),
        RoutePlan(name="two", order=1, listeners=(), terminate=TlsPlan(certificates=(0, 0))),
        RoutePlan(
            name="three", order=2, listeners=(), upstream_tls=UpstreamTlsPlan(certificate=last)
        ),
        RoutePlan(name="four", order=3, listeners=()),
    )
    return Plan(
        generation=1,
        listeners=(),
        routes=routes,
        endpoints=Endpoints(addresses={}),
        certificates=certificates,
    )


def test_what_is_in_use() -> None:
    """By route, each certificate once; what targets see is not what clients see."""
    both = plan(10, 20)
    found = [(use.route, use.certificate, use.is_client) for use in uses(both)]
    shown = [("one", "a", False), ("one", "b", False), ("two", "a", False)]
    assert found == [*shown, ("three", "b", True)]


def test_what_status_says() -> None:
    """Each with its names, its end and the whole days that are left."""
    assert certificates_data(plan(1.5), NOW)[1] == {
        "route": "two",
        "certificate": "a",
        "shown_to": "clients",
        "names": ["a.example"],
        "expires": NOW + 1.5 * DAY_S,
        "days_left": 1,
    }
    shown = [(one["route"], one["shown_to"]) for one in certificates_data(plan(1.5), NOW)]
    assert shown == [("one", "clients"), ("two", "clients"), ("three", "targets")]
    assert days_left(NOW + DAY_S, NOW) == 1
    assert days_left(NOW, NOW) == 0
    assert days_left(NOW - 1, NOW) == -1


def use(days: float, route: str = "one") -> Use:
    """Of a certificate `a` that expires so many days after NOW."""
    return Use(route=route, certificate="a", names=(), expires=NOW + days * DAY_S)


def test_a_warning_comes_21_days_before() -> None:
    """Not a moment earlier; the routes that use the certificate share one."""
    early = NOW - 90 * DAY_S
    found = [use(21), use(21, "two")]
    assert due(found, {}, early, NOW - 0.001) == []
    assert due(found, {}, early, NOW) == []
    expected = [Expiring(certificate="a", expires=NOW + WARN_S, routes=("one", "two"))]
    assert due(found, {}, early, NOW + 0.001) == expected


def test_then_one_a_day() -> None:
    """Counted from the last one, also beyond the end."""
    early = NOW - 90 * DAY_S
    found = [use(2)]
    told = {("a", found[0].expires): NOW}
    assert due(found, told, early, NOW + DAY_S - 1) == []
    assert len(due(found, told, early, NOW + DAY_S)) == 1
    assert len(due(found, told, early, NOW + 30 * DAY_S)) == 1


def test_the_reading_of_a_generation_has_told_it() -> None:
    """A day after a reload is the first time, if it was due by then; else as soon as it is."""
    assert due([use(2)], {}, NOW, NOW + 60) == []
    assert len(due([use(2)], {}, NOW, NOW + DAY_S)) == 1
    assert len(due([use(21)], {}, NOW, NOW + 60)) == 1


def test_a_renewed_one_is_another() -> None:
    """What was said of the old one does not silence the new one."""
    told = {("a", NOW + DAY_S): NOW}
    assert len(due([use(3)], told, NOW - 90 * DAY_S, NOW + 60)) == 1


class Log:
    """Keeps what is logged: level, message and fields."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, Any]]] = []

    def warning(self, message: str, **fields: Any) -> None:
        self.lines.append(("warning", message, fields))

    def error(self, message: str, **fields: Any) -> None:
        self.lines.append(("error", message, fields))


def test_the_watch_says_it_once_a_day_and_louder_at_the_end() -> None:
    """Hour by hour over three days: a warning a day, then an error, then the new one is silent."""
    log: Any = Log()
    current = plan(1.75)
    watch = ExpiryWatch(lambda: (current, NOW - 90 * DAY_S), log)
    for hour in range(72):
        watch.look(NOW + hour * 3600)
    levels = [(level, message, fields["days_left"]) for level, message, fields in log.lines]
    assert levels == [
        ("warning", "a certificate expires soon", 1),
        ("warning", "a certificate expires soon", 0),
        ("error", "a certificate has expired", -1),
    ]
    assert log.lines[0][2]["routes"] == ["one", "two", "three"]
    current = plan(90)
    watch.look(NOW + 80 * 3600)
    assert len(log.lines) == 3
