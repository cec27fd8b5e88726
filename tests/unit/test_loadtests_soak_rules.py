"""The soak's verdict on rules, logs, memory and the full stop."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from loadtests.soak import parse
from loadtests.soak_judge import (
    Listed,
    Served,
    by_worker,
    cut_guests,
    judge_guests,
    judge_shown,
    judge_spread,
    judge_stop,
)
from loadtests.soak_log import UNWRITTEN, LogReader, LogSums, judge_log
from loadtests.soak_memory import LEAST, MORE_OPEN, SETTLE_S, Memory, Trend, judge_descriptors
from loadtests.soak_proxy import Figures
from loadtests.soak_verdict import Killed
from loadtests.soak_wire import (
    CONNECTIONS,
    Account,
    Guest,
    Numbers,
    Shown,
    Tally,
    parse_id,
    union,
    without,
)


def numbers(*found: int) -> bytes:
    """A set."""
    kept = Numbers()
    for number in found:
        kept.add(number)
    return bytes(kept.bits)


def guest(how: str, begun_at: float, ended_at: float) -> Guest:
    """One that came and went."""
    return Guest(host="1.2.3.4", route="short-0", begun_at=begun_at, ended_at=ended_at, how=how)


LISTS = [
    Listed(hosts=frozenset(), begun_at=0.0, done_at=0.0),
    Listed(hosts=frozenset({"1.2.3.4"}), begun_at=10.0, done_at=11.0),
    Listed(hosts=frozenset(), begun_at=20.0, done_at=21.0),
]


def test_numbers_are_a_set() -> None:
    """A number is new once; sets of different lengths compare and unite."""
    kept = Numbers()
    assert kept.add(9000)
    assert not kept.add(9000)
    assert without(numbers(1, 9000), bytes(kept.bits)) == 1
    assert without(union(numbers(1), numbers(9000)), numbers(1, 9000)) == 0
    assert parse_id("2-17-905") == (17, 905)
    assert parse_id("a-b") is None


@pytest.mark.parametrize(
    ("how", "begun_at", "ended_at", "is_wrong"),
    [
        ("ok", 1.0, 2.0, False),
        ("blocked", 1.0, 2.0, True),
        ("blocked", 9.0, 10.5, False),  # the reload is under way
        ("ok", 10.5, 10.9, False),
        ("ok", 12.0, 13.0, True),
        ("blocked", 12.0, 13.0, False),
        ("blocked", 21.5, 22.0, True),
    ],
)
def test_guests_follow_the_list(how: str, begun_at: float, ended_at: float, is_wrong: bool) -> None:
    """Before and after a reload there is one right answer, and during it there are two."""
    assert bool(judge_guests([guest(how, begun_at, ended_at)], LISTS, [])) is is_wrong


@pytest.mark.parametrize(
    ("version", "begun_at", "ended_at", "is_wrong"),
    [
        (0, 1.0, 2.0, False),
        (1, 1.0, 2.0, True),
        (0, 10.5, 10.9, False),  # the reload is under way
        (1, 9.0, 10.2, False),
        (0, 11.1, 11.2, True),
        (1, 12.0, 13.0, False),
        (-1, 12.0, 13.0, True),
    ],
)
def test_certificates_follow_the_config(
    version: int, begun_at: float, ended_at: float, is_wrong: bool
) -> None:
    """After a reload has returned nobody is shown the old one; a stopped worker may show it."""
    served = [Served(version=0, begun_at=0.0, done_at=0.0)]
    served.append(Served(version=1, begun_at=10.0, done_at=11.0))
    seen = [Shown(version=version, begun_at=begun_at, ended_at=ended_at)]
    assert bool(judge_shown(seen, served, [])) is is_wrong
    stopped = judge_shown(seen, served, [(9.5, begun_at)])
    assert bool(stopped) is (is_wrong and (version == -1 or begun_at < 9.5))


def test_guests_of_a_worker_that_stood_still() -> None:
    """It may serve by the generation from before it was stopped, until it has woken."""
    served = guest("ok", 12.0, 13.0)
    assert judge_guests([served], LISTS, [(9.5, 12.8)]) == []
    assert judge_guests([served], LISTS, [(9.5, 11.2)])


def test_guests_of_a_killed_worker() -> None:
    """One whose worker was killed looks blocked; one that was served was served."""
    killed = [1.5]
    assert judge_guests([guest("blocked", 1.0, 2.0)], LISTS, [], killed) == []
    assert judge_guests([guest("blocked", 3.0, 4.0)], LISTS, [], killed)
    assert judge_guests([guest("ok", 12.0, 13.0)], LISTS, [], [12.5])


def test_guests_that_a_kill_may_have_cut() -> None:
    """Those who look blocked and were there when a worker was killed, by route."""
    seen = [guest("blocked", 1.0, 2.0), guest("ok", 1.0, 2.0), guest("blocked", 3.0, 4.0)]
    assert cut_guests(seen, [1.5]) == {"short-0": 1}
    assert cut_guests(seen, [1.5, 3.9, 3.95]) == {"short-0": 2}
    assert cut_guests(seen, []) == {}


def test_long_connections_are_spread() -> None:
    """A worker that is there since long has some; a young one need not."""
    account = Account(open=2, open_ids=["0-1-5", "1-2-9"])
    assert by_worker(account) == {1: 1, 2: 1}
    assert judge_spread(account, {1: 60.0, 2: 60.0, 3: 5.0}, 20.0) == []
    assert "worker 3" in judge_spread(account, {1: 60.0, 3: 60.0}, 20.0)[0]


def test_the_stop_counts_what_we_count() -> None:
    """Cut ones exactly; drained ones at least those that ended late, at most all."""
    account = Account(outcomes={"cut": 3}, ended_after_stop=20, late_long_ends=9)
    for drained, cut, status, is_wrong in (
        (9, 3, 0, False),
        (20, 3, 0, False),
        (8, 3, 0, True),
        (21, 3, 0, True),
        (9, 2, 0, True),
        (9, 3, 1, True),
    ):
        said = f"stopped: {drained} connections drained, {cut} cut at the deadline"
        assert bool(judge_stop(account, status, said)) is is_wrong
    assert judge_stop(account, 0, "")


def log_account() -> Account:
    """Four connections of incarnation 7, of which one goes on."""
    tally = Tally()
    tally.add(100, CONNECTIONS, 4)
    return Account(
        ids={7: numbers(1, 2, 3, 4)}, open_ids=["0-7-4"], incarnations={7: tally}, open=1
    )


def test_every_connection_has_its_line() -> None:
    """One that is missing, of nobody, there twice or torn is wrong."""
    good = LogSums(lines=3, ids={7: numbers(1, 2, 3)})
    assert judge_log(good, log_account(), Killed(), {}) == []
    for sums, text in (
        (LogSums(ids={7: numbers(1, 3)}), "1 lines of worker 7 are missing"),
        (LogSums(ids={7: numbers(1, 2, 3, 5)}), "of nobody"),
        (LogSums(ids={7: numbers(1, 2, 3)}, twice=1), "second line"),
        (LogSums(ids={7: numbers(1, 2, 3)}, malformed=1), "malformed"),
        (LogSums(ids={7: numbers(1, 2, 3)}, undialled=1), "without a target"),
    ):
        assert text in judge_log(sums, log_account(), Killed(), {})[0]


def test_a_killed_worker_owes_its_last_lines() -> None:
    """What it held and what it had just carried may be missing, not what is older."""
    account = log_account()
    account.ids[7] = numbers(*range(1, 200))
    account.incarnations[7].add(100, CONNECTIONS, 195)
    killed = Killed(at={7: 200.0}, workers=1, accepted=199, dialled=199, ended=199)
    enough = LogSums(ids={7: numbers(*range(1, 200 - UNWRITTEN))})
    few = LogSums(ids={7: numbers(*range(1, 191 - UNWRITTEN))})
    assert judge_log(enough, account, killed, {}) == []
    assert "missing" in judge_log(few, account, killed, {})[0]
    assert judge_log(few, account, killed, {7: 9}) == []


def test_log_is_read_over_rotations(tmp_path: Path) -> None:
    """Lines written to a renamed file still count, and so does one that comes in two pieces."""
    path = tmp_path / "access.log"

    def line(number: int, target: str | None = "t") -> str:
        entry = {"id": f"0-7-{number}", "end": "client_closed", "target": target, "sent": 5}
        return json.dumps(entry) + "\n"

    reader = LogReader(path)
    assert reader.read().lines == 0
    with path.open("w") as old:
        old.write(line(1) + line(2)[:10])
        old.flush()
        assert reader.read().lines == 1
        assert reader.rotate()
        assert not reader.rotate()  # nobody has opened a new one yet
        path.write_text(line(3, None) + "what\n")
        old.write(line(2)[10:])
        old.flush()
        sums = reader.read()
    assert (sums.lines, sums.undialled, sums.malformed, sums.twice) == (3, 1, 1, 0)
    assert without(numbers(1, 2), sums.ids[7]) == 0
    assert (sums.rotations, sums.ends) == (1, {"client_closed": 3})
    assert [entry.name for entry in tmp_path.iterdir()] == ["access.log"]


def figures(
    role: str, kib: int, descriptors: int = 60, workers: int = 0, connections: int = 5
) -> Figures:
    """A sample of one process."""
    return Figures(
        role=role,
        pid=1,
        incarnation=0,
        connections=connections,
        descriptors=descriptors,
        pss_kib=kib,
        anonymous_kib=kib,
        shmem_kib=0,
        workers=workers,
    )


def trend_of(kib: Sequence[float], connections: Sequence[int] = ()) -> Trend:
    """Of a worker with a sample a second, once it has settled."""
    memory = Memory()
    for second in range(int(SETTLE_S)):
        memory.add(float(second), [figures("worker", 10_000)])
    for place, one in enumerate(kib):
        sample = figures("worker", int(one), connections=connections[place] if connections else 5)
        memory.add(SETTLE_S + place, [sample])
    (found,) = memory.trends()
    return found


@pytest.mark.parametrize(
    ("seconds", "kib_a_second", "step_s", "is_wrong"),
    [
        (4 * LEAST, 0.0, 1, False),
        (4 * LEAST, 20.0, 1, False),
        (4 * LEAST, 400.0, 1, True),
        (70, 65.0, 1, False),
        (70, 100.0, 1, True),
        (70, 100.0, 3, True),  # with each reload
        (600, 7.0, 1, False),
        (600, 12.0, 1, True),
        (600, 12.0, 3, True),
        (600, 12.0, 30, True),  # with each kill
        (600, 30.0, 35, True),  # arenas of 1 MiB
        (3600, 2.0, 3, True),
    ],
)
def test_memory_that_grows_is_wrong(
    seconds: int, kib_a_second: float, step_s: int, is_wrong: bool
) -> None:
    """Steadily or in steps; what a process does while it settles is not looked at."""
    kib = [30_000 + kib_a_second * (second - second % step_s) for second in range(seconds)]
    found = trend_of(kib)
    assert bool(found.wrong) is is_wrong
    assert found.samples == seconds


@pytest.mark.parametrize("at", range(0, 4 * LEAST, 5))
def test_a_heap_that_takes_a_step_is_flat(at: int) -> None:
    """However high it is, and wherever: a leak does not stop."""
    kib = [30_000 if second < at else 40_000 for second in range(4 * LEAST)]
    assert trend_of(kib).wrong == []


@pytest.mark.parametrize(
    "quarters", [(26.8, 31.1, 35.5, 35.5), (30.1, 35.70, 35.70, 35.71), (30.0, 30.0, 36.0, 42.0)]
)
def test_a_heap_that_is_flat_for_a_quarter_does_not_leak(quarters: Sequence[float]) -> None:
    """Workers behind a path of 50 ms, while ever more connections were open; by quarters."""
    assert trend_of([mib * 1024 for mib in quarters for _ in range(LEAST)]).wrong == []


# A worker behind a path of 50 ms in a soak of 100 s, every third second of it: MiB, connections.
_MIB = [
    *(31.1, 31.7, 31.7, 31.7, 31.9, 33.7, 33.7, 33.6, 33.9, 33.9, 33.9, 33.9, 34.0, 34.2, 34.6),
    *(34.6, 34.6, 34.9, 35.1, 35.1, 35.1, 35.1, 36.2, 36.2, 36.2, 36.3, 36.3, 38.9, 39.3, 39.3),
    *(39.3, 39.3, 39.3, 39.3, 39.3, 39.3, 39.3, 39.3, 39.3, 39.3, 39.3, 39.3, 39.5, 46.5),
]
_OPEN = [
    *(393, 25, 26, 24, 467, 486, 522, 548, 646, 663, 623, 676, 591, 507, 21, 20, 19, 141, 498),
    *(554, 523, 543, 761, 654, 669, 642, 667, 1105, 681, 649, 787, 16, 18, 76, 149, 190, 178, 271),
    *(388, 404, 747, 865, 1006, 1602),
]


def test_a_heap_grows_with_the_most_connections_ever_open() -> None:
    """Which is no leak; a leak shows all the same while that record stands."""
    kib = [mib * 1024 for mib in _MIB for _ in range(3)]
    connections = [count for count in _OPEN for _ in range(3)]
    found = trend_of(kib, connections)
    assert found.wrong == []
    assert found.most == 1105
    leak = [value + 200 * second for second, value in enumerate(kib)]
    assert "at most 1105 open" in trend_of(leak, connections).wrong[0]


def test_only_more_connections_than_ever_excuse_growth() -> None:
    """A heap that rises by quarters is judged while the record stood, here in the middle."""
    count = [*range(100, 1300, 20), *[1300] * 34, *range(1320, 2240, 20)]
    kib = [24_000 + 14 * most for most in count]
    assert trend_of(kib).wrong
    assert trend_of(kib, [2240, *count[1:]]).wrong  # there were as many before
    found = trend_of(kib, count)
    assert found.wrong == []
    assert 1300 <= found.most <= 1300 + MORE_OPEN


def test_descriptors_that_grow_are_wrong() -> None:
    """Those of connections and of workers that drain are no growth."""
    before = [figures(role, 1, 60, 3) for role in ("supervisor", "fork server", "worker")]
    more = [figures("supervisor", 1, 80, 8), *before[1:]]
    assert judge_descriptors(before, more) == []
    leak = [figures("supervisor", 1, 80, 3), *before[1:]]
    assert "supervisor" in judge_descriptors(before, leak)[0]


def test_least_counts_are_read() -> None:
    """As for a long run by hand; a full stop under load ends every run unless told otherwise."""
    options = parse(["--connections", "1000000", "--reloads", "1000", "--kills", "100"])
    assert (options.connections, options.reloads, options.kills) == (1_000_000, 1000, 100)
    assert options.end_with_stop
    assert not parse(["--no-end-with-stop"]).end_with_stop
    assert parse([]).seed != parse(["--seed", "1"]).seed
