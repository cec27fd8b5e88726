"""Configs with TLS for tests: a folder of certificates, routes as YAML, what is said of them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from msgspec import Struct

from shared.config import Config
from shared.errors import ConfigError, Problem
from supervisor.config_file import load_bytes
from supervisor.config_positions import render
from tests.helpers.certificates import Authority, write

TERMINATE: Final = "{mode: terminate, certificates: [{cert: a.pem, key: a.key}]}"


def make_certs(folder: Path) -> Path:
    """Fill a folder: for a.example and *.b.example, with RSA, expired, encrypted, a client's."""
    root = Authority(folder, "ca")
    shutil.copy(root.cert, folder / "ca.pem")
    root.leaf("a.example", "*.b.example", stem="a")
    root.leaf("r.example", key="rsa", stem="r")
    root.leaf("locked.example", stem="locked", password="secret word")
    root.leaf("old.example", stem="old", days=-2)
    root.client("proxy", stem="client")
    write(folder / "password", b"secret word\n")
    write(folder / "wrong", b"other word\n")
    write(folder / "broken.pem", b"nothing of use\n")
    return folder


class Route(Struct, frozen=True, kw_only=True):
    """A route of a test, part by part, as YAML."""

    name: str = "a"
    match: str = "ports: [8443]"
    action: str = "targets: ['t:1']"
    rest: str = ""

    def line(self) -> str:
        """The item of ``routes``."""
        action = f"action: {{type: forward, {self.action}}}"
        return f"- {{name: {self.name}, match: {{{self.match}}}, {self.rest}{action}}}\n"


def tls(value: str = TERMINATE, more: str = "") -> str:
    """An action with this ``tls``."""
    return f"targets: ['t:1'], tls: {value}{more}"


def check(
    certs: Path, *routes: Route, head: str = ""
) -> tuple[Config | None, list[Problem], list[Problem]]:
    """(config, errors, warnings)."""
    text = head + "routes:\n" + "".join(route.line() for route in routes)
    try:
        loaded = load_bytes(text.encode(), "f.yaml", "yaml", certs)
    except ConfigError as error:
        return None, error.problems, []
    return loaded.config, [], loaded.warnings


def config(certs: Path, *routes: Route, head: str = "") -> Config:
    """A config that is accepted without a warning."""
    found, errors, warnings = check(certs, *routes, head=head)
    assert (errors, warnings) == ([], [])
    assert found is not None
    return found


def error(certs: Path, *routes: Route, head: str = "") -> Problem:
    """The only error; it has a line and a column."""
    _, errors, _ = check(certs, *routes, head=head)
    assert len(errors) == 1, errors
    assert errors[0].line > 0
    assert errors[0].col > 0
    return errors[0]


def warning(certs: Path, *routes: Route) -> Problem:
    """The only warning of a config that is accepted."""
    _, errors, warnings = check(certs, *routes)
    assert (errors, len(warnings)) == ([], 1), (errors, warnings)
    assert warnings[0].line > 0
    return warnings[0]


def pointed_at(problem: Problem) -> str:
    """What the caret stands under."""
    _, line, carets = render(problem).split("\n")
    return line[carets.index("^") : carets.rindex("^") + 1]
