"""What the commands print: the JSON object, tables, and text for people."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from shared.errors import Problem
from shared.messages import Reply
from supervisor.cli import output, views


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Always."""
        return True


def test_the_json_object_has_exactly_the_agreed_keys(capsys: pytest.CaptureFixture[str]) -> None:
    """One line, one object, and every problem with all its fields, known or not."""
    problem = Problem(message="m", file="f", line=3, col=5, path="p", code="c", hint="h", width=9)
    reply = Reply(
        exit_code=1, data={"n": 1}, errors=[problem], warnings=[Problem(message="only this")]
    )
    assert output.emit(reply, as_json=True, render=views.nothing) == 1
    captured = capsys.readouterr()
    assert captured.out.count("\n") == 1
    assert captured.err == ""
    everything = {"file": "f", "line": 3, "col": 5, "path": "p", "code": "c", "message": "m"}
    nothing = {"file": "", "line": 0, "col": 0, "path": "", "code": "", "message": "only this"}
    assert json.loads(captured.out) == {
        "schema": 1,
        "ok": False,
        "data": {"n": 1},
        "errors": [{**everything, "hint": "h"}],
        "warnings": [{**nothing, "hint": ""}],
    }


def test_text_goes_to_stdout_and_problems_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    """A degraded answer still shows its data; a refused one shows only why."""
    problem = Problem(message="m", hint="h")
    degraded = Reply(exit_code=4, data={"listeners": 2, "routes": 1}, errors=[problem])
    assert output.emit(degraded, as_json=False, render=views.valid) == 4
    captured = capsys.readouterr()
    assert captured.out == "valid: 2 listeners, 1 route\n"
    assert captured.err == "proxyctl: error: m (h)\n"
    refused = Reply(exit_code=1, errors=[problem])
    assert output.emit(refused, as_json=False, render=views.valid) == 1
    assert capsys.readouterr().out == ""


def test_colour_only_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_COLOR and a pipe leave the text as it is."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    text = "proxyctl: error: m"
    assert "\x1b[" in output.colour(text, "error", Terminal())
    assert output.colour(text, "error", io.StringIO()) == text
    monkeypatch.setenv("NO_COLOR", "1")
    assert output.colour(text, "error", Terminal()) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1 << 20, "1.0 MiB"),
        (1 << 50, "1024.0 TiB"),
    ],
)
def test_sizes(count: int, text: str) -> None:
    """Bytes in the largest unit that leaves at least one."""
    assert output.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.9, "0s"), (59, "59s"), (187, "3m 7s"), (18720, "5h 12m"), (187200, "2d 4h")],
)
def test_spans(seconds: float, text: str) -> None:
    """Two units at most."""
    assert output.span(seconds) == text


def test_tables_align() -> None:
    """Numbers stand to the right, words to the left, and no line ends in a space."""
    text = output.table(["NAME", "COUNT"], [["a", 5], ["longer", 12345]])
    assert text == "NAME    COUNT\na           5\nlonger  12345"


def test_reload_text() -> None:
    """One line, whatever has changed."""
    data = {"generation": 12, "seconds": 0.84, "summary": "+1 route, ~2, -1"}
    data |= {"connections": {"kept": 214, "draining": 3}}
    assert views.reloaded(data) == (
        "reload ok in 0.8 s, generation 12: +1 route, ~2, -1; 214 connections kept, 3 draining"
    )


def test_workers_text_after_a_resize() -> None:
    """Ready workers are always told of, others where there are any."""
    counts = {"wanted": 3, "ready": 3, "starting": 0, "silent": 0, "draining": 0, "failed": 0}
    assert views.resized(counts) == "workers: 3 wanted, 3 ready"
    counts |= {"ready": 0, "draining": 1, "failed": 2}
    assert views.resized(counts) == "workers: 3 wanted, 0 ready, 1 draining, 2 failed"


def status_data(**more: object) -> dict[str, Any]:
    """The least that `status` shows, and what a test adds to it."""
    supervisor = {"version": "1", "pid": 7, "uptime_s": 5.0, "config": "a.yaml"}
    workers = {"wanted": 2, "ready": 2, "draining": 1}
    base = {"supervisor": supervisor, "generation": 3, "workers": workers, "connections": 4}
    return {**base, **more}


def test_status_text_shows_what_drains_and_what_was_restarted() -> None:
    """Routes and workers on their way out with their connections; the last restarts with why."""
    restart = {"time": 0.0, "slot": 1, "pid": 42, "kind": "killed", "reason": "SIGKILL"}
    old = {**restart, "pid": 41}
    text = views.status(
        status_data(
            draining=[{"route": "old", "connections": 3}],
            draining_workers=[{"slot": 1, "pid": 99, "connections": 2}],
            restarts=[old, *[restart] * views.SHOWN_RESTARTS],
        )
    )
    lines = [line.split() for line in text.splitlines()]
    assert ["old", "3"] in lines
    assert ["1", "99", "2"] in lines
    assert sum(line[-4:] == ["1", "42", "killed", "SIGKILL"] for line in lines) == 5
    assert not any("41" in line for line in lines)


def test_status_text_shows_the_last_reload() -> None:
    """Its outcome, and the first reason where it was refused."""
    assert "generation   3\n" in views.status(status_data())
    last = {"result": "ok", "ok": True, "time": 0.0, "summary": "+1 route", "errors": []}
    text = views.status(status_data(last_reload=last))
    assert f"(the last reload was ok, {output.moment(0.0)}: +1 route)" in text
    errors = [{"message": "no port"}, {"message": "no target"}]
    last |= {"result": "refused", "ok": False, "errors": errors}
    text = views.status(status_data(last_reload=last))
    assert f"(the last reload was refused, {output.moment(0.0)}: no port and 1 more)" in text


def test_status_text_shows_losses_only_where_there_are_any() -> None:
    """Connections of killed workers, a full limit table, and lines that could not be written."""
    killed = {"workers": 0, "accepted": 0, "dialled": 0, "ended": 0}
    totals = {"killed": killed, "limit_table_full": 0, "access_lines_dropped": 0}
    assert len(views.status(status_data(totals=totals)).splitlines()) == 5
    killed |= {"workers": 2, "accepted": 9, "ended": 8}
    totals |= {"limit_table_full": 5, "access_lines_dropped": 6, "log_lines_dropped": 1}
    text = views.status(status_data(totals=totals))
    assert "2 workers by force, with 1 connection open" in text
    assert "the table was full, 5 connections not counted" in text
    assert "6 of the access log, 1 of the log" in text


def test_status_text_shows_orphans_while_there_are_any() -> None:
    """Who they are, and how to end them."""
    line = "orphans      1 worker of an earlier run (pid 41) without a supervisor; TERM drains each"
    assert f"\n{line}\n" in views.status(status_data(orphans=[41]))
    assert "(pid 41, 42)" in views.status(status_data(orphans=[41, 42]))
    assert "orphans" not in views.status(status_data(orphans=[]))


def test_status_text_shows_certificates_that_expire_soon() -> None:
    """The count always, a table only of those that have less than 21 days, the first end first."""
    ends = {"a.pem": 400, "b.pem": 20, "c.pem": -1}
    entries = [
        {"route": "web", "certificate": name, "names": [], "expires": days * 86400.0,
         "days_left": days}
        for name, days in ends.items()
    ]  # fmt: skip
    text = views.status(status_data(certificates=entries))
    assert "certificates 3, 2 expire within 21 days\n" in text
    rows = text[text.index("CERTIFICATE ") :].splitlines()
    assert [row.split()[0] for row in rows] == ["CERTIFICATE", "c.pem", "b.pem"]
    assert rows[2].split()[-1] == "20"
    text = views.status(status_data(certificates=[*entries[:1], {**entries[0], "route": "two"}]))
    assert "\ncertificates 1\n" in text + "\n"
    assert "CERTIFICATE" not in text
    assert "certificates" not in views.status(status_data(certificates=[]))


def test_status_text_shows_requests_where_there_were_any() -> None:
    """A table of its own, for the routes that speak HTTP; none without requests."""
    http = {"requests": 1200, "by_class": {"2xx": 1200}, "per_second": 20.04, "error_rate": 0.0}
    http |= {"p50_s": 0.0004, "p95_s": 0.12, "p99_s": 2.5}
    routes = {"tcp": {"http": None}, "web": {"http": http}, "idle": {"http": {"requests": 0}}}
    rows = [
        line.split() for line in views.status(status_data(totals={"routes": routes})).split("\n")
    ]
    at = rows.index(["HTTP", "ROUTE", "REQUESTS", "PER", "S", "5XX", "P50", "P95", "P99"])
    shown = ["web", "1200", "20.0", "0.00%", "0.4", "ms", "120", "ms", "2.5", "s"]
    assert rows[at + 1 :] == [shown]
    del routes["web"]
    assert "HTTP ROUTE" not in views.status(status_data(totals={"routes": routes}))


def test_stop_text() -> None:
    """How many could finish and how many could not."""
    assert (
        views.stopped({"drained": 1, "cut": 3})
        == "stopped: 1 connection drained, 3 cut at the deadline"
    )
    assert (
        views.stopped({"orphans": [1, 2], "drained": 4, "cut": 0})
        == "stopped: 4 connections drained, 0 cut at the deadline; 2 workers had no supervisor"
    )
