"""A checked Config to the Plan that workers get: everything resolved, in base units.

Pure but for `resolve_workers` and `resolve_slots`, which ask how many CPUs there are.
"""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec
from msgspec import structs

from shared.config import Config, ProxyProtocol, Route, Target, TlvFields
from shared.errors import ConfigError, Problem
from shared.plan import (
    Endpoints,
    ListenerPlan,
    Plan,
    ProxyPolicy,
    RoutePlan,
    SecurityPlan,
    TargetPlan,
    Timeouts,
    TlvPlan,
)
from shared.units import Address, is_ip
from supervisor.compile_http import HttpPlans
from supervisor.compile_rules import Rules, access_plan
from supervisor.compile_tls import TlsPlans, is_for_tls
from supervisor.config_listeners import (
    MAX_DESCRIPTORS,
    PortKey,
    addresses,
    enabled_routes,
    overrides_by_port,
    policy,
    port_keys,
)
from supervisor.config_taken_tls import taken_tls
from supervisor.cpu_count import usable_cpus
from supervisor.sent_bodies import SentBodies

EXTENDED_IDLE_FACTOR: Final = 6  # keep_alive: extended (design section 4)
_FINGERPRINT_BYTES: Final = 16
_encode: Final = msgspec.msgpack.Encoder(order="deterministic").encode


class ListenerIds:
    """The id of each address ever served in this run. An id is never given to another address."""

    def __init__(self) -> None:
        self._ids: dict[Address, int] = {}

    def id_of(self, address: Address) -> int:
        """The same number whenever this address is asked for; from 1."""
        return self._ids.setdefault(address, len(self._ids) + 1)


def compile_plan(
    config: Config,
    *,
    generation: int,
    slots: int,
    listener_ids: ListenerIds,
    endpoints: Endpoints,
    descriptors: int = MAX_DESCRIPTORS,
) -> Plan:
    """The plan of a config that `supervisor.config_file.load` has accepted.

    ``slots``: sockets per listener (`resolve_slots`). ``descriptors``: how many listening sockets
    there may be in all. ConfigError where the ports do not fit into that.
    """
    overrides = overrides_by_port(config)
    listeners: dict[int, ListenerPlan] = {}
    by_port: dict[PortKey, tuple[int, ...]] = {}
    single: set[int] = set()
    routes: list[RoutePlan] = []
    rules = Rules()
    tls = TlsPlans()
    http = HttpPlans(config.http)
    bodies = SentBodies()
    taken = taken_tls(config).tls
    security = rules.compile(config.security)
    for place, route in enabled_routes(config):
        keys = port_keys(route.match.ports)
        for key in keys:
            if key in by_port:
                continue
            override = overrides.get(key)
            proxy = _policy(policy(config, override))
            bound = addresses(config, key, override)
            by_port[key] = tuple(listener_ids.id_of(address) for address in bound)
            for id_, address in zip(by_port[key], bound, strict=True):
                listeners[id_] = _listener(id_, address, slots, proxy)
        own = frozenset(id_ for key, is_own in keys.items() if is_own for id_ in by_port[key])
        single |= own
        ids = tuple(sorted(id_ for key in keys for id_ in by_port[key]))
        plan = structs.replace(
            _route(config, route, place, ids, own),
            tls=is_for_tls(route, taken.get(place)),
            http=http.compile(route),
            terminate=tls.terminate(route.action.tls or taken.get(place)),
            upstream_tls=tls.upstream(route.action.upstream_tls),
        )
        routes.append(_with_rules(plan, tls, rules, bodies, rules.compile_route(route.security)))
    fitted = _fit(listeners, single, descriptors)
    return Plan(
        generation=generation,
        listeners=tuple(fitted[id_] for id_ in sorted(fitted)),
        routes=tuple(routes),
        endpoints=endpoints,
        security=security,
        address_sets=tuple(rules.sets),
        access=access_plan(config.log.access),
        certificates=tuple(tls.certificates),
        authorities=tuple(tls.authorities),
        error_pages=http.error_pages,
    )


def _listener(id_: int, address: Address, slots: int, proxy: ProxyPolicy) -> ListenerPlan:
    return ListenerPlan(
        id=id_,
        name=str(address),
        host=address.host,
        port=address.port,
        path=address.path,
        sockets=1 if address.path else slots,
        proxy=proxy,
    )


def _fit(
    listeners: dict[int, ListenerPlan], single: set[int], descriptors: int
) -> dict[int, ListenerPlan]:
    """Ports that only ranges name get one shared socket where there would be too many."""
    if sum(listener.sockets for listener in listeners.values()) <= descriptors:
        return listeners
    fitted = {
        id_: listener if id_ in single else structs.replace(listener, sockets=1)
        for id_, listener in listeners.items()
    }
    needed = sum(listener.sockets for listener in fitted.values())
    if needed > descriptors:
        message = f"the ports need {needed} listening sockets, {descriptors} are the most"
        hint = "serve fewer ports or listen addresses, write them as ranges, or lower max_workers"
        raise ConfigError([Problem(message=message, path="routes", code="descriptors", hint=hint)])
    return fitted


def _policy(settings: ProxyProtocol) -> ProxyPolicy:
    return ProxyPolicy(
        trusted=tuple(str(source) for source in settings.trusted if not source.is_name),
        trusted_names=tuple(str(source) for source in settings.trusted if source.is_name),
        versions=tuple(settings.versions),
        required=settings.required,
        header_timeout=float(settings.header_timeout),
        untrusted=settings.untrusted,
        local=settings.local,
    )


def _route(
    config: Config, route: Route, place: int, listeners: tuple[int, ...], single: frozenset[int]
) -> RoutePlan:
    action = route.action
    half_open = config.half_open if action.half_open is None else action.half_open
    return RoutePlan(
        name=str(route.name),
        order=place,
        listeners=listeners,
        single_port=single,
        priority=route.priority,
        client_ips=tuple(str(network) for network in route.match.client_ips),
        domains=tuple(dict.fromkeys(map(str, route.match.domains))),
        tls_versions=tuple(dict.fromkeys(map(str, route.match.tls_versions))),
        alpn=tuple(dict.fromkeys(map(str, route.match.alpn))),
        targets=tuple(_target(target) for target in action.targets),
        send_proxy=action.send_proxy,
        send_proxy_tlvs=tuple(_tlv(tlv) for tlv in action.send_proxy_tlvs),
        timeouts=_timeouts(config, route),
        half_open=half_open,
    )


def _with_rules(
    plan: RoutePlan,
    tls: TlsPlans,
    rules: Rules,
    bodies: SentBodies,
    security: SecurityPlan | None,
) -> RoutePlan:
    """The plan with its rules and its fingerprint, which is equal exactly for equal routes.

    The place in the file is left out: a route that is written above another does not change it;
    and so are the places of lists and certificates among those of this generation.
    """
    bare = structs.replace(bodies.without(plan), order=0, terminate=None, upstream_tls=None)
    content = _encode((bare, tls.content(plan), rules.content(security)))
    digest = hashlib.blake2b(content, digest_size=_FINGERPRINT_BYTES).hexdigest()
    return structs.replace(plan, security=security, fingerprint=digest)


def _target(target: Target) -> TargetPlan:
    return TargetPlan(
        name=target.name,
        host=target.address.host,
        port=target.address.port,
        path=target.address.path,
        weight=target.weight,
    )


def _tlv(tlv: str | TlvFields) -> TlvPlan:
    if isinstance(tlv, str):
        return TlvPlan(name=tlv)
    return TlvPlan(type=int(tlv.type), value=bytes(tlv.value))


def _timeouts(config: Config, route: Route) -> Timeouts:
    given = {
        name: value
        for name, value in structs.asdict(route.action.timeouts).items()
        if value is not None
    }
    merged = {**structs.asdict(config.timeouts), **given}
    idle = float(merged["idle"])
    match route.action.keep_alive or config.keep_alive:
        case "extended":
            idle *= EXTENDED_IDLE_FACTOR
        case "immortal":
            idle = 0.0
    return Timeouts(
        connect=float(merged["connect"]),
        initial_data=float(merged["initial_data"]),
        tls_handshake=float(merged["tls_handshake"]),
        idle=idle,
        half_closed=float(merged["half_closed"]),
        lifetime=float(merged["lifetime"]),
        drain=float(merged["drain"]),
        request_head=float(merged["request_head"]),
        http_keep_alive=float(merged["http_keep_alive"]),
        response=float(merged["response"]),
    )


def names_of(config: Config) -> set[str]:
    """The host names that must be resolved: of targets and of trusted sources that are in use."""
    overrides = overrides_by_port(config)
    names: set[str] = set()
    served: set[PortKey] = set()
    for _, route in enabled_routes(config):
        hosts = (target.address.host for target in route.action.targets)
        names.update(host for host in hosts if host and not is_ip(host))
        served.update(port_keys(route.match.ports))
    policies = [policy(config, own) for key, own in overrides.items() if key in served]
    if any(key not in overrides for key in served):
        policies.append(config.proxy_protocol)
    for settings in policies:
        names.update(str(source) for source in settings.trusted if source.is_name)
    return names


def resolve_workers(config: Config, override: int | None = None, cpus: int | None = None) -> int:
    """How many workers to run: ``override`` (``--workers``), else the file, else the CPUs.

    ``cpus``: how many may be used; asked of the system where it is not given. With ``auto`` never
    more than a ``max_workers`` that is written. ConfigError where ``override`` is below 1.
    """
    if override is not None:
        if override < 1:
            raise ConfigError([Problem(message=f"{override} workers are too few; 1 is the least")])
        return override
    if isinstance(config.workers, int):
        return config.workers
    count = usable_cpus() if cpus is None else cpus
    return min(count, config.max_workers) if isinstance(config.max_workers, int) else count


def resolve_slots(config: Config, workers: int, cpus: int | None = None) -> int:
    """How many workers there is room for: ``max_workers``, or max(2 x workers, CPUs).

    ConfigError where ``workers`` (from `resolve_workers`) do not fit into ``max_workers``.
    """
    if isinstance(config.max_workers, int):
        if workers > config.max_workers:
            message = (
                f"{workers} workers do not fit into max_workers, which is {config.max_workers}"
            )
            raise ConfigError([Problem(message=message, path="max_workers", code="conflict")])
        return config.max_workers
    return max(2 * workers, usable_cpus() if cpus is None else cpus)
