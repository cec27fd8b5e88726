"""proxyctl under load while it is reloaded: `make load`.

    python -m loadtests.run_load --seconds 30

Starts an echo, one that speaks HTTP, an nginx that tells the address it saw, proxyctl between them
and the clients, and locust without its web page. Every 2 s the config gets another set of side
routes and is reloaded, and every other time with another certificate for the routes that end TLS;
now and then the file is broken, and the refusal is expected. Passes when no request failed, every
kind of user did enough, every reload answered as it should and changed the certificate that clients
are shown, or not, and proxyctl holds no connection once the clients are gone.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from time import time
from typing import Final

import msgspec
from msgspec import Struct

from loadtests import gate
from loadtests.load_certificates import Certificates, shown
from loadtests.load_config import Ports, config, is_broken
from loadtests.machine import facts
from loadtests.peers import origin_config, start_nginx, start_proxyctl
from loadtests.processes import (
    LoadTestError,
    Started,
    Workspace,
    proxyctl_program,
    raise_descriptor_limit,
    require_running,
    wait_listening,
    wait_until,
)

RESULTS: Final = Path(__file__).parent / "results"
RELOAD_EVERY_S: Final = 2.0
CERTIFICATE_EVERY: Final = 2  # reloads; the certificate of one that is refused waits for the next
USERS: Final = 61  # the sum of fixed_count in locustfile.py
STOP_TIMEOUT_S: Final = 12  # longer than any single request may take
EMPTY_S: Final = 10.0  # for proxyctl to hold no connection after the clients left
SHOWN_LINES: Final = 30  # of each file that helps to find a fault
COMMAND_S: Final = 30.0  # what a command of proxyctl may take


class Reload(Struct, frozen=True, kw_only=True):
    """One reload: when (seconds since the epoch), its exit code, and the one that was due."""

    at: float
    exit_code: int
    expected: int
    output: str = ""  # only where they differ
    is_renewed: bool = False  # clients are shown another certificate from now on
    wrong_certificates: int = 0  # clients that were shown another one than that of this config


class LoadReport(Struct, kw_only=True):
    """What load.json holds. ``connections_left``: held by proxyctl after the clients left."""

    machine: dict[str, str]
    seconds: int
    requests: dict[str, int]
    failures: int
    reloads_accepted: int
    reloads_refused_as_expected: int
    certificates_renewed: int
    connections_left: int
    wrong: list[str]


def run_command(directory: Path, verb: str, *arguments: str) -> tuple[int, str]:
    """Run ``proxyctl VERB`` against the instance in ``directory``: exit code and all output."""
    try:
        done = subprocess.run(
            [proxyctl_program(), verb, *arguments],
            env={**os.environ, "PROXYCTL_RUNTIME_DIR": str(directory)},
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return 5, f"`proxyctl {verb}` did not end within {COMMAND_S:g} s"
    return done.returncode, done.stdout + done.stderr


def connections_now(directory: Path) -> int:
    """``data.connections`` of ``proxyctl status``; LoadTestError when there is no such answer."""
    code, output = run_command(directory, "status", "--json")
    try:
        return int(json.loads(output)["data"]["connections"])
    except (ValueError, KeyError, TypeError):
        raise LoadTestError(f"`proxyctl status --json` ended with {code}: {output}") from None


def start_targets(space: Workspace) -> tuple[Ports, Certificates]:
    """Start the echo and the nginx that tells addresses; choose all ports, make certificates."""
    certificates = Certificates(space.directory)
    ports = Ports(
        directory=str(space.directory),
        echo=space.port(),
        from_v1=space.port(),
        from_v2=space.port(),
        echo_target=space.port(),
        witness=space.port(),
        witness_plain=space.port(),
        tls=space.port(),
        tls_target=space.port(),
        http=space.port(),
        https=space.port(),
        http_target=space.port(),
        side=(space.port(), space.port()),
    )
    command = [sys.executable, "-m", "loadtests.echo_target", str(ports.echo_target)]
    command += [str(ports.tls_target), str(certificates.target)]
    wait_listening(space.start("echo", command), ports.echo_target)
    command = [sys.executable, "-m", "loadtests.http_target", str(ports.http_target)]
    wait_listening(space.start("web", command), ports.http_target)
    witness = origin_config(space.directory, ports.witness_plain, ports.witness)
    start_nginx(space, "witness", witness, ports.witness_plain)
    return ports, certificates


def start_locust(space: Workspace, ports: Ports, seconds: int) -> Started:
    """Start locust without its web page; it ends by itself and leaves locust.json."""
    command = [sys.executable, "-m", "locust", "-f", str(Path(__file__).parent / "locustfile.py")]
    command += ["--headless", "-u", str(USERS), "-r", str(USERS), "-t", f"{seconds}s"]
    command += ["--stop-timeout", f"{STOP_TIMEOUT_S}s", "--exit-code-on-error", "1"]
    command += ["--json-file", str(space.directory / "locust"), "--only-summary"]
    command += ["--csv", str(space.directory / "locust")]
    clients = {"echo": ports.echo, "from_v1": ports.from_v1, "from_v2": ports.from_v2}
    clients |= {"tls": ports.tls, "http": ports.http, "https": ports.https}
    files = Certificates.names(Path(ports.directory))
    env = {
        "PROXYCTL_LOAD_PORTS": json.dumps(clients),
        "PROXYCTL_LOAD_FILES": json.dumps(files),
    }
    return space.start("locust", command, env)


def reload_until_done(
    space: Workspace, ports: Ports, certificates: Certificates, locust: Started, seconds: int
) -> list[Reload]:
    """Reload every RELOAD_EVERY_S until locust ends; LoadTestError when it never does."""
    directory = space.directory / "load.run"
    reloads: list[Reload] = []
    give_up = time() + seconds + STOP_TIMEOUT_S + 30
    while True:
        try:
            locust.popen.wait(RELOAD_EVERY_S)
            return reloads
        except subprocess.TimeoutExpired:
            if time() > give_up:
                raise LoadTestError(f"locust does not end:\n{locust.tail()}") from None
        number = len(reloads) + 1
        space.write("load.yaml", config(ports, number))
        before = certificates.served
        if number % CERTIFICATE_EVERY == 0:
            certificates.renew()
        at = time()
        code, output = run_command(directory, "reload")
        expected = int(is_broken(number))
        if not expected:
            certificates.served = certificates.written
        reloads.append(
            Reload(
                at=at,
                exit_code=code,
                expected=expected,
                output="" if code == expected else output.strip(),
                is_renewed=certificates.served != before,
                wrong_certificates=sum(
                    serial != certificates.served
                    for serial in shown(ports.tls, "term.test", certificates)
                ),
            )
        )


def judge_run(
    entries: Sequence[gate.Entry],
    reloads: Sequence[Reload],
    seconds: int,
    locust_status: int,
    left: int,
) -> list[str]:
    """All that is wrong with a run, one sentence each."""
    wrong = gate.judge(entries, seconds)
    wrong += [
        f"reload ended with {reload.exit_code}, not {reload.expected}: {reload.output}"
        for reload in reloads
        if reload.exit_code != reload.expected
    ]
    wrong += [
        f"{reload.wrong_certificates} clients were shown another certificate after a reload"
        for reload in reloads
        if reload.wrong_certificates
    ]
    least = max(1, int(seconds / RELOAD_EVERY_S / 2))
    if len(reloads) < least:
        wrong.append(f"only {len(reloads)} reloads, at least {least} were due")
    if locust_status != 0 and not gate.failed_requests(entries):
        wrong.append(f"locust ended with {locust_status}")
    if left:
        wrong.append(f"proxyctl holds {left} connections {EMPTY_S:g} s after the clients left")
    return wrong


def _connections_left(directory: Path) -> int:
    """Wait until proxyctl holds none; returns how many are left at the end."""
    left = [0]

    def is_empty() -> bool:
        left[0] = connections_now(directory)
        return left[0] == 0

    try:
        wait_until(is_empty, EMPTY_S, "proxyctl holds no connection")
    except LoadTestError:
        if not left[0]:
            raise
    return left[0]


def run(seconds: int, workers: int, out: Path) -> LoadReport:
    """The whole run; writes load.json and load.png to ``out``. LoadTestError: it cannot go on."""
    from loadtests.plots import plot_load  # matplotlib is needed to run, not to import

    raise_descriptor_limit()
    with Workspace("proxyctl-load-") as space:
        ports, certificates = start_targets(space)
        path = space.write("load.yaml", config(ports, 0))
        proxyctl = start_proxyctl(space, "load", path, workers)
        directory = space.directory / "load.run"
        locust = start_locust(space, ports, seconds)
        reloads = reload_until_done(space, ports, certificates, locust, seconds)
        result = space.directory / "locust.json"
        if not result.exists():
            status = locust.popen.returncode
            raise LoadTestError(f"locust ended with {status}, no result:\n{locust.tail()}")
        entries = gate.read_entries(result)
        require_running(proxyctl)
        left = _connections_left(directory)
        wrong = judge_run(entries, reloads, seconds, locust.popen.returncode, left)
        if wrong:
            _show(space.directory, locust, proxyctl)
    requests, failures = gate.by_second(entries)
    out.mkdir(parents=True, exist_ok=True)
    plot_load(requests, [reload.at for reload in reloads], failures, out / "load.png")
    report = LoadReport(
        machine=facts(),
        seconds=seconds,
        requests={entry.name: entry.num_requests for entry in entries},
        failures=gate.failed_requests(entries),
        reloads_accepted=sum(reload.exit_code == 0 == reload.expected for reload in reloads),
        reloads_refused_as_expected=sum(
            reload.exit_code == reload.expected != 0 for reload in reloads
        ),
        certificates_renewed=sum(reload.is_renewed for reload in reloads),
        connections_left=left,
        wrong=wrong,
    )
    encoded = msgspec.json.format(msgspec.json.encode(report), indent=1)
    (out / "load.json").write_bytes(encoded + b"\n")
    print(gate.table(entries))
    return report


def _show(directory: Path, *programs: Started) -> None:
    """Print what helps to find the fault: failures by message, and the ends of outputs."""
    for name in ("locust_failures.csv", "locust_exceptions.csv"):
        path = directory / name
        if path.exists():
            lines = path.read_text().splitlines()[:SHOWN_LINES]
            print(f"--- {name}", *lines, sep="\n", file=sys.stderr)
    for program in programs:
        print(f"--- {program.name}\n{program.tail(SHOWN_LINES)}", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """Run, print failures and verdict; 0 when nothing is wrong, else 1."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.run_load", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--seconds", type=int, default=30, help="of load (30)")
    parser.add_argument("--workers", type=int, default=2, help="of proxyctl (2)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="directory for JSON and PNG")
    options = parser.parse_args(argv)
    if options.seconds < 1 or options.workers < 1:
        parser.error("--seconds and --workers must be at least 1")
    try:
        report = run(options.seconds, options.workers, options.out)
    except LoadTestError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(
        f"reloads: {report.reloads_accepted} accepted,"
        f" {report.reloads_refused_as_expected} refused as expected,"
        f" {report.certificates_renewed} with another certificate"
    )
    print(f"connections left: {report.connections_left}")
    print(f"failures: {report.failures}")
    for sentence in report.wrong:
        print(f"FAIL {sentence}")
    print("FAIL" if report.wrong else "PASS")
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
