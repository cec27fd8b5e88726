"""Medians, ratios, floors and verdicts of a comparison."""

from __future__ import annotations

import pytest

from loadtests.compare import main, rotated, starts
from loadtests.field import FROM_SOURCE, does
from loadtests.figures import (
    Sample,
    Summary,
    better_peer,
    by_round,
    failures,
    markdown_table,
    overhead,
    reaches,
    round_overheads,
    summarize,
    text_table,
)
from loadtests.works import (
    BY_NAME,
    EVERYTHING,
    FEW,
    HTTP,
    MANY,
    OFF,
    OVERHEAD,
    PLAIN,
    SOURCE,
    TLS,
    WORKS,
    Work,
    expand,
)


def samples(work: str, values: dict[str, list[float]], errors: int = 0) -> list[Sample]:
    """One start per proxy and round; ``errors`` goes to proxyctl's first."""
    return [
        Sample(
            work=work,
            proxy=proxy,
            round=number,
            value=value,
            cpu_us=10.0 * number,
            errors=errors if proxy == "proxyctl" and number == 1 else 0,
        )
        for proxy, row in values.items()
        for number, value in enumerate(row, 1)
    ]


def summary_of(rows: list[Summary], proxy: str) -> Summary:
    """The row of one proxy."""
    return next(row for row in rows if row.proxy == proxy)


def test_ratio_is_of_medians_to_the_better_peer() -> None:
    """One wild round moves neither the median nor the ratio."""
    values = {
        "haproxy": [100.0, 110.0, 5000.0],
        "nginx": [90.0, 200.0, 80.0],
        "proxyctl": [99.0, 1.0, 104.5],
    }
    row = summary_of(summarize(BY_NAME["connections"], samples("connections", values)), "proxyctl")
    assert (row.median, row.low, row.high, row.starts) == (99.0, 1.0, 104.5, 3)
    assert row.ratio == pytest.approx(99.0 / 110.0)
    assert row.round_ratios == pytest.approx([0.99, 0.005, 104.5 / 5000])
    assert row.cpu_us == 20.0
    assert row.passed is True


def several_starts(work: str, rounds: list[dict[str, list[float]]]) -> list[Sample]:
    """Samples of proxies that are started more than once in a round."""
    return [
        Sample(work=work, proxy=proxy, round=number, value=value)
        for number, row in enumerate(rounds, 1)
        for proxy, values in row.items()
        for value in values
    ]


def test_all_starts_count_and_each_round_has_one_ratio() -> None:
    """The median is over every start; within a round the median of its starts is compared."""
    found = several_starts(
        "connections",
        [
            {"haproxy": [100.0], "proxyctl": [80.0, 90.0]},
            {"haproxy": [110.0], "proxyctl": [99.0, 121.0]},
        ],
    )
    assert by_round(found) == [
        {"haproxy": 100.0, "proxyctl": 85.0},
        {"haproxy": 110.0, "proxyctl": 110.0},
    ]
    row = summary_of(summarize(BY_NAME["connections"], found), "proxyctl")
    assert (row.starts, row.median) == (4, 94.5)
    assert row.ratio == pytest.approx(94.5 / 105.0)
    assert row.round_ratios == pytest.approx([0.85, 1.0])


def test_overhead_is_of_medians_over_all_starts() -> None:
    """One wild start does not decide; each round is told too; and the bound itself is enough."""
    rounds = [
        {EVERYTHING: [93.0, 91.0], OFF: [100.0, 100.0]},
        {EVERYTHING: [92.0, 20.0], OFF: [100.0, 100.0]},
        {EVERYTHING: [92.0, 93.0], OFF: [100.0, 300.0]},
    ]
    found = several_starts("connections", rounds)
    rows = summarize(BY_NAME["connections"], found)
    share = overhead(rows, "connections")
    assert share == pytest.approx(OVERHEAD) == pytest.approx(0.08)
    assert round_overheads(found, "connections") == pytest.approx([0.08, 0.44, 0.5375])
    assert overhead(rows, "messages") is None
    assert round_overheads(found, "messages") == []


@pytest.mark.parametrize(("value", "is_missed"), [(92.1, False), (91.9, True)])
def test_overhead_above_its_bound_fails_the_run(value: float, is_missed: bool) -> None:
    """The sentence gives the share and the bound."""
    found = several_starts("messages", [{EVERYTHING: [value, value], OFF: [100.0, 100.0]}])
    sentences = failures(summarize(BY_NAME["messages"], found))
    missed = ["messages: everything on costs 8.1%, must be at most 8%"]
    assert sentences == (missed if is_missed else [])


def test_memory_compares_with_the_smaller_peer() -> None:
    """For memory the better peer is the one that needs less, and the floor is an upper bound."""
    values = {"haproxy": [3400.0], "nginx": [9500.0], "proxyctl": [2400.0]}
    row = summary_of(summarize(BY_NAME["memory"], samples("memory", values)), "proxyctl")
    assert row.ratio == pytest.approx(2400 / 3400)
    assert row.passed is False


@pytest.mark.parametrize(
    "work", [work for work in WORKS if work.floor is not None], ids=lambda work: work.name
)
def test_floor_itself_is_enough_and_no_less(work: Work) -> None:
    """Exactly the floor passes; the smallest step to the worse side does not."""
    worse = 0.001 if work.lower_is_better else -0.001
    assert work.floor is not None
    assert reaches(work, work.floor)
    assert not reaches(work, work.floor + worse)
    assert reaches(work, work.floor - worse)


def test_floors_are_those_that_were_promised() -> None:
    """Nobody lowers a floor without this test noticing."""
    assert {work.name: work.floor for work in WORKS} == {
        "connections": 0.80,
        "messages": 0.85,
        "bulk": 1.0,
        "proxy_v2": 0.80,
        "memory": 0.70,
        "tls_handshakes": 0.90,
        "tls_resumed": 0.85,
        "tls_messages": 0.85,
        "tls_bulk": 1.0,
        "tls_reencrypt": 0.85,
        "sni_connections": 0.75,
        "tls_memory": 1.1,
        "names_10000": 0.95,
        "http_kept": 0.65,
        "http_logged": 0.65,
        "http_connections": 0.55,
        "http_64k": None,
        "http_1m": 0.90,
        "https_kept": 0.70,
        "https_connections": 0.85,
        "https_64k": None,
        "https_1m": 0.95,
        "http_p99": None,
        "http_memory": None,
        "https_memory": None,
        "http_routes_10000": 0.95,
        "http_routes_all": 0.95,
    }
    assert [work.name for work in WORKS if work.lower_is_better] == [
        "memory",
        "tls_memory",
        "http_p99",
        "http_memory",
        "https_memory",
    ]


def test_one_error_fails_a_fast_run() -> None:
    """A figure above the floor does not excuse a failed request."""
    values = {"haproxy": [100.0, 100.0], "proxyctl": [120.0, 120.0]}
    rows = summarize(BY_NAME["messages"], samples("messages", values, errors=1))
    assert summary_of(rows, "proxyctl").passed is False
    assert failures(rows) == ["messages: proxyctl had 1 errors"]


def test_errors_of_a_peer_fail_the_run_too() -> None:
    """A comparison with a peer that failed proves nothing."""
    bad = Sample(work="bulk", proxy="nginx", round=1, value=1.0, errors=2)
    good = Sample(work="bulk", proxy="proxyctl", round=1, value=30.0)
    rows = summarize(BY_NAME["bulk"], [bad, good])
    assert summary_of(rows, "nginx").passed is None
    assert failures(rows) == ["bulk: nginx had 2 errors"]


def test_missed_floor_names_figure_and_bound() -> None:
    """The sentence says which work, whose ratio, and what it had to be."""
    values = {"haproxy": [100.0], "proxyctl": [79.0]}
    rows = summarize(BY_NAME["connections"], samples("connections", values))
    assert failures(rows) == ["connections: proxyctl has 0.790, must be at least 0.80"]
    values = {"haproxy": [100.0], "proxyctl": [71.0]}
    rows = summarize(BY_NAME["memory"], samples("memory", values))
    assert failures(rows) == ["memory: proxyctl has 0.710, must be at most 0.70"]


def test_without_a_peer_there_is_no_ratio() -> None:
    """proxyctl alone gets figures but no ratio, and no division by a missing peer."""
    assert better_peer(BY_NAME["bulk"], {"proxyctl": 3.0}) is None
    rows = summarize(BY_NAME["bulk"], samples("bulk", {"proxyctl": [3.0, 4.0]}))
    assert (rows[0].ratio, rows[0].round_ratios, rows[0].passed) == (None, [], True)


def test_tables_hold_every_row_and_the_verdict() -> None:
    """Both tables have one line per proxy; only a proxy with a floor gets a verdict."""
    values = {"haproxy": [12000.0], "nginx": [10000.0], "proxyctl": [9000.0]}
    rows = summarize(BY_NAME["connections"], samples("connections", values))
    text = text_table(rows).splitlines()
    assert [line.split()[1] for line in text[1:]] == ["haproxy", "nginx", "proxyctl"]
    assert text[3].endswith("FAIL")
    assert "9,000 connections/s" in text[3]
    assert "0.75" in text[3]
    markdown = markdown_table(rows).splitlines()
    assert len(markdown) == 5
    assert len({line.count("|") for line in markdown}) == 1
    assert markdown[4].endswith("| FAIL |")
    assert not markdown[2].endswith("| FAIL |")


def test_order_rotates_so_that_each_proxy_is_first_once() -> None:
    """Over as many rounds as there are proxies, each stands at each place exactly once."""
    names = ["a", "b", "c"]
    orders = [rotated(names, number) for number in range(3)]
    assert all(sorted(order) == names for order in orders)
    assert all(sorted(column) == names for column in zip(*orders, strict=True))


def test_the_pair_is_started_in_turns() -> None:
    """Both stand twice and side by side, and none is always the outer one."""
    names = ["haproxy", "nginx", EVERYTHING, OFF]
    a, b = EVERYTHING, OFF
    assert starts(names, 1) == ["haproxy", "nginx", a, b, b, a]
    assert starts(names, 2) == ["nginx", b, a, a, b, "haproxy"]
    assert starts(names, 3) == [a, b, b, a, "haproxy", "nginx"]


def test_many_domains_are_compared_with_few_of_the_same_program() -> None:
    """Started in turns as well; the few are what the many are held against, and have no floor."""
    assert starts([MANY, FEW], 1) == [MANY, FEW, FEW, MANY]
    assert starts([MANY, FEW], 2) == [FEW, MANY, MANY, FEW]
    values = {MANY: [94.0], FEW: [100.0]}
    rows = summarize(BY_NAME["names_10000"], samples("names_10000", values))
    assert (summary_of(rows, MANY).passed, summary_of(rows, FEW).passed) == (False, None)
    assert failures(rows) == [f"names_10000: {MANY} has 0.940, must be at least 0.95"]


def test_who_does_what_with_tls() -> None:
    """Both peers and proxyctl with its defaults; a command given by hand knows no TLS."""
    doing = ["haproxy", "nginx", EVERYTHING, OFF, SOURCE, MANY, FEW]
    for work in WORKS:
        found = [name for name in doing if does(name, None, work.name)]
        if work.name in ("names_10000", "http_routes_10000", "http_routes_all"):
            assert found == [MANY, FEW]
        elif work.group in (TLS, HTTP):
            assert found[:3] == ["haproxy", "nginx", EVERYTHING]
            assert found[3:] == ([SOURCE] if work.name in FROM_SOURCE else [])
            assert not does("mine", "run {port} {target_port}", work.name)
        else:
            assert not {MANY, SOURCE} & set(found)


def test_no_floor_is_never_missed() -> None:
    """A work without one passes with any ratio, but not with an error."""
    rows = summarize(BY_NAME["http_p99"], samples("http_p99", {"nginx": [1.0], EVERYTHING: [9.0]}))
    assert summary_of(rows, EVERYTHING).ratio == 9.0
    assert summary_of(rows, EVERYTHING).passed
    assert failures(rows) == []


def test_the_source_is_shown_and_not_judged() -> None:
    """Floors are for what is installed; its errors count all the same."""
    figures = {"nginx": [100.0], EVERYTHING: [90.0], SOURCE: [5.0]}
    rows = summarize(BY_NAME["http_kept"], samples("http_kept", figures))
    assert (summary_of(rows, SOURCE).ratio, summary_of(rows, SOURCE).passed) == (0.05, None)
    assert failures(rows) == []


def test_groups_stand_for_their_works() -> None:
    """Together they are all works; a work that is named twice is done once."""
    assert expand([PLAIN, TLS, HTTP]) == [work.name for work in WORKS]
    assert expand(["bulk", PLAIN]) == ["bulk", "connections", "messages", "proxy_v2", "memory"]
    assert expand(["speed"]) == ["speed"]


def test_without_its_pair_a_proxy_is_started_once() -> None:
    """Then there is no difference to show; a work that nobody does starts nobody."""
    assert starts(["haproxy", EVERYTHING], 1) == ["haproxy", EVERYTHING]
    assert starts([OFF], 2) == [OFF]
    assert starts([], 1) == []


def test_nginx_and_unknown_commands_are_left_out_of_proxy_v2() -> None:
    """nginx stream sends v1 only; a command given by hand promises nothing about PROXY."""
    assert not does("nginx", None, "proxy_v2")
    assert not does("mine", "run {port} {target_port}", "proxy_v2")
    assert does("haproxy", None, "proxy_v2")
    assert does("nginx", None, "connections")


@pytest.mark.parametrize(
    "arguments", [["--work", "connections,speed"], ["--rounds", "0"], ["--proxy", "mine"]]
)
def test_wrong_arguments_end_with_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """A misspelt work, no rounds, or a command without {port} starts nothing."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "error:" in capsys.readouterr().err
