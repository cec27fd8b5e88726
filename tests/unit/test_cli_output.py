"""What the commands print: the JSON object, tables, and text for people."""

from __future__ import annotations

import io
import json

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
    """The summary line counts, the lines below it name."""
    changes = {"added": ["new"], "changed": ["a", "b"], "removed": ["old"]}
    data = {"generation": 12, "seconds": 0.84, "summary": "+1 route, ~2, -1", "routes": changes}
    lines = views.reloaded(data).splitlines()
    assert lines[0] == "reload ok in 0.8 s, generation 12: +1 route, ~2, -1"
    assert lines[1:] == ["  + new", "  ~ a", "  ~ b", "  - old"]
    changes["added"] = [f"route-{number}" for number in range(5000)]
    lines = views.reloaded(data).splitlines()
    assert len(lines) == views.SHOWN_ROUTES + 2
    assert lines[-1] == f"  and {5003 - views.SHOWN_ROUTES} more"


def test_stop_text() -> None:
    """How many could finish and how many could not."""
    assert (
        views.stopped({"drained": 1, "cut": 3})
        == "stopped: 1 connection drained, 3 cut at the deadline"
    )
    assert views.stopped({"orphans": [1, 2]}) == "stopped: 2 orphaned workers drained"
