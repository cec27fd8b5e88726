"""Configs that speak HTTP, for tests: a folder with pages and users, what is said of a config."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from shared.config import Config
from shared.errors import ConfigError, Problem
from shared.plan import Endpoints, Plan, RoutePlan
from supervisor.compile import ListenerIds, compile_plan
from supervisor.config_file import load_bytes

# A test vector of bcrypt: the password is U*U.
HASH: Final = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"
FORWARD: Final = "type: forward, targets: ['127.0.0.1:9000']"
REDIRECT: Final = "type: redirect, to: 'https://{host}{path_and_query}'"
ENDS_TLS: Final = "tls: {mode: terminate, certificates: [{cert: a.pem, key: a.key}]}"
ENDS_OTHERWISE: Final = "tls: {mode: terminate, certificates: [{cert: r.pem, key: r.key}]}"


def make_pages(folder: Path) -> None:
    """Fill a folder: pages of several kinds, one that is too large, users."""
    (folder / "sorry.html").write_text("<p>Sorry</p>")
    (folder / "robots.txt").write_text("User-agent: *\n")
    (folder / "data.json").write_text("{}")
    (folder / "logo.svgz").write_bytes(b"\x1f\x8b")
    (folder / "blob").write_bytes(b"\x00\x01")
    (folder / "large").write_bytes(bytes((1 << 20) + 1))
    (folder / "users").write_text(f"alice:{HASH}\n")
    (folder / "nobody").write_text("# none yet\n")
    (folder / "plain").write_text("alice:secret\n")


def route(
    match: str = "ports: [80]", action: str = FORWARD, rest: str = "", name: str = "a"
) -> str:
    """An item of ``routes``; ``rest`` is what stands beside match and action, with a comma."""
    return f"- {{name: {name}, match: {{{match}}}, {rest} action: {{{action}}}}}\n"


def check(
    folder: Path, *routes: str, head: str = ""
) -> tuple[Config | None, list[Problem], list[Problem]]:
    """(config, errors, warnings)."""
    text = f"{head}\nroutes:\n" + "".join(routes)
    try:
        loaded = load_bytes(text.encode(), "f.yaml", "yaml", folder)
    except ConfigError as error:
        return None, error.problems, []
    return loaded.config, [], loaded.warnings


def errors(folder: Path, *routes: str, head: str = "") -> list[tuple[str, str]]:
    """(path, message with its hint) of every error."""
    _, found, _ = check(folder, *routes, head=head)
    return [(one.path, f"{one.message}; {one.hint}") for one in found]


def error(folder: Path, *routes: str, head: str = "") -> tuple[str, str]:
    """The only error, which has a line."""
    _, found, _ = check(folder, *routes, head=head)
    assert len(found) == 1, found
    assert found[0].line > 0
    return found[0].path, f"{found[0].message}; {found[0].hint}"


def accepted(folder: Path, *routes: str, head: str = "") -> Config:
    """A config that is accepted without a warning."""
    config, wrong, doubtful = check(folder, *routes, head=head)
    assert (wrong, doubtful) == ([], [])
    assert config is not None
    return config


def plan(folder: Path, *routes: str, head: str = "") -> Plan:
    """An accepted config as workers get it; warnings are allowed."""
    config, wrong, _ = check(folder, *routes, head=head)
    assert wrong == []
    assert config is not None
    return compile_plan(
        config,
        generation=1,
        slots=1,
        listener_ids=ListenerIds(),
        endpoints=Endpoints(addresses={}),
    )


def route_plan(folder: Path, *routes: str, head: str = "") -> RoutePlan:
    """The first route of `plan`."""
    return plan(folder, *routes, head=head).routes[0]
