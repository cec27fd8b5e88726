"""The soak's verdict on rules, logs, memory and the full stop."""

from __future__ import annotations

import json
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
from loadtests.soak_memory import LEAST, SETTLE_S, Memory, judge_descriptors
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
        reader.rotate()
        path.write_text(line(3, None) + "what\n")
        old.write(line(2)[10:])
        old.flush()
        sums = reader.read()
    assert (sums.lines, sums.undialled, sums.malformed, sums.twice) == (3, 1, 1, 0)
    assert without(numbers(1, 2), sums.ids[7]) == 0
    assert (sums.rotations, sums.ends) == (1, {"client_closed": 3})
    assert [entry.name for entry in tmp_path.iterdir()] == ["access.log"]


def figures(role: str, kib: int, descriptors: int = 60, workers: int = 0) -> Figures:
    """A sample of one process."""
    return Figures(
        role=role,
        pid=1,
        incarnation=0,
        connections=5,
        descriptors=descriptors,
        pss_kib=kib,
        anonymous_kib=kib,
        shmem_kib=0,
        workers=workers,
    )


@pytest.mark.parametrize(("kib_a_sample", "is_wrong"), [(0, False), (20, False), (400, True)])
def test_memory_that_grows_is_wrong(kib_a_sample: int, is_wrong: bool) -> None:
    """Quarters are compared; what a process does while it settles is not looked at."""
    memory = Memory()
    for second in range(int(SETTLE_S) + 4 * LEAST):
        kib = 10_000 if second < SETTLE_S else 30_000 + kib_a_sample * second
        memory.add(float(second), [figures("worker", kib)])
    (found,) = memory.trends()
    assert bool(found.wrong) is is_wrong
    assert found.samples == 4 * LEAST


@pytest.mark.parametrize("at", range(0, 4 * LEAST, 5))
def test_a_heap_that_takes_a_step_is_flat(at: int) -> None:
    """However high it is, and wherever: a leak does not stop."""
    memory = Memory()
    for second in range(int(SETTLE_S) + 4 * LEAST):
        kib = 30_000 if second < SETTLE_S + at else 40_000
        memory.add(float(second), [figures("worker", kib)])
    (found,) = memory.trends()
    assert found.wrong == []


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
