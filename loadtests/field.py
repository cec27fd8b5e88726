"""Everything that takes part in a comparison: the origins, and how each proxy is started."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from msgspec import Struct, field

from loadtests import http_measure, measure, tls_measure
from loadtests.figures import Sample
from loadtests.http_peers import ALL_ROUTES, ROUTES, HttpOrigin, running_http, start_origin
from loadtests.peers import (
    V2,
    Subject,
    front_config,
    origin_config,
    running,
    start_haproxy,
    start_nginx,
)
from loadtests.processes import Workspace, find_program, wait_listening
from loadtests.tls_peers import NAMES, Origins, running_tls, start_origins
from loadtests.works import BY_NAME, FEW, HTTP, MANY, OFF, PLAIN, SOURCE, TLS

FROM_SOURCE: Final = frozenset(
    {"http_kept", "http_connections", "http_1m", "https_kept", "https_connections", "https_1m"}
)
RULES: Final = frozenset({"connections", "messages"})  # where rules, limits and log are felt

Load = Callable[[measure.Options], Sample]


class Field(Struct, kw_only=True):
    """Ports are taken once; each start of a proxy binds them again."""

    works: list[str]
    templates: dict[str, str | None]  # by proxy, in the order of the first round
    targets: dict[str, int] = field(default_factory=dict)  # port behind a plain work
    fronts: dict[str, int] = field(default_factory=dict)  # where the HAProxy in front takes clients
    origins: Origins | None  # behind the works with TLS
    http_origin: HttpOrigin | None  # behind the works with HTTP
    ports: dict[tuple[str, str, int], int] = field(default_factory=dict)  # of starts

    def port(self, space: Workspace, work: str, name: str, nth: int) -> int:
        """Where the ``nth`` start of a proxy at one time takes a work."""
        key = (work, name, nth)
        if key not in self.ports:
            self.ports[key] = space.port()
        return self.ports[key]


def does(name: str, template: str | None, work: str) -> bool:
    """Whether a proxy does a work: nginx stream sends v1 only, of a command nothing is known.

    With all rules off only the two works are measured in which they could be felt, from source
    some of HTTP.
    """
    if name == SOURCE:
        return work in FROM_SOURCE
    if BY_NAME[work].group in (TLS, HTTP):
        is_pair = name in (FEW, MANY)
        return template is None and is_pair == (work in (NAMES, ROUTES, ALL_ROUTES)) and name != OFF
    if name in (FEW, MANY):
        return False
    if name == OFF:
        return work in RULES
    return work != V2 or (name != "nginx" and template is None)


def start_field(space: Workspace, works: list[str], templates: dict[str, str | None]) -> Field:
    """Start the origins, and the HAProxy in front, which stay up; no proxy is started yet."""
    groups = {BY_NAME[work].group for work in works}
    made = Field(
        works=works,
        templates=templates,
        origins=start_origins(space) if TLS in groups else None,
        http_origin=start_origin(space) if HTTP in groups else None,
    )
    if PLAIN not in groups:
        return made
    port, v2_port, bulk_port = space.port(), space.port(), space.port()
    start_nginx(space, "origin", origin_config(space.directory, port, v2_port), port)
    made.targets = {"connections": port, "messages": port, "bulk": bulk_port, V2: v2_port}
    if "bulk" in works:
        command = [find_program("iperf3"), "--server", "--bind", "127.0.0.1"]
        iperf = space.start("iperf3", [*command, "--port", str(bulk_port)])
        wait_listening(iperf, bulk_port)
    if V2 in works:
        _start_front(space, made)
    return made


def _start_front(space: Workspace, made: Field) -> None:
    forwards = {
        name: (space.port(), made.port(space, V2, name, 0))
        for name, template in made.templates.items()
        if does(name, template, V2)
    }
    if forwards:
        made.fronts = {name: port for name, (port, _) in forwards.items()}
        start_haproxy(space, "front", front_config(forwards), next(iter(made.fronts.values())))


@contextmanager
def started(
    space: Workspace, made: Field, work: str, name: str, nth: int, number: int
) -> Iterator[Callable[[measure.Options, Sequence[Sample]], Sample]]:
    """A proxy that was started for a work; what loads it once, given what is known of the round.

    ``nth`` start of this proxy of those at one time, from 0; ``number`` is the round's.
    """
    port = made.port(space, work, name, nth)
    group = BY_NAME[work].group
    if made.http_origin is not None and group == HTTP:
        with running_http(space, name, work, port, made.http_origin, nth) as subject:
            yield lambda options, earlier: http_measure.measure(
                space, subject, work, options, number, earlier
            )
    elif (origins := made.origins) is not None and group == TLS:
        with running_tls(space, name, work, port, origins, nth) as subject:
            yield lambda options, _: tls_measure.measure(
                space, subject, work, origins, options, number
            )
    else:
        forwards = {work: (port, made.targets[work])}
        label = f"{name}-{work}-{nth}"
        with running(space, name, forwards, made.templates[name], label) as subject:
            yield lambda options, _: _plain(made, subject, work, options, number)


def _plain(
    made: Field, subject: Subject, work: str, options: measure.Options, number: int
) -> Sample:
    if work == V2:
        front = made.fronts[subject.name]
        if not options.is_warm:
            measure.check_address(subject, front)
        return measure.proxy_v2(subject, front, options, number)
    single = {
        "connections": measure.connections,
        "messages": measure.messages,
        "bulk": measure.bulk,
    }
    return single[work](subject, options, number)


def memory(
    space: Workspace, made: Field, work: str, name: str, options: measure.Options, number: int
) -> Sample:
    """What idle connections cost a proxy, which is started for this alone."""
    port = made.port(space, work, name, 0)
    if made.http_origin is not None and BY_NAME[work].group == HTTP:
        return http_measure.memory(space, name, work, port, made.http_origin, options, number)
    if made.origins is not None and BY_NAME[work].group == TLS:
        return tls_measure.memory(space, name, port, made.origins, options, number)
    return measure.memory(space, name, made.templates[name], options, number)
