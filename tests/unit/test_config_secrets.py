"""Errors of a config that has a key or a password in it: neither is shown."""

from __future__ import annotations

import json

import pytest

from shared.errors import ConfigError
from shared.units import short
from supervisor.config_file import Format, load_bytes
from supervisor.config_lists import parse_list
from supervisor.config_positions import render
from supervisor.config_read import ReadError
from supervisor.config_reference import reference
from supervisor.config_secrets import SecretLines, names_secret

BODY = ("MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg", "hB5eZqkz7n2TtFtk5g9yYw0m8QmV4u1s")
KEY = "\n".join(["-----BEGIN PRIVATE KEY-----", *BODY, "-----END PRIVATE KEY-----", ""])
QUOTED = json.dumps(KEY)
PASSWORD = "hunter2hunter2"
HASH = "$2y$05$abcdefghijklmnopqrstuv"
SECRETS = (*(line[:12] for line in BODY), PASSWORD, HASH[:12])


def told(text: str, format_: Format = "yaml") -> str:
    """All that is shown of what is wrong with a text; no secret is in it."""
    with pytest.raises(ConfigError) as caught:
        load_bytes(text.encode(), "f", format_)
    shown = "\n".join(map(render, caught.value.problems))
    assert not [secret for secret in SECRETS if secret in shown], shown
    return shown


def config_of(certificate: dict[str, object]) -> dict[str, object]:
    """A config of one route with this entry of ``certificates``."""
    tls = {"mode": "terminate", "certificates": [{"cert": "a.pem", **certificate}]}
    action = {"type": "forward", "targets": ["127.0.0.1:9"], "tls": tls}
    return {"routes": [{"name": "x", "match": {"ports": [80]}, "action": action}]}


def yaml_of(lines: str) -> str:
    """The same in YAML, with these lines of the entry."""
    return (
        "routes:\n- name: x\n  match: {ports: [80]}\n  action:\n    type: forward\n"
        "    targets: ['127.0.0.1:9']\n    tls:\n      mode: terminate\n      certificates:\n"
        f"      - cert: a.pem\n{lines}\n"
    )


@pytest.mark.parametrize("format_", ["json", "yaml"])
@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("key", KEY, "key: the value seems to be a private key, and is not shown (write a key"),
        ("key", [KEY], "key: expected the path of a file, got a list"),
        ("keyy", KEY, "unknown field 'keyy' (did you mean 'key'?)"),
        ("cert", KEY.lower(), "cert: the value seems to be a private key"),
        ("password", PASSWORD, "unknown field 'password' (did you mean 'password_file'?)"),
        ("pasword", PASSWORD, "unknown field 'pasword'"),
        ("keyPassphrase", PASSWORD, "unknown field 'keyPassphrase'"),
        ("password_hash", PASSWORD, "unknown field 'password_hash'"),
        ("login", {"anna": HASH}, "unknown field 'login'"),
    ],
)
def test_secrets_in_the_place_of_files(
    format_: Format, indent: int | None, name: str, value: object, message: str
) -> None:
    """The message says what is wrong, and no line of the file stands under it."""
    text = json.dumps(config_of({name: value}), indent=indent)
    shown = told(text, format_)
    assert message in shown
    assert " | " not in shown or indent  # with one line for all, there is none to show


@pytest.mark.parametrize(
    "lines",
    [
        "        key: " + "\n          ".join(KEY.splitlines()),  # joined with blanks
        "        key: |\n          " + "\n          ".join(KEY.splitlines()),
        "        key: " + KEY,
        "        key: |\n" + KEY,
        "        key: '" + KEY,
        f"        key: {QUOTED[:-1]}",
        f"        {QUOTED}: 1",
        f"        password:\n          {PASSWORD}",
        f"        ? password\n        : {PASSWORD}",
    ],
)
def test_secrets_on_lines_of_their_own(lines: str) -> None:
    """However YAML takes it, or does not: no line of a key is shown."""
    told(yaml_of(lines))


@pytest.mark.parametrize(
    "text",
    [f'key = "{KEY}"', f'key = """{KEY}', f"key = {KEY}", f"password = {PASSWORD}"],
)
def test_secrets_in_toml(text: str) -> None:
    """The line of a syntax error is the only one that is shown of TOML."""
    assert " | " not in told(text, "toml")


def test_secrets_under_names_of_the_operator() -> None:
    """Values of fields and parameters whose name says that they are secret are not quoted."""
    headers = {"x-secret": f"{PASSWORD}\n", "Authorization": [f"Basic {PASSWORD}\n"]}
    match = {"ports": [80], "headers": headers, "query": {"password": f"{PASSWORD}\n"}}
    basic = {"realm": "r", "users": {"anna": PASSWORD}}
    route = {"name": "x", "match": match, "security": {"auth": {"basic": basic}}}
    config = {"routes": [{**route, "action": {"type": "forward", "targets": ["127.0.0.1:9"]}}]}
    for indent in (None, 1):
        shown = told(json.dumps(config, indent=indent), "json")
        assert shown.count("is refused here, and not shown: the name is that of a secret") == 3
        assert "unknown field 'users' (did you mean 'users_file'?)" in shown


def test_other_lines_are_shown() -> None:
    """What stands beside a secret is as it was, and the config's own fields are no secrets."""
    shown = told(yaml_of(f"        key: {QUOTED}\n        password_file: [9]\n        certt: b"))
    assert shown.count(" | ") == 4
    assert "password_file: [9]" in shown
    names = {line.split("`")[1] for line in reference().splitlines() if line.startswith("| `")}
    assert {"password_file", "users_file", "key"} <= names
    assert not [name for name in names if names_secret(name)]
    assert not any(map(names_secret, ("sector", "compass", "bypass", "user", "token_file", "-")))


def test_a_key_without_end() -> None:
    """Nothing below its first line is shown; certificates are no secrets."""
    lines = ["a", "-----BEGIN RSA PRIVATE KEY-----", "b", "c"]
    assert [number in SecretLines(lines) for number in (1, 2, 3, 4)] == [False, True, True, True]
    lines = ["-----BEGIN CERTIFICATE-----", "b", "# the private key is elsewhere", "d"]
    assert [number in SecretLines(lines) for number in (1, 2, 3, 4)] == [False, False, True, False]


def test_secrets_in_list_files() -> None:
    """A key that is named as a list is refused whole; of a users file no hash is quoted."""
    with pytest.raises(ReadError, match="holds a private key, and is no list"):
        parse_list(KEY.encode(), "l")
    (problem,) = parse_list(f"anna:{HASH}".encode(), "l").problems
    assert problem.message.startswith("a hash of a password is no IP address")


def test_short() -> None:
    """Nothing of a secret is quoted; what only looks a little like one is."""
    assert short([KEY]) == short("ec Private Key") == "a private key"
    assert short(HASH) == short({"anna": HASH}) == "a hash of a password"
    assert short("$1$") == "'$1$'"
    assert short("x" * 70) == f"'{'x' * 55}...'"


def test_a_long_line_is_judged_at_once() -> None:
    """A word of a million characters may stand on a line that has an error."""
    lines = ["x" * 1_000_000, "y: " + "z-" * 500_000]
    found = SecretLines(lines)
    assert [number in found for number in (1, 2)] == [False, False]
