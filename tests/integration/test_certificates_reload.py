"""Certificates of a running proxyctl: what is told of them, and what a reload makes of new ones."""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.helpers.certificates import Authority, Files, write
from tests.helpers.ports import free_port
from tests.helpers.processes import Proxyctl

EXPIRY = "proxyctl_tls_certificate_expiry_timestamp_seconds"
PASSWORD = "correct horse battery staple"
GUESS = "staple battery horse"
Expiries = dict[tuple[str, str], float]


class Site:
    """A proxyctl whose route `web` has two certificates, beside the config file."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.root = Authority(directory)
        self.first = self.root.leaf("a.example", "*.a.example", stem="a", password=PASSWORD)
        self.second = self.root.leaf("b.example", stem="b", days=10)
        self.secrets: set[str] = set()
        self.note(self.first)
        self.note(self.second)
        write(directory / "password", f"{PASSWORD}\n".encode())
        self.admin = f"127.0.0.1:{free_port()}"
        certificates = [
            {"cert": "a.pem", "key": "a.key", "password_file": "password"},
            {"cert": "b.both.pem"},
        ]
        tls = {"mode": "terminate", "certificates": certificates}
        config = {
            "listen": ["127.0.0.1"],
            "admin": {"listen": self.admin},
            "routes": [
                {
                    "name": "web",
                    "match": {"ports": [free_port()]},
                    "action": {"type": "forward", "targets": ["127.0.0.1:9"], "tls": tls},
                }
            ],
        }
        self.proxyctl = Proxyctl(directory, config)

    def note(self, files: Files) -> None:
        """Remember the lines of a key, to look for them."""
        lines = files.key.read_text().splitlines()
        self.secrets |= {line for line in lines if len(line) > 20 and not line.startswith("-----")}

    def get(self, path: str) -> str:
        """What the admin listener has there."""
        with urllib.request.urlopen(f"http://{self.admin}{path}", timeout=20) as response:
            return str(response.read().decode())

    def expiries(self) -> Expiries:
        """(route, certificate): when it expires, of /metrics; /stats says the same."""
        found = {
            (sample.labels["route"], sample.labels["certificate"]): sample.value
            for family in text_string_to_metric_families(self.get("/metrics"))
            for sample in family.samples
            if sample.name == EXPIRY
        }
        in_stats = {
            (entry["labels"]["route"], entry["labels"]["certificate"]): entry["value"]
            for entry in json.loads(self.get("/stats"))["metrics"]
            if entry["name"] == EXPIRY
        }
        assert in_stats == found
        return found

    def certificates(self) -> list[dict[str, Any]]:
        """``data.certificates`` of `status`."""
        found: list[dict[str, Any]] = self.proxyctl.status()["certificates"]
        return found

    def said(self) -> str:
        """Everything that it has written anywhere."""
        texts = [self.proxyctl.output(), self.proxyctl.log(), json.dumps(self.proxyctl.status())]
        files = [path for path in self.proxyctl.runtime_dir.rglob("*") if path.is_file()]
        return "\n".join([*texts, *(path.read_text(errors="replace") for path in files)])


def end_of(files: Files) -> float:
    """When the certificate expires."""
    return files.certificate.not_valid_after_utc.timestamp()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Started; gone afterwards."""
    site = Site(tmp_path)
    try:
        site.proxyctl.start()
        yield site
    finally:
        site.proxyctl.end()


def test_what_is_told_of_certificates(site: Site) -> None:
    """Metrics, status and log name route, file and end; no key stays in a file or descriptor."""
    assert site.expiries() == {
        ("web", "a.pem"): end_of(site.first),
        ("web", "b.both.pem"): end_of(site.second),
    }
    first, second = site.certificates()
    assert first == {
        "route": "web",
        "certificate": "a.pem",
        "shown_to": "clients",
        "names": ["a.example", "*.a.example"],
        "expires": end_of(site.first),
        "days_left": 89,
    }
    assert (second["certificate"], second["days_left"]) == ("b.both.pem", 9)
    assert f"{site.directory / 'b.both.pem'}: expires in 9 days" in site.proxyctl.log()
    opened = []
    for path in Path(f"/proc/{site.proxyctl.pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed since it was listed
            opened.append(os.readlink(path))
    assert not [name for name in opened if "certificate" in name]


def test_certificates_for_targets_are_told_of(site: Site) -> None:
    """Beside those for clients; one that a route shows to both is one series of the metric."""
    shown = site.root.client("proxy", stem="proxy", days=30)
    config = json.loads(site.proxyctl.config_path.read_text())
    (web,) = config["routes"]
    web["action"]["upstream_tls"] = {"verify": False, "cert": "b.both.pem"}
    upstream = {"verify": False, "cert": "proxy.pem", "key": "proxy.key"}
    match = {"ports": [free_port()]}
    action = {"type": "forward", "targets": ["127.0.0.1:9"], "upstream_tls": upstream}
    config["routes"].append({"name": "out", "match": match, "action": action})
    site.proxyctl.write(config)
    assert site.proxyctl.run("reload")[0] == 0
    assert site.expiries() == {
        ("web", "a.pem"): end_of(site.first),
        ("web", "b.both.pem"): end_of(site.second),
        ("out", "proxy.pem"): end_of(shown),
    }
    assert site.get("/metrics").count(f"{EXPIRY}{{") == 3
    told = [(one["route"], one["certificate"], one["shown_to"]) for one in site.certificates()]
    assert told == [
        ("web", "a.pem", "clients"),
        ("web", "b.both.pem", "clients"),
        ("web", "b.both.pem", "targets"),
        ("out", "proxy.pem", "targets"),
    ]


def test_who_holds_keys_leaves_no_core_dump(site: Site) -> None:
    """Neither the supervisor nor a worker would write its memory to a file."""
    workers = [worker["pid"] for worker in site.proxyctl.workers()]
    assert workers
    for pid in (site.proxyctl.pid, *workers):
        limits = Path(f"/proc/{pid}/limits").read_text().splitlines()
        (line,) = (line for line in limits if line.startswith("Max core file size"))
        assert line.split()[4] == "0"


def test_a_reload_takes_what_has_changed(site: Site) -> None:
    """A renewed file makes its route a changed one; one that was only touched does not."""
    code, reply = site.proxyctl.run("reload")
    assert (code, reply["data"]["routes"]["changed"]) == (0, [])
    renewed = site.root.leaf("b.example", stem="b", days=400)
    site.note(renewed)
    code, reply = site.proxyctl.run("reload")
    assert (code, reply["data"]["routes"]["changed"]) == (0, ["web"])
    assert reply["warnings"] == []
    assert site.expiries()["web", "b.both.pem"] == end_of(renewed)
    os.utime(site.second.both)
    code, reply = site.proxyctl.run("reload")
    assert (code, reply["data"]["routes"]["changed"]) == (0, [])


def test_a_bad_file_refuses_the_reload(site: Site) -> None:
    """Named by file and reason; what was served is served on, and no secret is told."""
    before = site.expiries()
    stranger = site.root.leaf("c.example", stem="c")
    expired = site.root.leaf("d.example", stem="d", days=-1)
    cert, key, both = site.first.cert, site.first.key, site.second.both
    cases = [
        (key, stranger.key.read_bytes(), f"the key does not belong to the certificate {cert}"),
        (key, b"", "has no private key"),
        (cert, b"-----BEGIN CERTIFICATE-----\n", "cannot be read as PEM"),
        (cert, None, "cannot be read: No such file or directory"),
        (both, expired.both.read_bytes(), "has expired on "),
        (site.directory / "password", f"{GUESS}\n".encode(), "does not open the key"),
    ]
    replies = []
    for path, data, reason in cases:
        good = path.read_bytes()
        if data is None:
            path.unlink()
        else:
            write(path, data)
        code, reply = site.proxyctl.run("reload")
        write(path, good)
        assert code == 1, reason
        (problem,) = reply["errors"]
        named = key if path.name == "password" else path
        assert problem["message"].startswith(f"{named}: ")
        assert reason in problem["message"]
        assert problem["path"].startswith("routes[0].action.tls.certificates[")
        replies.append(json.dumps(reply))
    assert site.expiries() == before
    assert site.proxyctl.run("status")[0] == 4
    assert site.proxyctl.run("reload")[0] == 0
    site.note(stranger)
    site.note(expired)
    said = site.said() + "".join(replies)
    assert not [line for line in site.secrets if line in said]
    assert PASSWORD not in said
    assert GUESS not in said
