"""The Prometheus text and the JSON of the same numbers, made from merged counters.

Workers count in plain Structs and report over ZeroMQ; the text is made here, when it is asked
for, by a collector of our own. prometheus-client's multiprocess files are not used: they grow
with every worker that ever ran. Names and labels are those of design section 6; no label ever
comes from a client.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

import msgspec
from msgspec import Struct, field
from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from shared.stats import Histogram, Totals, unrouted_requests
from supervisor.expiry import Use
from supervisor.facts import Facts, WorkerLoad


class Reading(Struct, frozen=True, kw_only=True):
    """Everything that one scrape shows, taken at one moment and changed by nobody since."""

    totals: Totals
    facts: Facts
    worker_states: dict[str, int]  # state: workers in it
    worker_lags: dict[int, float]  # slot: seconds
    worker_loads: dict[int, WorkerLoad]  # slot: what its workers accepted and hold
    restarts: dict[str, int]  # reason: times
    certificates: list[Use] = field(default_factory=list)


def render(reading: Reading, accept: str) -> tuple[bytes, str]:
    """The scrape as bytes, and its content type; ``accept`` is the request's Accept field.

    Never OpenMetrics, even where it is asked for: it wants a gauge and a counter to differ in more
    than ``_total`` (OpenMetrics 1.0, section "MetricFamily"), and route_connections is both.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Reader(reading))
    plain = ",".join(part for part in accept.split(",") if "openmetrics" not in part)
    encoder, content_type = choose_encoder(plain)
    return encoder(registry), content_type


def as_json(reading: Reading) -> bytes:
    """``{"metrics": [{"name", "labels", "value"}]}``, one object per sample of the scrape."""
    samples: list[dict[str, Any]] = [
        {"name": sample.name, "labels": sample.labels, "value": _number(sample.value)}
        for family in families(reading)
        for sample in family.samples
    ]
    return msgspec.json.encode({"metrics": samples})


def families(reading: Reading) -> Iterator[Metric]:
    """Every metric family of a reading."""
    yield from _listeners(reading.totals)
    yield from _routes(reading.totals)
    yield from _targets(reading.totals)
    yield from _requests(reading.totals)
    yield from _workers(reading)
    yield from _config(reading)
    yield from _certificates(reading)


class _Reader(Collector):
    """A reading in the shape that prometheus-client's encoders take."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    def collect(self) -> Iterator[Metric]:
        return families(self._reading)


def _number(value: float) -> float | int:
    return int(value) if math.isfinite(value) and value == int(value) else value


def _counter(name: str, text: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(f"proxyctl_{name}", text, labels=labels)


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"proxyctl_{name}", text, labels=labels)


def _listeners(totals: Totals) -> Iterator[Metric]:
    accepted = _counter("listener_accepted", "Connections accepted.", "listener")
    headers = _counter(
        "proxy_headers", "PROXY protocol headers read, by what they were.", "listener", "result"
    )
    refused = _counter(
        "refused", "Connections that ended before a route was chosen.", "listener", "end"
    )
    handshakes = _counter(
        "tls_handshakes", "TLS handshakes with clients, by outcome.", "listener", "result"
    )
    for name, listener in totals.listeners.items():
        accepted.add_metric([name], listener.accepted)
        for result, count in listener.proxy_headers.items():
            headers.add_metric([name, result], count)
        for end, count in listener.refused.items():
            refused.add_metric([name, end], count)
        for result, count in listener.tls_handshakes.items():
            handshakes.add_metric([name, result], count)
    yield from (accepted, headers, refused, handshakes)


def _routes(totals: Totals) -> Iterator[Metric]:
    active = _gauge("route_connections", "Connections open now.", "route")
    total = _counter("route_connections", "Connections for which this route was chosen.", "route")
    received = _counter("route_received_bytes", "Bytes from clients.", "route")
    sent = _counter("route_sent_bytes", "Bytes to clients.", "route")
    ends = _counter("connections_ended", "Connections that ended, by reason.", "route", "end")
    connect = HistogramMetricFamily(
        "proxyctl_connect_duration_seconds",
        "From the choice of a route until a target was connected.",
        labels=["route"],
    )
    for name, route in totals.routes.items():
        active.add_metric([name], route.active)
        total.add_metric([name], route.total)
        received.add_metric([name], route.received)
        sent.add_metric([name], route.sent)
        for end, count in route.ends.items():
            ends.add_metric([name, end], count)
        connect.add_metric([name], _cumulative(route.connect), route.connect.total)
    yield from (active, total, received, sent, ends, connect)


def _cumulative(histogram: Histogram) -> list[tuple[str, float]]:
    """Prometheus buckets count everything up to their bound, the last one all."""
    bounds = [*(str(bound) for bound in histogram.bounds()), "+Inf"]
    return list(zip(bounds, accumulate(histogram.buckets), strict=True))


def _targets(totals: Totals) -> Iterator[Metric]:
    labels = ("route", "target")
    active = _gauge("target_connections", "Connections to the target open now.", *labels)
    total = _counter("target_connections", "Connections made to the target.", *labels)
    received = _counter("target_received_bytes", "Bytes from the target.", *labels)
    sent = _counter("target_sent_bytes", "Bytes to the target.", *labels)
    failures = _counter(
        "target_connect_failures", "Dials of the target that failed.", *labels, "reason"
    )
    is_up = _gauge("target_up", "1 while the target is taken for reachable.", *labels)
    for route, counts in totals.routes.items():
        for name, target in counts.targets.items():
            active.add_metric([route, name], target.active)
            total.add_metric([route, name], target.total)
            received.add_metric([route, name], target.received)
            sent.add_metric([route, name], target.sent)
            is_up.add_metric([route, name], float(target.is_up))
            for reason, count in target.connect_failures.items():
                failures.add_metric([route, name, reason], count)
    yield from (active, total, received, sent, failures, is_up)


def _requests(totals: Totals) -> Iterator[Metric]:
    """Of HTTP. Routes without any request have none of these."""
    requests = _counter(
        "requests",
        "Requests by the class of the answer. No target: answered by ourselves; no route: none"
        " took it.",
        "route",
        "target",
        "code",
    )
    request = HistogramMetricFamily(
        "proxyctl_request_duration_seconds",
        "From the first byte of a request to the last one of its answer.",
        labels=["route"],
    )
    first_byte = HistogramMetricFamily(
        "proxyctl_first_byte_duration_seconds",
        "From the end of a request to the first byte of its answer.",
        labels=["route"],
    )
    for code, count in unrouted_requests(totals).items():
        requests.add_metric(["", "", code], count)
    for name, route in totals.routes.items():
        for code, count in route.requests.items():
            requests.add_metric([name, "", code], count)
        for target, counts in route.targets.items():
            for code, count in counts.requests.items():
                requests.add_metric([name, target, code], count)
        for family, histogram in ((request, route.request), (first_byte, route.first_byte)):
            if histogram is not None and any(histogram.buckets):
                family.add_metric([name], _cumulative(histogram), histogram.total)
    yield from (requests, request, first_byte)


def _workers(reading: Reading) -> Iterator[Metric]:
    workers = _gauge("workers", "Workers, by state.", "state")
    for state, count in reading.worker_states.items():
        workers.add_metric([state], count)
    restarts = _counter("worker_restarts", "Workers that were replaced, by reason.", "reason")
    for reason, count in reading.restarts.items():
        restarts.add_metric([reason], count)
    lags = _gauge("worker_loop_lag_seconds", "How late the last heartbeat was, by slot.", "slot")
    for slot, lag_s in sorted(reading.worker_lags.items()):
        lags.add_metric([str(slot)], lag_s)
    accepted = _counter(
        "worker_accepted", "Connections accepted, by slot; dead workers count on.", "slot"
    )
    active = _gauge("worker_connections", "Connections open now, by slot.", "slot")
    for slot, load in sorted(reading.worker_loads.items()):
        accepted.add_metric([str(slot)], load.accepted)
        active.add_metric([str(slot)], load.connections)
    yield from (workers, restarts, lags, accepted, active)
    yield from _sums(reading.totals)


def _sums(totals: Totals) -> Iterator[Metric]:
    """Counters without a label."""
    for name, text, value in (
        ("accept_pauses", "Times that accept stopped for want of descriptors.",
         totals.accept_pauses),
        ("log_lines_dropped", "Log lines that could not be written.", totals.log_lines_dropped),
        ("access_log_lines", "Lines written to the access log.", totals.access_lines),
        ("access_log_lines_dropped",
         "Access log lines lost for want of room, or because the file took no more.",
         totals.access_lines_dropped),
        ("limit_table_full", "Connections that a limit had no room to count.",
         totals.limit_table_full),
    ):  # fmt: skip
        counter = _counter(name, text)
        counter.add_metric([], value)
        yield counter


def _config(reading: Reading) -> Iterator[Metric]:
    facts = reading.facts
    draining = _gauge("draining_connections", "Open connections whose route was removed.")
    draining.add_metric([], facts.draining_connections)
    generation = _gauge("config_generation", "The generation that serves new connections.")
    generation.add_metric([], facts.generation)
    successful = _gauge("config_last_reload_successful", "1 if the last reload was accepted.")
    successful.add_metric([], float(facts.last_reload_ok))
    at = _gauge("config_last_reload_timestamp_seconds", "When the last reload ended, Unix time.")
    at.add_metric([], facts.last_reload_at)
    reloads = _counter("config_reloads", "Reloads, by result.", "result")
    reloads.add_metric(["ok"], facts.reloads_ok)
    reloads.add_metric(["refused"], facts.reloads_refused)
    build = InfoMetricFamily("proxyctl_build", "The version that runs.", labels=[])
    build.add_metric([], {"version": facts.version})
    yield from (draining, generation, successful, at, reloads, build)


def _certificates(reading: Reading) -> Iterator[Metric]:
    expiry = _gauge(
        "tls_certificate_expiry_timestamp_seconds",
        "When the certificate is no longer valid, Unix time.",
        "route",
        "certificate",
    )
    # One that a route shows to both clients and targets is one series.
    ends = {(use.route, use.certificate): use.expires for use in reading.certificates}
    for labels, expires in ends.items():
        expiry.add_metric(labels, expires)
    yield expiry
