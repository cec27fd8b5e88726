"""The text and the JSON made from merged counters."""

from __future__ import annotations

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from shared.stats import (
    CONNECT_BUCKETS,
    Histogram,
    ListenerCounts,
    RouteCounts,
    Snapshot,
    TargetCounts,
    Totals,
    add,
)
from supervisor.expiry import Use
from supervisor.facts import Facts, WorkerLoad
from supervisor.metrics import Reading, as_json, render

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def snapshot(slot: int) -> Snapshot:
    """A worker's report in which every counter has a value of its own."""
    connect = Histogram()
    connect.observe(0.0003)
    connect.observe(99.0)
    target = TargetCounts(
        active=slot, total=7, received=70, sent=700, connect_failures={"refused": 2}
    )
    route = RouteCounts(
        active=slot,
        total=9,
        received=1000,
        sent=2000,
        ends={"client_closed": 5, "idle_timeout": 1},
        targets={"127.0.0.1:9000": target},
        connect=connect,
    )
    refused = {"no_route": 2, "blocked": 3, "limit": 4, "rate": 5}
    listener = ListenerCounts(
        accepted=11, proxy_headers={"v2": 3}, refused=refused, tls_handshakes={"resumed": 7},
        requests={"4xx": 8},
    )  # fmt: skip
    web = RouteCounts(
        total=1,
        requests={"3xx": 6},
        targets={"w:1": TargetCounts(requests={"2xx": 30, "5xx": 4})},
    )
    web.speak_http()
    assert web.request is not None
    assert web.first_byte is not None
    web.request.observe(45.0)
    web.first_byte.observe(0.003)
    return Snapshot(
        accept_pauses=1,
        log_lines_dropped=4,
        access_lines=30,
        access_lines_dropped=5,
        limit_table_full=6,
        listeners={"127.0.0.1:8080": listener},
        routes={"api": route, "web": web},
    )


def reading(totals: Totals | None = None) -> Reading:
    """A reading over two workers, or over the given totals."""
    if totals is None:
        totals = Totals()
        add(totals, snapshot(1))
        add(totals, snapshot(2))
    facts = Facts(
        version="1.2.3",
        generation=12,
        reloads_ok=4,
        reloads_refused=1,
        last_reload_ok=False,
        last_reload_at=1700000000.5,
        draining_connections=6,
    )
    return Reading(
        totals=totals,
        facts=facts,
        worker_states={"ready": 2, "starting": 0},
        worker_lags={1: 0.25, 0: 0.5},
        worker_loads={0: WorkerLoad(accepted=40, connections=3)},
        restarts={"crash": 3},
        certificates=[
            Use(route="api", certificate="tls/a.pem", names=("a.example",), expires=1800000000.0)
        ],
    )


def samples(text: str) -> Samples:
    """Every sample of a scrape in Prometheus's text format."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def key(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    """A sample's name and labels."""
    return f"proxyctl_{name}", frozenset(labels.items())


def test_every_number_of_the_workers_is_in_the_text() -> None:
    """Counters of two workers come out added up, under the names and labels of the reference."""
    body, content_type = render(reading(), "")
    found = samples(body.decode())
    target = {"route": "api", "target": "127.0.0.1:9000"}
    expected = {
        key("listener_accepted_total", listener="127.0.0.1:8080"): 22,
        key("proxy_headers_total", listener="127.0.0.1:8080", result="v2"): 6,
        key("refused_total", listener="127.0.0.1:8080", end="no_route"): 4,
        key("refused_total", listener="127.0.0.1:8080", end="blocked"): 6,
        key("refused_total", listener="127.0.0.1:8080", end="limit"): 8,
        key("refused_total", listener="127.0.0.1:8080", end="rate"): 10,
        key("route_connections", route="api"): 3,
        key("route_connections_total", route="api"): 18,
        key("route_received_bytes_total", route="api"): 2000,
        key("route_sent_bytes_total", route="api"): 4000,
        key("connections_ended_total", route="api", end="client_closed"): 10,
        key("connections_ended_total", route="api", end="idle_timeout"): 2,
        key("target_connections", **target): 3,
        key("target_connections_total", **target): 14,
        key("target_received_bytes_total", **target): 140,
        key("target_sent_bytes_total", **target): 1400,
        key("target_connect_failures_total", **target, reason="refused"): 4,
        key("target_up", **target): 1,
        key("workers", state="ready"): 2,
        key("workers", state="starting"): 0,
        key("worker_restarts_total", reason="crash"): 3,
        key("worker_loop_lag_seconds", slot="0"): 0.5,
        key("worker_loop_lag_seconds", slot="1"): 0.25,
        key("accept_pauses_total"): 2,
        key("log_lines_dropped_total"): 8,
        key("worker_accepted_total", slot="0"): 40,
        key("worker_connections", slot="0"): 3,
        key("access_log_lines_total"): 60,
        key("access_log_lines_dropped_total"): 10,
        key("limit_table_full_total"): 12,
        key("draining_connections"): 6,
        key("config_generation"): 12,
        key("config_last_reload_successful"): 0,
        key("config_last_reload_timestamp_seconds"): 1700000000.5,
        key("config_reloads_total", result="ok"): 4,
        key("config_reloads_total", result="refused"): 1,
        key("build_info", version="1.2.3"): 1,
        key(
            "tls_certificate_expiry_timestamp_seconds", route="api", certificate="tls/a.pem"
        ): 1800000000,
        key("tls_handshakes_total", listener="127.0.0.1:8080", result="resumed"): 14,
    }
    assert {name: found.get(name) for name in expected} == expected
    assert content_type.startswith("text/plain")
    assert not any(name.endswith("_created") for name, _ in found)


def test_histogram_buckets_are_cumulative() -> None:
    """Each bucket counts everything up to its bound, and the last one all."""
    found = samples(render(reading(), "")[0].decode())
    name = "connect_duration_seconds"

    def bucket(bound: str) -> float | None:
        return found.get(key(f"{name}_bucket", route="api", le=bound))

    assert bucket("0.00025") == 0
    assert bucket("0.0005") == 2
    assert bucket(str(CONNECT_BUCKETS[-1])) == 2
    assert bucket("+Inf") == 4
    assert found[key(f"{name}_count", route="api")] == 4
    assert found[key(f"{name}_sum", route="api")] == 2 * (0.0003 + 99.0)


def test_requests_are_told_by_route_target_and_class() -> None:
    """Without a target where the answer was our own, without a route where none took it."""
    found = samples(render(reading(), "")[0].decode())
    requests = {
        tuple(sorted(labels)): value
        for (name, labels), value in found.items()
        if name == "proxyctl_requests_total"
    }
    assert requests == {
        (("code", "4xx"), ("route", ""), ("target", "")): 16,
        (("code", "3xx"), ("route", "web"), ("target", "")): 12,
        (("code", "2xx"), ("route", "web"), ("target", "w:1")): 60,
        (("code", "5xx"), ("route", "web"), ("target", "w:1")): 8,
    }


def test_durations_of_requests_are_told_where_there_were_any() -> None:
    """With buckets up to five minutes; routes without requests have none of these."""
    idle = RouteCounts(total=1)
    idle.speak_http()
    totals = Totals(routes={"idle": idle})
    add(totals, snapshot(1))
    found = samples(render(reading(totals), "")[0].decode())
    for name, bound, seconds in (
        ("request_duration_seconds", "60.0", 45.0),
        ("first_byte_duration_seconds", "0.005", 0.003),
    ):
        assert found[key(f"{name}_bucket", route="web", le=bound)] == 1
        assert found[key(f"{name}_bucket", route="web", le="300.0")] == 1
        assert found[key(f"{name}_bucket", route="web", le="+Inf")] == 1
        assert found[key(f"{name}_sum", route="web")] == seconds
        labels = {dict(labels).get("route") for one, labels in found if name in one}
        assert labels == {"web"}
    assert found[key("request_duration_seconds_bucket", route="web", le="30.0")] == 0


def test_who_prefers_openmetrics_gets_the_plain_format() -> None:
    """Prometheus asks for OpenMetrics first, whose rules our names do not meet, and takes text."""
    accept = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5"
    body, content_type = render(reading(), accept)
    assert content_type.startswith("text/plain")
    assert b"# EOF" not in body


def test_json_has_the_same_samples_as_the_text() -> None:
    """`/stats` and `/metrics` never tell different numbers."""
    text = samples(render(reading(), "")[0].decode())
    document = msgspec.json.decode(as_json(reading()))
    assert set(document) == {"metrics"}
    as_samples = {
        (entry["name"], frozenset(entry["labels"].items())): entry["value"]
        for entry in document["metrics"]
    }
    assert as_samples == text


def test_names_of_the_config_are_escaped() -> None:
    """A quote, a backslash or a line end in a name does not break the scrape."""
    name = 'a"b\\c\nd'
    totals = Totals(routes={name: RouteCounts(total=5)})
    found = samples(render(reading(totals), "")[0].decode())
    assert found[key("route_connections_total", route=name)] == 5


def test_a_proxy_without_traffic_has_a_valid_scrape() -> None:
    """Before the first connection both formats are complete."""
    body, _ = render(reading(Totals()), "")
    assert samples(body.decode())[key("accept_pauses_total")] == 0
