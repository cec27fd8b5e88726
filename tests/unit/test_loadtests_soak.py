"""The soak's account and verdict: what is excused, what is not, and when books disagree."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest

from loadtests.soak import parse, phases
from loadtests.soak_deeds import Deeds, Kind, Left, Signalled
from loadtests.soak_shape import (
    RANGE_PORTS,
    Ports,
    Site,
    broken,
    document,
    first_shape,
    long_places,
    next_shape,
    of_traffic,
    places,
)
from loadtests.soak_verdict import (
    Excuses,
    Killed,
    excuse,
    judge_books,
    judge_losses,
    judge_probes,
    judge_restarts,
    killed_of,
    sure_of,
)
from loadtests.soak_watch import Restart, counters
from loadtests.soak_wire import (
    CONNECTIONS,
    SECONDS_KEPT,
    TO_CLIENT,
    TO_TARGET,
    Account,
    Gone,
    Lines,
    Lost,
    Place,
    Probe,
    Settled,
    Tally,
    decode_answer,
    decode_order,
    encode_line,
)

PLACE = Place("side", "127.0.0.1", 1001)
INF = float("inf")


def lost(**changes: Any) -> Lost:
    """A connection that was cut in the middle, held by incarnation 7."""
    known: dict[str, Any] = {
        "token": 1,
        "kind": "short",
        "place": PLACE,
        "client": "127.16.0.1:5",
        "how": "truncated",
        "begun_at": 100.0,
        "ended_at": 101.0,
        "is_established": True,
        "sent": 10,
        "received": 5,
        "unique_id": "2-7-99",
    }
    return Lost(**{**known, **changes})


def killed(at: float = 100.5, **sums: Any) -> Killed:
    """Incarnation 7 was killed."""
    return Killed(at={7: at}, **{"workers": 1, "accepted": 10, "dialled": 9, **sums})


def account() -> Account:
    """Two good connections of incarnation 7."""
    found = Account(
        begun=2,
        outcomes={"ok": 2},
        established={"short": 2},
        first={"client": 1, "target": 1},
        sent=30,
        received=30,
        target_received=30,
        target_sent=30,
        headers=2,
        incarnations={7: Tally()},
    )
    for second, size in ((100, 10), (110, 20)):
        for what, amount in ((CONNECTIONS, 1), (TO_TARGET, size), (TO_CLIENT, size)):
            found.incarnations[7].add(second, what, amount)
    return found


def status(**totals: Any) -> dict[str, Any]:
    """Counters that agree with `account`."""
    target = {"sent": 30, "received": 30}
    known: dict[str, Any] = {
        "accepted": 2,
        "dialled": 2,
        "ended": 2,
        "received": 30,
        "sent": 30,
        "ends": {"client_closed": 1, "target_closed": 1},
        "routes": {"short": {"total": 2, "targets": {"t": target}}},
    }
    return {"connections": 0, "totals": {**known, **totals}}


def site() -> Site:
    """Two traffic processes."""
    traffic = tuple(
        Ports(
            number=number,
            short=1000 + 20 * number,
            long=1001 + 20 * number,
            changing=1002 + 20 * number,
            limited=1011 + 20 * number,
            sides=(1003 + 20 * number, 1004 + 20 * number, 1005 + 20 * number),
            range_first=1006 + 20 * number,
            tls=1012 + 20 * number,
            target=2000 + number,
            tls_target=2010 + number,
        )
        for number in range(2)
    )
    return Site(
        first="127.0.0.1",
        second="127.0.0.2",
        sources="127.16",
        target_net="127.0.1",
        traffic=traffic,
        taken_port=3000,
        watchdog_s=2.0,
    )


def test_tally_keeps_the_last_seconds_apart() -> None:
    """What is old goes into one sum; nothing is lost, and only whole seconds are sure."""
    tally = Tally()
    for second in range(100):
        tally.add(second, TO_TARGET, 1)
    assert len(tally.seconds) == SECONDS_KEPT
    assert tally.until(None)[TO_TARGET] == 100
    assert tally.until(98.0)[TO_TARGET] == 98
    assert tally.until(98.9)[TO_TARGET] == 98


def test_accounts_add_up() -> None:
    """Two processes' accounts become one, worker by worker."""
    both, other = account(), account()
    both.unshaken, other.unshaken = {7: 1}, {7: 2, 8: 1}
    both.merge(other)
    assert (both.begun, both.outcomes, both.sent) == (4, {"ok": 4}, 60)
    assert both.unshaken == {7: 3, 8: 1}
    assert both.incarnations[7].until(None) == [4, 60, 60]


def test_messages_come_back_whole() -> None:
    """Orders and answers survive their lines, wherever these are cut."""
    order = Gone(places=[PLACE], at=1.5)
    answer = Settled(account=account())
    data = encode_line(order) + b"\n" + encode_line(answer) + b"\n"
    for cut in range(len(data)):
        lines = Lines()
        found = lines.feed(data[:cut]) + lines.feed(data[cut:])
        assert len(found) == 2
    assert (decode_order(found[0]), decode_answer(found[1])) == (order, answer)


def test_held_by_a_killed_worker_is_excused() -> None:
    """It may fail from the kill on, and not before."""
    assert excuse([lost()], killed(), {}).held_by_killed == 1
    early = lost(ended_at=100.4)
    assert excuse([early], killed(), {}).lost == [early]


def test_a_worker_that_was_stopped_and_woken_before_its_kill() -> None:
    """It served others in between: they may fail too, by the second signal and not by the first."""
    deeds = Deeds()
    deeds.note(Signalled(incarnation=7, pid=70, kind="stop", at=100.0))
    stopped = deeds.signalled[7]
    deeds.note(Signalled(incarnation=7, pid=70, kind="kill", at=103.0))
    deeds.forget(stopped)  # too late: another signal has come since
    found = killed_of(deeds.signalled, [], {"killed": {"workers": 1, "accepted": 9, "dialled": 0}})
    assert (found.at, found.again_at) == ({7: 100.0}, {7: 103.0})
    between = lost(unique_id="", begun_at=102.5, ended_at=103.1)
    assert excuse([between], found, {}).not_dialled == 1
    after = lost(unique_id="", begun_at=103.5, ended_at=103.6)
    assert excuse([after], found, {}).lost == [after]


def test_held_by_a_living_worker_is_lost() -> None:
    """The id that its target saw names a worker that nobody killed."""
    other = lost(unique_id="2-8-99")
    assert excuse([other], killed(), {}).lost == [other]


def test_no_target_saw_it() -> None:
    """It is excused only while a worker was killed, and as often as the killed had not dialled."""
    unseen = lost(unique_id="")
    found = excuse([unseen, unseen], killed(), {})
    assert (found.not_dialled, found.lost) == (2, [])
    assert judge_losses(found, killed()) == []
    assert "before a dial" in judge_losses(found, killed(dialled=10))[0]
    late = lost(unique_id="", begun_at=103.0, ended_at=104.0)
    assert excuse([late], killed(), {}).lost == [late]


def test_turned_away_only_after_the_reload_returned() -> None:
    """Whoever dialled before it returned, or after the place was back, had to be served."""
    left = {PLACE.name: [Left(gone_at=100.0, back_begun_at=105.0, back_at=106.0)]}
    away = {"unique_id": "", "is_established": False, "how": "refused"}
    assert excuse([lost(begun_at=100.0, **away)], Killed(), left).turned_away == 1
    for begun_at in (99.9, 106.0):
        assert len(excuse([lost(begun_at=begun_at, **away)], Killed(), left).lost) == 1
    cut = lost(begun_at=101.0, unique_id="")
    assert excuse([cut], Killed(), left).lost == [cut]


def test_losses_and_missing_sums_are_wrong() -> None:
    """One connection lost is too many, and so is a status that counts other kills."""
    assert judge_losses(Excuses(), killed()) == []
    assert "1 connections lost" in judge_losses(Excuses(lost=[lost()]), Killed())[0]
    assert "no data.totals.killed" in judge_losses(Excuses(), Killed(at={7: 1.0}))[0]
    assert "counts 2" in judge_losses(Excuses(), killed(workers=2))[0]


def test_who_was_killed() -> None:
    """Those that we killed, and of those that were stopped the ones that the watchdog ended."""
    kinds: dict[int, Kind] = {1: "kill", 2: "hang", 3: "stop", 4: "hang"}
    signalled = {
        number: Signalled(incarnation=number, pid=number + 50, kind=kind, at=1.0)
        for number, kind in kinds.items()
    }
    ends = [
        Restart(slot=0, pid=52, kind="hung", reason="", time=1.0, incarnation=2),
        Restart(slot=0, pid=54, kind="hung", reason="", time=1.0),
    ]
    found = killed_of(signalled, ends, {"killed": {"workers": 3, "accepted": 5, "dialled": 4}})
    assert sorted(found.at) == [1, 2, 4]
    assert (found.workers, found.undialled) == (3, 1)
    assert judge_restarts(ends, signalled, 0) == []
    crash = Restart(slot=0, pid=99, kind="crashed", reason="status 1", time=1.0, incarnation=9)
    assert "crashed" in judge_restarts([crash], signalled, 0)[0]


def test_books_agree_exactly_without_kills() -> None:
    """Equal counters pass; each that is off by one is told."""
    assert judge_books(account(), status(), Killed(), {}) == []
    for key in ("accepted", "dialled", "ended", "received", "sent"):
        for step in (-1, 1):
            changed = status(**{key: status()["totals"][key] + step})
            assert judge_books(account(), changed, Killed(), {}), (key, step)
    other = status(ends={"client_closed": 2})
    assert "ends" in judge_books(account(), other, Killed(), {})[0]


def test_books_with_a_killed_worker() -> None:
    """What it had carried well before its end must be counted; its last second may be missing."""
    dead = killed(at=111.0, accepted=2, dialled=2)
    assert sure_of(account(), dead) == [1, 10, 10]
    late = {"short": {"total": 1, "targets": {"t": {"sent": 10, "received": 10}}}}
    counted = {"ends": {"client_closed": 1}, "received": 10, "sent": 10, "routes": late}
    assert judge_books(account(), status(**counted), dead, {}) == []
    assert judge_books(account(), status(**{**counted, "received": 9}), dead, {})
    assert judge_books(account(), status(ends={"client_reset": 2}), dead, {})


def test_a_session_that_is_not_resumed_is_wrong() -> None:
    """A single one: whoever takes the connection has to know it."""
    found = account()
    found.not_resumed = 1
    assert judge_books(found, status(), Killed(), {}) == ["1 TLS sessions were not resumed"]


def test_a_header_behind_which_no_tls_came_is_a_dial_only_of_the_killed() -> None:
    """A worker that was killed then had not counted its dial; one that lives must have."""
    found = account()
    found.headers, found.unshaken = 4, {7: 1}
    dead = killed(at=111.0, accepted=4, dialled=2)
    late = {"short": {"total": 1, "targets": {"t": {"sent": 10, "received": 10}}}}
    totals = {"ends": {"client_closed": 1}, "received": 10, "sent": 10, "routes": late}
    assert judge_books(found, status(**totals), dead, {}) == []
    found.unshaken = {8: 1}
    assert judge_books(found, status(**totals), dead, {}) == ["dialled: 2, not 3 to 4 (-2)"]
    found.headers, found.unshaken = 3, {7: 1}
    assert judge_books(found, status(), Killed(), {}) == ["dialled: 2, not 3 (-1)"]


@pytest.mark.parametrize(("route", "is_excused"), [("short", True), ("long", False)])
def test_a_guest_of_a_killed_worker_may_look_blocked(route: str, is_excused: bool) -> None:
    """On the route that the guest had dialled, and as often as that may have been."""
    dead = killed(at=111.0, accepted=2, dialled=2)
    target = {"sent": 30, "received": 30}
    for total, is_right in ((2, True), (3, is_excused), (4, False)):
        totals = status(routes={"short": {"total": total, "targets": {"t": target}}})
        assert (judge_books(account(), totals, dead, {route: 1}) == []) is is_right


def test_places_that_left_must_refuse() -> None:
    """Four seconds after; unless a reload is about to bring them back."""
    left = {PLACE.name: [Left(gone_at=100.0, back_begun_at=110.0)]}

    def probe(begun_at: float, how: str, ended_at: float = 105.0) -> Probe:
        return Probe(place=PLACE, begun_at=begun_at, ended_at=ended_at, how=how)

    assert judge_probes([probe(104.0, "refused"), probe(101.0, "ok")], left) == []
    assert "timeout 4.00 s" in judge_probes([probe(104.0, "timeout")], left)[0]
    assert judge_probes([probe(104.0, "ok", ended_at=111.0)], left) == []


def test_counters_leave_gauges_out() -> None:
    """Only what may never go back is compared."""
    data = {"a": {"active": 5, "total": 3, "connect": {"buckets": [1, 2], "total": 0.5}}}
    found = dict(counters("", data))
    assert found == {
        "a.total": 3,
        "a.connect.buckets.0": 1,
        "a.connect.buckets.1": 2,
        "a.connect.total": 0.5,
    }


def test_shapes_are_seeded_and_consistent() -> None:
    """The same seed gives the same configs, and every place that is dialled has its route."""
    where = site()
    for seed in range(5):
        one, other = Random(seed), Random(seed)
        shape = again = first_shape(where, 3)
        for _ in range(50):
            shape, again = next_shape(shape, where, one), next_shape(again, where, other)
            assert shape == again
            config = document(shape, where)
            routes = {route["name"]: route for route in config["routes"]}
            for place in [*places(shape, where), *long_places(where)]:
                first, _, last = str(routes[place.route]["match"]["ports"][0]).partition("-")
                assert int(first) <= place.port <= int(last or first)
                named = [place.server_name] if place.server_name else []
                assert routes[place.route]["match"].get("domains", []) == named
                is_ended = "tls" in routes[place.route]["action"]
                assert is_ended == (bool(named) and not place.is_passed)
            stable = {place.name for place in places(first_shape(where, 3), where)}
            assert stable <= {place.name for place in places(shape, where)}


def test_changes_that_keep_places() -> None:
    """A burst of HUPs takes nothing away."""
    where, random = site(), Random(1)
    shape = next_shape(first_shape(where, 3), where, random)
    kept = next_shape(shape, where, random, keeps_places=True)
    assert places(kept, where) == places(shape, where)
    assert kept != shape
    assert len(of_traffic(places(shape, where), 1)) < len(places(shape, where))
    assert max(shape.ranges) <= RANGE_PORTS


def test_broken_files_differ_from_good_ones() -> None:
    """Every kind of broken file comes up, and half a file is one of them."""
    where, random = site(), Random(1)
    texts = {broken(first_shape(where, 3), where, random) for _ in range(40)}
    halves = 0
    for text in texts:
        try:
            json.loads(text)
        except ValueError:
            halves += 1
    assert 0 < halves < len(texts)


def test_phases_share_the_time() -> None:
    """A part without kills comes first, both loads get theirs, and the sum is what was asked."""
    found = phases(parse(["--seconds", "60"]))
    assert sum(phase.seconds for phase in found) == pytest.approx(60)
    assert {phase.load for phase in found if phase.has_kills} == {"saturating", "steady"}
    assert not found[1].has_kills
    calm = phases(parse(["--seconds", "10", "--kills-per-minute", "0", "--load", "steady"]))
    assert not any(phase.has_kills for phase in calm)
    assert {phase.load for phase in calm} == {"steady"}
