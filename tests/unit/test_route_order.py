"""Which changes of the order in the file decide anew between routes."""

from __future__ import annotations

import pytest

from shared.plan import Endpoints, RoutePlan
from supervisor.compile import ListenerIds, compile_plan
from supervisor.config_file import load_bytes
from supervisor.route_order import is_reordered

IDS = ListenerIds()


def plans(*routes: tuple[str, str]) -> tuple[RoutePlan, ...]:
    """Routes of (name, what is in its ``match`` and behind that), in this order."""
    text = ", ".join(
        f"{{name: {name}, match: {{{match}, action: {{type: forward, targets: ['127.0.0.1:1']}}}}"
        for name, match in routes
    )
    config = load_bytes(f"{{listen: [127.0.0.1], routes: [{text}]}}".encode(), "f", "yaml").config
    made = compile_plan(
        config, generation=1, slots=1, listener_ids=IDS, endpoints=Endpoints(addresses={})
    )
    return made.routes


@pytest.mark.parametrize(
    ("one", "other", "decides"),
    [
        ("ports: [80]}", "ports: [80]}", True),
        ("ports: [80]}", "ports: [80, 81]}", True),
        ("ports: ['80-90']}", "ports: ['85-95']}", True),
        ("ports: [80]}", "ports: [81]}", False),
        ("ports: [85]}", "ports: ['80-90']}", False),
        ("ports: [80]}, priority: 5", "ports: [80]}", False),
        ("ports: [80], domains: [a.test]}", "ports: [80], domains: [b.test]}", False),
        ("ports: [80], domains: [a.test, b.test]}", "ports: [80], domains: [b.test]}", True),
        ("ports: [80], domains: ['*.test']}", "ports: [80], domains: [b.test]}", False),
        ("ports: [80], domains: ['*.test']}", "ports: [80], domains: ['test.*']}", True),
        ("ports: [80], domains: [a.test]}", "ports: [80]}", False),
        ("ports: [80], tls: true, alpn: [h2]}", "ports: [80], tls: true}", False),
    ],
)
def test_two_that_were_swapped(one: str, other: str, decides: bool) -> None:
    """Only where everything that is compared before the file may be equal."""
    before, after = plans(("one", one), ("other", other)), plans(("other", other), ("one", one))
    assert is_reordered(before, after) is decides
    assert not is_reordered(before, before)


def test_others_do_not_count() -> None:
    """What came, went or changed is told by itself, wherever it stands."""
    match = "ports: [80]}"
    before = plans(("gone", match), ("a", match), ("b", match))
    others = {"gone", "new"}
    assert not is_reordered(before, plans(("a", match), ("new", match), ("b", match)), others)
    assert is_reordered(before, plans(("b", match), ("new", match), ("a", match)), others)
