"""The commands of `proxyctl`.

Every command makes one Reply and prints it, as text or with `--json` as one object. What a command
needs is imported when it runs, so that `status` loads no YAML and `validate` no ZeroMQ.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    name="proxyctl",
    help="A reverse proxy for Linux: PROXY protocol in and out, reloads that lose nothing.",
    epilog="Exit codes: 0 ok, 1 failed or refused, 2 usage, 3 not running, 4 degraded,"
    " 5 timed out, 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # their frames show the values of variables, secrets too
    rich_markup_mode=None,
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
RuntimeDir = Annotated[
    Path | None,
    typer.Option(
        "--runtime-dir",
        envvar="PROXYCTL_RUNTIME_DIR",
        help="Where the running proxyctl keeps its sockets.",
        metavar="DIR",
        readable=False,  # what is wrong with it is told by whoever uses it
    ),
]


def run(arguments: list[str]) -> int:
    """Run one command; returns its exit code."""
    as_json = "--json" in arguments
    try:
        result = app(args=arguments, prog_name="proxyctl", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted(as_json)
    except BrokenPipeError:
        # The reader of our output has gone, as with `| head`. Python would complain once more
        # when it flushes at exit.
        sys.stdout = None
        return 1
    except Exception as error:
        # Typer's own usage errors; their base class has moved between its versions.
        if not hasattr(error, "format_message"):
            raise
        return _usage(error, as_json)
    if result == 130 and as_json:
        return _interrupted(as_json)
    return result if isinstance(result, int) else 0


def _interrupted(as_json: bool) -> int:
    from shared.errors import Problem
    from shared.messages import Reply

    problem = Problem(message="interrupted", code="interrupted")
    return _emit(Reply(exit_code=130, errors=[problem]), as_json)


def _usage(error: Any, as_json: bool) -> int:
    from shared.errors import Problem
    from shared.messages import Reply

    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "proxyctl"
    message = error.format_message()
    if type(error).__name__ == "NoArgsIsHelpError" and not as_json:
        print(message, file=sys.stderr)
        return 2
    hint = f"see `{path} --help`"
    return _emit(
        Reply(exit_code=2, errors=[Problem(message=message, code="usage", hint=hint)]), as_json
    )


def _emit(reply: Any, as_json: bool, view: str = "nothing") -> int:
    from supervisor.cli import output, views

    return output.emit(reply, as_json=as_json, render=getattr(views, view))


def _usage_error(error: ValueError, option: str) -> typer.BadParameter:
    return typer.BadParameter(str(error), param_hint=option)


def _seconds(text: str | None, option: str) -> float | None:
    from shared.units import parse_duration

    if text is None:
        return None
    try:
        return parse_duration(float(text) if text.replace(".", "", 1).isdigit() else text)
    except ValueError as error:
        raise _usage_error(error, option) from error


@app.command()
def start(
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            "-c",
            envvar="PROXYCTL_CONFIG",
            help="YAML, TOML or JSON. Without one, a built-in example is served.",
            metavar="FILE",
        ),
    ] = None,
    workers: Annotated[
        str | None,
        typer.Option(help="How many, or auto; over what the config says.", metavar="N|auto"),
    ] = None,
    runtime_dir: RuntimeDir = None,
    as_json: Json = False,
) -> int:
    """Run in the foreground until stop, TERM or Ctrl-C. HUP reloads."""
    from supervisor.cli import starting

    try:
        count = starting.parse_workers(workers)
    except ValueError as error:
        raise _usage_error(error, "--workers") from error
    return starting.start(config, count, runtime_dir, as_json)


@app.command()
def stop(
    timeout: Annotated[
        str | None,
        typer.Option(
            help="Cut what is still open after this long, e.g. 30s; else as configured.",
            metavar="DURATION",
        ),
    ] = None,
    now: Annotated[bool, typer.Option("--now", help="Cut every connection at once.")] = False,
    runtime_dir: RuntimeDir = None,
    as_json: Json = False,
) -> int:
    """Finish open connections, then end."""
    from supervisor.cli import stopping

    timeout_s = _seconds(timeout, "--timeout")
    return _emit(stopping.stop(_directory(runtime_dir), timeout_s, now), as_json, "stopped")


@app.command()
def reload(
    timeout: Annotated[
        str, typer.Option(help="How long to wait for the outcome.", metavar="DURATION")
    ] = "60s",
    runtime_dir: RuntimeDir = None,
    as_json: Json = False,
) -> int:
    """Read the config again. Refused: everything stays as it was, and exit code 1."""
    from msgspec import structs

    from supervisor.cli import client

    reply = client.ask(_directory(runtime_dir), "reload", {}, _seconds(timeout, "--timeout"))
    errors = [problem for problem in reply.errors if problem.code != "kept"]
    code = _emit(structs.replace(reply, errors=errors), as_json, "reloaded")
    if len(errors) < len(reply.errors) and not as_json:
        print(f"kept generation {reply.data['generation']}", file=sys.stderr)
    return code


@app.command()
def validate(
    file: Annotated[
        str, typer.Argument(help="The config; - is standard input, as YAML.", metavar="FILE")
    ],
    strict: Annotated[bool, typer.Option("--strict", help="Warnings fail, too.")] = False,
    as_json: Json = False,
) -> int:
    """Check a config and show all that is wrong with it."""
    from supervisor.cli import validating

    return _emit(validating.validate(file, strict), as_json, "valid")


@app.command()
def status(runtime_dir: RuntimeDir = None, as_json: Json = False) -> int:
    """What runs, and what it has done so far. Exit code 4 when it is degraded."""
    return _ask("status", runtime_dir, as_json, "status", 10.0)


@app.command()
def routes(runtime_dir: RuntimeDir = None, as_json: Json = False) -> int:
    """One line per route: ports, domains, state and counters."""
    return _ask("routes", runtime_dir, as_json, "routes", 10.0)


@app.command()
def workers(
    action: Annotated[
        str, typer.Argument(help="list, add or remove.", metavar="[list|add|remove]")
    ] = "list",
    count: Annotated[int | None, typer.Argument(help="How many; else 1.", metavar="[N]")] = None,
    timeout: Annotated[
        str, typer.Option(help="How long to wait for add and remove.", metavar="DURATION")
    ] = "30s",
    runtime_dir: RuntimeDir = None,
    as_json: Json = False,
) -> int:
    """One line per worker; or more, or fewer of them, within max_workers."""
    from supervisor.cli import resizing

    try:
        change = resizing.parse(action, count)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    timeout_s = _seconds(timeout, "--timeout") or 0.0
    reply = resizing.workers(_directory(runtime_dir), change, timeout_s)
    return _emit(reply, as_json, "resized" if change else "workers")


@app.command()
def probe(
    target: Annotated[
        str, typer.Argument(help="HOST:PORT, [v6]:PORT or unix:/path.", metavar="ADDRESS")
    ],
    proxy: Annotated[
        str | None, typer.Option(help="v1 or v2: begin with a PROXY header.", metavar="VERSION")
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="Client to claim; else the socket's own.", metavar="IP:PORT")
    ] = None,
    destination: Annotated[
        str | None, typer.Option(help="Address to claim as dialled.", metavar="IP:PORT")
    ] = None,
    tlv: Annotated[
        list[str] | None,
        typer.Option(help="authority=TEXT, 0xE1=hex:00ff, ...; repeatable.", metavar="TLV"),
    ] = None,
    local: Annotated[bool, typer.Option("--local", help="Send the v2 command LOCAL.")] = False,
    send: Annotated[
        str, typer.Option(help=r"Text to send then; \r \n \t \0 \\ \xHH.", metavar="TEXT")
    ] = "",
    timeout: Annotated[
        str, typer.Option(help="Stop reading after this long.", metavar="DURATION")
    ] = "5s",
    as_json: Json = False,
) -> int:
    """Connect as any client; print what comes back."""
    from supervisor.cli import probe as probing

    if proxy not in {None, "v1", "v2"}:
        raise typer.BadParameter(f"{proxy!r} is neither v1 nor v2", param_hint="--proxy")
    timeout_s = _seconds(timeout, "--timeout")
    if not timeout_s:
        raise typer.BadParameter("it must be above 0", param_hint="--timeout")
    try:
        wanted = probing.parse(
            target=target,
            proxy=proxy,
            source=source,
            destination=destination,
            tlvs=tlv or [],
            is_local=local,
            send=send,
            timeout_s=timeout_s,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    outcome = probing.run(wanted, None if as_json else probing.to_stdout)
    code = _emit(probing.reply(wanted, outcome), as_json)
    if code == 0 and not as_json:
        print(f"proxyctl: {probing.describe(outcome)}", file=sys.stderr)
    return code


def _directory(option: Path | None) -> Path:
    from supervisor.runtime_dir import choose

    return choose(option)


def _ask(
    verb: str, runtime_dir: Path | None, as_json: bool, view: str, timeout_s: float | None
) -> int:
    from supervisor.cli import client

    return _emit(client.ask(_directory(runtime_dir), verb, {}, timeout_s), as_json, view)
