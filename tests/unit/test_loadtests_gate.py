"""The gate of a load run, the configs that it reloads, and the verdict over both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from loadtests.gate import (
    LONG,
    MINIMUM_PER_S,
    SHORT,
    Entry,
    by_second,
    failed_requests,
    judge,
    main,
    read_entries,
)
from loadtests.load_config import BROKEN_EVERY, Ports, config, is_broken
from loadtests.peers import front_config, haproxy_config, nginx_stream_config, proxyctl_config
from loadtests.run_load import Reload, judge_run

SECONDS = 30
PORTS = Ports(
    directory="/nowhere",
    echo=1001,
    from_v1=1002,
    from_v2=1003,
    echo_target=1004,
    witness=1005,
    witness_plain=1006,
    tls=1009,
    tls_target=1010,
    http=1011,
    https=1013,
    http_target=1012,
    side=(1007, 1008),
)


def enough(**changes: Entry) -> list[Entry]:
    """Entries of a good run."""
    found = {
        name: Entry(name, int(per_s * SECONDS) + 1, 0) for name, per_s in MINIMUM_PER_S.items()
    }
    return list({**found, **{entry.name: entry for entry in changes.values()}}.values())


def as_locust_writes(entries: list[Entry]) -> str:
    """JSON with locust's other keys, and with seconds as text, as JSON keys must be."""
    return json.dumps(
        [
            {
                "name": entry.name,
                "method": "tcp",
                "last_request_timestamp": 1763708120.5,
                "num_none_requests": 0,
                "response_times": {"1": 5},
                "num_requests": entry.num_requests,
                "num_failures": entry.num_failures,
                "num_reqs_per_sec": {"1763708120": entry.num_requests},
                "num_fail_per_sec": {},
            }
            for entry in entries
        ]
    )


def routes_of(number: int) -> dict[str, dict[str, Any]]:
    """The routes of reload ``number`` by name."""
    document = yaml.safe_load(config(PORTS, number))
    return {route["name"]: route for route in document["routes"]}


def test_good_run_passes() -> None:
    """Enough of every kind and no failure leaves nothing to say."""
    assert judge(enough(), SECONDS) == []


def test_one_failed_request_fails_the_run() -> None:
    """A single failure among thousands is named with its kind and counts."""
    entries = enough(bad=Entry(LONG, 5000, 1))
    assert failed_requests(entries) == 1
    assert judge(entries, SECONDS) == [f"{LONG}: 1 of 5000 failed"]


@pytest.mark.parametrize("name", MINIMUM_PER_S)
def test_missing_kind_fails_the_run(name: str) -> None:
    """A kind of user that never ran is not mistaken for one that never failed."""
    entries = [entry for entry in enough() if entry.name != name]
    found = judge(entries, SECONDS)
    assert len(found) == 1
    assert found[0].startswith(f"{name}: 0 requests, fewer than the ")


def test_too_few_requests_fail_the_run() -> None:
    """The minimum grows with the length of the run."""
    entries = enough(few=Entry(SHORT, 149, 0))
    assert judge(entries, SECONDS) == [
        f"{SHORT}: 149 requests, fewer than the 150 that prove anything"
    ]
    assert judge(entries, SECONDS / 2) == []


def test_unknown_kind_fails_the_run() -> None:
    """A renamed user must be renamed in the gate as well."""
    entries = enough(new=Entry("something else", 10, 0))
    assert judge(entries, SECONDS) == ["something else: not a kind that is known"]


def test_locust_json_is_read_whole(tmp_path: Path) -> None:
    """Keys that the gate does not use are skipped, and seconds come back as numbers."""
    path = tmp_path / "locust.json"
    path.write_text(as_locust_writes([Entry(SHORT, 7, 0), Entry(LONG, 5, 0)]))
    entries = read_entries(path)
    assert [(entry.name, entry.num_requests) for entry in entries] == [(SHORT, 7), (LONG, 5)]
    assert by_second(entries) == ({1763708120: 12}, {})


@pytest.mark.parametrize(
    ("text", "status", "printed"),
    [
        (as_locust_writes(enough()), 0, "failures: 0"),
        (as_locust_writes(enough(bad=Entry(SHORT, 900, 3))), 1, "failures: 3"),
        ("[]", 1, "failures: 0"),
    ],
)
def test_gate_prints_failures_and_ends_with_its_verdict(
    text: str, status: int, printed: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The number of failures is printed in any case; an empty result does not pass."""
    path = tmp_path / "locust.json"
    path.write_text(text)
    assert main([str(path), "--seconds", str(SECONDS)]) == status
    assert printed in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("text", [None, "", "{}", '[{"name": "x"}]'])
def test_gate_without_a_result_fails(
    text: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No file, or a file that locust did not finish, ends with 1 and says which."""
    path = tmp_path / "locust.json"
    if text is not None:
        path.write_text(text)
    assert main([str(path), "--seconds", "30"]) == 1
    assert str(path) in capsys.readouterr().err


def test_reloads_never_touch_the_main_routes() -> None:
    """Over all files that are not broken the main routes, with TLS and HTTP too, stay equal."""
    names = ("echo", "from_v1", "from_v2", "pass", "term", "encr", "auth", "web", "web over TLS")
    main_routes = {name: routes_of(0)[name] for name in names}
    for number in range(40):
        if not is_broken(number):
            found = routes_of(number)
            assert {name: found[name] for name in main_routes} == main_routes


def test_reloads_add_change_move_and_remove_side_routes() -> None:
    """Within one cycle a side route appears, changes its target, moves its port, and goes."""
    side = [routes_of(number).get("side") for number in (0, 1, 2, 3, 8)]
    assert side[0] is None
    assert side[4] is None
    first, changed, moved = (route for route in side[1:4] if route is not None)
    assert first["match"] == changed["match"] != moved["match"]
    assert first["action"] != changed["action"]
    assert "other" in routes_of(3)


def test_every_fifth_file_is_broken_and_the_first_is_not() -> None:
    """A broken file has a misspelt key in exactly one route; the start never sees one."""
    assert [number for number in range(3 * BROKEN_EVERY) if is_broken(number)] == [4, 9, 14]
    for number in range(3 * BROKEN_EVERY):
        misspelt = [route for route in routes_of(number).values() if "action" not in route]
        assert len(misspelt) == is_broken(number)


def test_wrong_verdict_of_a_reload_fails_the_run() -> None:
    """Both a refused good file and an accepted broken one are named."""
    reloads = [Reload(at=float(number), exit_code=0, expected=0) for number in range(15)]
    assert judge_run(enough(), reloads, SECONDS, 0, 0) == []
    reloads += [
        Reload(at=16.0, exit_code=1, expected=0, output="port taken"),
        Reload(at=17.0, exit_code=0, expected=1, output="reload ok"),
    ]
    assert judge_run(enough(), reloads, SECONDS, 0, 0) == [
        "reload ended with 1, not 0: port taken",
        "reload ended with 0, not 1: reload ok",
    ]


def test_leak_crash_and_missing_reloads_fail_the_run() -> None:
    """Connections left, a broken locust and too few reloads each have a sentence."""
    few = [Reload(at=1.0, exit_code=0, expected=0)]
    assert judge_run(enough(), few, SECONDS, 2, 3) == [
        "only 1 reloads, at least 7 were due",
        "locust ended with 2",
        "proxyctl holds 3 connections 10 s after the clients left",
    ]


def test_wrong_certificates_fail_the_run() -> None:
    """Clients that are shown another certificate than that of the config are named."""
    reloads = [Reload(at=float(number), exit_code=0, expected=0) for number in range(15)]
    reloads.append(Reload(at=16.0, exit_code=0, expected=0, wrong_certificates=2))
    assert judge_run(enough(), reloads, SECONDS, 0, 0) == [
        "2 clients were shown another certificate after a reload"
    ]


def test_tls_routes_share_a_port_and_differ_in_what_they_do() -> None:
    """By server name: passed through, ended, encrypted again, and with clients' certificates."""
    routes = routes_of(0)
    found = {name: routes[name]["action"].get("tls", {}) for name in ("pass", "term", "encr")}
    modes = {name: tls.get("mode") for name, tls in found.items()}
    assert modes == {"pass": None, "term": "terminate", "encr": "terminate-and-reencrypt"}
    assert routes["auth"]["action"]["tls"]["client_auth"]["mode"] == "required"
    assert {tuple(routes[name]["match"]["ports"]) for name in (*found, "auth")} == {(1009,)}


def test_requests_have_ports_of_their_own() -> None:
    """One plain and one over TLS, to the same server; a side route beside the plain one goes."""
    plain, secret = routes_of(0)["web"], routes_of(0)["web over TLS"]
    assert plain["match"] == {"ports": [1011], "paths": ["/echo"]}
    assert secret["match"] == {"ports": [1013], "paths": ["/echo"]}
    assert plain["action"]["targets"] == secret["action"]["targets"] == ["127.0.0.1:1012"]
    assert secret["action"]["tls"]["mode"] == "terminate"
    assert ["side web" in routes_of(number) for number in range(4)] == [False, True, False, False]


def test_proxyctl_config_trusts_only_where_headers_come() -> None:
    """The PROXY v2 port gets trust and sends v2 on; the other ports have neither."""
    document = yaml.safe_load(proxyctl_config({"messages": (81, 91), "proxy_v2": (82, 92)}, None))
    assert [entry["ports"] for entry in document["listeners"]] == [[82]]
    actions = {route["name"]: route["action"] for route in document["routes"]}
    assert actions["messages"] == {"type": "forward", "targets": ["127.0.0.1:91"]}
    assert actions["proxy_v2"]["send_proxy"] == "v2"
    assert "listeners" not in yaml.safe_load(proxyctl_config({"messages": (81, 91)}, None))


def test_peer_configs_forward_every_work() -> None:
    """Each work has its port and target; HAProxy alone takes and sends PROXY v2."""
    forwards = {"messages": (81, 91), "proxy_v2": (82, 92)}
    haproxy = haproxy_config(forwards).splitlines()
    assert "    bind 127.0.0.1:81" in haproxy
    assert "    server target 127.0.0.1:91" in haproxy
    assert "    bind 127.0.0.1:82 accept-proxy" in haproxy
    assert "    server target 127.0.0.1:92 send-proxy-v2" in haproxy
    nginx = nginx_stream_config(Path("/nowhere"), "name", {"messages": (81, 91)})
    assert "listen 127.0.0.1:81 reuseport; proxy_pass 127.0.0.1:91;" in nginx
    assert "worker_processes 2;" in nginx
    assert "127.0.0.1:82 send-proxy-v2" in front_config({"haproxy": (80, 82)})
