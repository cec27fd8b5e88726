"""The command as a process: usage errors, exit codes, streams, and what it imports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

VERBS = ("start", "stop", "reload", "validate", "status", "routes", "workers", "probe")
GOOD = """\
listen: ["127.0.0.1", "::1"]
routes:
  - name: web
    match: {ports: [8000, "8001-8003"]}
    action: {type: forward, targets: ["127.0.0.1:9000"]}
"""
BAD = """\
routes:
  - name: web
    match: {ports: [70000]}
    action: {type: forward, tragets: ["127.0.0.1:9000"]}
"""


def run(*arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run proxyctl to its end, away from any proxyctl that this machine may run."""
    known = {key: value for key, value in os.environ.items() if not key.startswith("PROXYCTL_")}
    return subprocess.run(
        [sys.executable, "-m", "supervisor.cli", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        env={**known, **environment},
        check=False,
    )


def one_object(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The JSON object that is all of stdout; its keys are checked."""
    document = json.loads(done.stdout)
    assert set(document) == {"schema", "ok", "data", "errors", "warnings"}
    assert document["schema"] == 1
    assert document["ok"] == (done.returncode == 0)
    for problem in document["errors"] + document["warnings"]:
        assert set(problem) == {"file", "line", "col", "path", "code", "message", "hint"}
    return dict(document)


def test_help_names_every_command() -> None:
    """`--help` is on stdout with status 0; no command at all is a usage error."""
    done = run("--help")
    assert done.returncode == 0
    assert all(verb in done.stdout for verb in VERBS)
    bare = run()
    assert bare.returncode == 2
    assert "Usage" in bare.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["statsu"],
        ["status", "--colour"],
        ["validate"],
        ["stop", "--timeout", "soon"],
        ["start", "--workers", "0"],
        ["workers", "sack"],
        ["workers", "list", "2"],
        ["workers", "add", "0"],
        ["workers", "remove", "one"],
        ["workers", "add", "--timeout", "soon"],
        ["start", "--workers", "many"],
        ["probe", "127.0.0.1"],
        ["probe", "127.0.0.1:80", "--proxy", "v3"],
        ["probe", "127.0.0.1:80", "--proxy", "v1", "--local"],
    ],
)
def test_usage_errors(arguments: list[str]) -> None:
    """Status 2 and a message on stderr; with --json one object on stdout that says the same."""
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("proxyctl: error: ")
    assert "Traceback" not in done.stderr
    done = run(*arguments, "--json")
    assert done.returncode == 2
    (problem,) = one_object(done)["errors"]
    assert problem["code"] == "usage"
    assert problem["message"]


@pytest.mark.parametrize("line", ["status", "routes", "workers", "workers add 2", "reload", "stop"])
def test_not_running(line: str, tmp_path: Path) -> None:
    """Status 3 and how to start, by option and by environment, whether the directory exists."""
    done = run(*line.split(), "--runtime-dir", str(tmp_path))
    assert done.returncode == 3
    assert done.stdout == ""
    assert "proxyctl start" in done.stderr
    done = run(*line.split(), "--json", PROXYCTL_RUNTIME_DIR=str(tmp_path / "missing"))
    assert done.returncode == 3
    assert one_object(done)["errors"][0]["code"] == "not_running"


@pytest.mark.parametrize("by_stdin", [False, True])
def test_a_valid_file(by_stdin: bool, tmp_path: Path) -> None:
    """Listeners are counted per address and port, routes by number."""
    path = tmp_path / "good.yaml"
    path.write_text(GOOD)
    done = run("validate", "-", stdin=GOOD) if by_stdin else run("validate", str(path))
    assert done.returncode == 0, done.stderr
    assert done.stdout == "valid: 8 listeners, 1 route\n"
    as_json = run("validate", "--json", str(path))
    assert one_object(as_json)["data"] == {"listeners": 8, "routes": 1}


def test_an_invalid_file(tmp_path: Path) -> None:
    """All that is wrong is shown at once, with place, line, caret and suggestion."""
    path = tmp_path / "bad.yaml"
    path.write_text(BAD)
    done = run("validate", str(path))
    assert done.returncode == 1
    assert done.stdout == ""
    assert f"{path}:3:" in done.stderr
    assert f"{path}:4:29: error: " in done.stderr
    assert "did you mean 'targets'?" in done.stderr
    assert "^^^^^^^" in done.stderr
    errors = one_object(run("validate", "--json", str(path)))["errors"]
    assert {(error["line"], error["file"]) for error in errors} == {(3, str(path)), (4, str(path))}


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """The message has the path and the reason."""
    done = run("validate", str(tmp_path / "none.yaml"))
    assert done.returncode == 1
    assert "none.yaml" in done.stderr
    assert "No such file" in done.stderr


def test_no_colour_in_a_pipe(tmp_path: Path) -> None:
    """Neither stream has an escape sequence when it is no terminal."""
    path = tmp_path / "bad.yaml"
    path.write_text(BAD)
    done = run("validate", str(path), TERM="xterm-256color", FORCE_COLOR="1")
    assert "\x1b" not in done.stderr + done.stdout


@pytest.mark.parametrize(
    ("arguments", "unwanted"),
    [
        (["--help"], {"msgspec", "zmq", "yaml", "uvloop", "aiohttp", "asyncio"}),
        (["validate", "-"], {"zmq", "uvloop", "aiohttp", "prometheus_client"}),
        (["status"], {"yaml", "uvloop", "aiohttp", "prometheus_client"}),
        (["probe", "127.0.0.1:1"], {"yaml", "zmq", "uvloop", "aiohttp", "prometheus_client"}),
    ],
)
def test_a_command_imports_only_what_it_needs(
    arguments: list[str], unwanted: set[str], tmp_path: Path
) -> None:
    """Each command starts quickly because it leaves the others' libraries alone."""
    script = (
        "import json, sys\n"
        "from supervisor.cli.main import run\n"
        "run(json.loads(sys.argv[1]))\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(arguments)],
        input=GOOD,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PROXYCTL_RUNTIME_DIR": str(tmp_path)},
        check=True,
    )
    imported = set(json.loads(done.stdout.splitlines()[-1]))
    assert "typer" in imported
    assert not imported & unwanted


def test_a_reader_that_leaves_is_no_traceback() -> None:
    """`proxyctl --help | head -1` prints no error of ours."""
    command = [sys.executable, "-m", "supervisor.cli", "--help"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()
