"""The list of routes: states, order and counters, as data and as text."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from shared.plan import Endpoints
from shared.stats import RouteCounts, TargetCounts, Totals
from supervisor import config_file
from supervisor.cli import views
from supervisor.compile import ListenerIds, compile_plan
from supervisor.routes import RoutesReading

CONFIG = """\
routes:
  - {name: web, tags: [x], match: {ports: [80, "8000-8010"], domains: [a.example, "*.b.example"]},
     action: {type: forward, targets: ["127.0.0.1:9000", {host: 127.0.0.2, port: 1, weight: 0}]}}
  - {name: off, enabled: false, match: {ports: [81]},
     action: {type: forward, targets: ["127.0.0.1:9000"]}}
  - {name: many, priority: 3, match: {ports: [82, 83, 84, 85, 86]},
     action: {type: forward, targets: ["127.0.0.1:9000"]}}
"""
TARGET = "127.0.0.1:9000"


@pytest.fixture
def reading(tmp_path: Path) -> RoutesReading:
    """The config above, compiled, with no counters."""
    path = tmp_path / "proxyctl.yaml"
    path.write_text(CONFIG)
    config = config_file.load(path).config
    plan = compile_plan(
        config,
        generation=5,
        slots=2,
        listener_ids=ListenerIds(),
        endpoints=Endpoints(addresses={}),
    )
    return RoutesReading(config=config, plan=plan, totals=Totals())


def states(reading: RoutesReading) -> dict[str, str]:
    """By name, in the order of the list."""
    return {route["name"]: route["state"] for route in reading.data()["routes"]}


def test_every_route_of_the_file_in_its_order(reading: RoutesReading) -> None:
    """With ports and domains as written, and zeros where nothing has happened."""
    data = reading.data()
    assert data["generation"] == 5
    assert states(reading) == {"web": "serving", "off": "disabled", "many": "serving"}
    assert data["routes"][0] == {
        "name": "web",
        "state": "serving",
        "ports": ["80", "8000-8010"],
        "domains": ["a.example", "*.b.example"],
        "priority": 0,
        "tags": ["x"],
        "targets": [TARGET, "127.0.0.2:1"],
        "connections": 0,
        "draining": 0,
        "total": 0,
        "received": 0,
        "sent": 0,
        "http": None,
    }


def test_counters_are_those_of_the_route(reading: RoutesReading) -> None:
    """Of connections and of bytes."""
    reading.totals.routes["many"] = RouteCounts(active=2, total=9, received=5, sent=7)
    route = reading.data()["routes"][2]
    assert [route[key] for key in ("connections", "total", "received", "sent")] == [2, 9, 5, 7]


def test_requests_stand_beside_the_counters(reading: RoutesReading) -> None:
    """Of a route that speaks HTTP, with the rate that the reading was given."""
    counts = RouteCounts(total=1, targets={TARGET: TargetCounts(requests={"2xx": 3, "5xx": 1})})
    counts.speak_http()
    assert counts.request is not None
    counts.request.observe(0.4)
    reading.totals.routes["many"] = counts
    rated = replace(reading, rates={"many": 1.25})
    assert [route["http"] is None for route in rated.data()["routes"]] == [True, True, False]
    http = rated.data()["routes"][2]["http"]
    assert (http["requests"], http["per_second"], http["error_rate"]) == (4, 1.25, 0.25)
    text = views.routes(rated.data())
    rows = [line.split() for line in text.partition("\n\n")[2].splitlines()]
    assert rows == [
        ["HTTP", "ROUTE", "REQUESTS", "PER", "S", "5XX", "P50", "P95", "P99"],
        ["many", "4", "1.2", "25.00%", "375", "ms", "488", "ms", "498", "ms"],
    ]


def test_no_target_up(reading: RoutesReading) -> None:
    """A target that takes no new connections does not help."""
    counts = RouteCounts(targets={TARGET: TargetCounts(is_up=False)})
    reading.totals.routes.update(web=counts, off=counts)
    assert states(reading) == {"web": "no_target_up", "off": "disabled", "many": "serving"}


def test_removed_routes_that_drain_come_last(reading: RoutesReading) -> None:
    """Those that have ended are left out, and so are routes that the file still has."""
    reading.totals.routes.update(
        gone=RouteCounts(total=4), leaving=RouteCounts(active=3, draining=3, total=8)
    )
    assert list(states(reading).items())[3:] == [("leaving", "draining")]
    assert reading.data()["routes"][3]["draining"] == 3


def test_the_text_is_a_table(reading: RoutesReading) -> None:
    """Long lists are cut; a dash stands for no domain."""
    reading.totals.routes["web"] = RouteCounts(
        active=1, total=10, received=2048, sent=5, targets={TARGET: TargetCounts(is_up=False)}
    )
    web = ["1", "10", "2.0 KiB", "5 B"]
    lines = [line.split("  ") for line in views.routes(reading.data()).splitlines()]
    assert [[cell.strip() for cell in line if cell] for line in lines] == [
        ["ROUTE", "STATE", "PORTS", "DOMAINS", "NOW", "TOTAL", "RECEIVED", "SENT"],
        ["web", "no target up", "80, 8000-8010", "a.example, *.b.example", *web],
        ["off", "disabled", "81", "-", "0", "0", "0 B", "0 B"],
        ["many", "serving", "82, 83, 84 and 2 more", "-", "0", "0", "0 B", "0 B"],
    ]
