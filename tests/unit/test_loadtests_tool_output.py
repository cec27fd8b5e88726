"""Parsers of wrk, iperf3, openssl s_time and /proc, on output as these print it."""

from __future__ import annotations

import msgspec
import pytest

from loadtests.machine import cpu_model
from loadtests.proc_files import parse_pss, parse_stat
from loadtests.tool_output import (
    IperfRun,
    ToolError,
    WrkRun,
    parse_iperf,
    parse_s_time,
    parse_wrk,
)

WRK = """Running 2s test @ http://127.0.0.1:43035/
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     3.02ms    1.22ms  18.44ms   84.16%
    Req/Sec    13.70k     1.12k   15.75k    70.00%
  27315 requests in 2.01s, 4.01MB read
{extra}Requests/sec:  13589.45
Transfer/sec:      2.00MB
"""

S_TIME = """Collecting connection statistics for 1 seconds
****

1258 connections in 0.77s; 1633.77 connections/user sec, bytes read 182410
1258 connections in 2 real seconds, 145 bytes read per connection
"""

SOCKET_ERRORS = "  Socket errors: connect 1, read 20, write 300, timeout 4000\n"
BAD_STATUS = "  Non-2xx or 3xx responses: 50000\n"


@pytest.mark.parametrize(
    ("extra", "errors"),
    [
        ("", 0),
        (SOCKET_ERRORS, 4321),
        (BAD_STATUS, 50000),
        (SOCKET_ERRORS + BAD_STATUS, 54321),
    ],
)
def test_wrk_counts_errors_of_every_kind(extra: str, errors: int) -> None:
    """Socket errors and bad statuses add up, and neither line hides the totals."""
    assert parse_wrk(WRK.format(extra=extra)) == WrkRun(27315, 13589.45, errors)


@pytest.mark.parametrize(
    "text", ["", "unable to connect to 127.0.0.1:1 Connection refused\n", WRK[:300]]
)
def test_wrk_without_totals_is_an_error(text: str) -> None:
    """A run that did not finish is never taken for one with zero requests."""
    with pytest.raises(ToolError, match="no totals"):
        parse_wrk(text)


def test_iperf_counts_what_the_receiver_got() -> None:
    """Bytes and rate are those of sum_received, not of sum_sent."""
    report = {
        "start": {},
        "end": {
            "sum_sent": {"bytes": 9_000_000, "bits_per_second": 9.0},
            "sum_received": {"bytes": 8 * 1024 * 1024, "bits_per_second": 33554432.5},
        },
    }
    found = parse_iperf(msgspec.json.encode(report).decode())
    assert found == IperfRun(8 * 1024 * 1024, 33554432.5)
    assert found.mib == 8.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"start": {}, "error": "the server is busy running a test"}', "busy"),
        ('{"start": {}, "end": {}}', "sum_received"),
        ('{"end": []}', "sum_received"),
        ("[1, 2]", "no JSON"),
        ("iperf3: unknown option", "no JSON"),
        ("", "no JSON"),
    ],
)
def test_iperf_failure_keeps_its_reason(text: str, message: str) -> None:
    """Whatever iperf3 printed instead of a result becomes a ToolError that says so."""
    with pytest.raises(ToolError, match=message):
        parse_iperf(text)


def test_stat_survives_brackets_and_blanks_in_the_name() -> None:
    """The fields are counted from the last bracket, since a name may hold any character."""
    fields = ["S", "77", *["0"] * 9, "120", "34", *["0"] * 6, "998877", "0", "0"]
    stat = parse_stat(f"4321 (a) b (c) {' '.join(fields)}\n")
    assert (stat.parent, stat.user_ticks, stat.system_ticks, stat.start_ticks) == (
        77,
        120,
        34,
        998877,
    )


def test_stat_that_is_cut_short_is_an_error() -> None:
    """A line with too few fields raises ValueError instead of giving wrong times."""
    with pytest.raises(ValueError, match="not a stat line"):
        parse_stat("1 (init) S 0 1 1")


def test_pss_is_the_total_and_not_one_of_its_parts() -> None:
    """Pss_Anon and Pss_Dirty stand beside Pss and must not be taken for it."""
    text = "Rss: 900 kB\nPss_Dirty:  5 kB\nPss:                 812 kB\nPss_Anon:  700 kB\n"
    assert parse_pss(text) == 812 * 1024
    with pytest.raises(ValueError, match="no Pss"):
        parse_pss("Rss: 900 kB\nPss_Anon:  700 kB\n")


def test_cpu_model_is_found_or_said_to_be_unknown() -> None:
    """The first model name counts; an architecture that prints none is no error."""
    assert cpu_model("processor\t: 0\nmodel name\t: AMD EPYC 9R14\nflags\t: x\n") == "AMD EPYC 9R14"
    assert cpu_model("processor\t: 0\nBogoMIPS\t: 50.00\n").startswith("unknown (")


def test_s_time_counts_connections() -> None:
    """The sum stands in its last line; output without one is an error with its end."""
    assert parse_s_time(S_TIME, False) == 1258
    with pytest.raises(ToolError, match="connect:errno=111"):
        parse_s_time("Collecting connection statistics for 1 seconds\nconnect:errno=111\n", False)


def test_s_time_says_which_handshakes_it_made() -> None:
    """A full handshake among resumed ones is an error, and so is a resumed one among new ones."""
    resumed = S_TIME.replace("****", "rrrr")
    assert parse_s_time(resumed, True) == 1258
    for text, wanted in [(S_TIME, True), (resumed, False), (S_TIME.replace("****", "rr*r"), True)]:
        with pytest.raises(ToolError, match="of 4 handshakes"):
            parse_s_time(text, wanted)
    with pytest.raises(ToolError, match="0 of 0 handshakes"):
        parse_s_time(S_TIME.replace("****", ""), True)
