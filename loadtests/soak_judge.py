"""More of the verdict over a soak: guests, long connections, the full stop. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TypeVar

from msgspec import Struct

from loadtests.soak_wire import Account, Guest, Shown, parse_id

CLOCK_S: Final = 0.25  # between the instant that is noted for a signal and its effect
AWAKE_S: Final = 0.5  # for a worker that was stopped, to serve by the new generation
STOPPED: Final = re.compile(r"stopped: (\d+) connections? drained, (\d+) cut at the deadline")
_SHOWN: Final = 5


class Listed(Struct, kw_only=True):
    """Whom a config refuses, from the write of its list file on; ``done_at``: reload returned."""

    hosts: frozenset[str]
    begun_at: float
    done_at: float = float("inf")


class Served(Struct, kw_only=True):
    """The certificate that a config has, from the write of its file on; as Listed."""

    version: int
    begun_at: float
    done_at: float = float("inf")


_Since = TypeVar("_Since", Listed, Served)


def cut_guests(guests: Iterable[Guest], kills: Iterable[float]) -> Counter[str]:
    """By route, those who look blocked and may have been held by a worker that was killed."""
    instants = list(kills)
    return Counter(
        guest.route for guest in guests if guest.how == "blocked" and _meets_a_kill(guest, instants)
    )


def _meets_a_kill(guest: Guest, kills: Sequence[float]) -> bool:
    return any(guest.begun_at - CLOCK_S <= at <= guest.ended_at + CLOCK_S for at in kills)


def judge_guests(
    guests: Iterable[Guest],
    lists: Sequence[Listed],
    stops: Iterable[tuple[float, float]],
    kills: Iterable[float] = (),
) -> list[str]:
    """Guests that were served although blocked, or blocked although not.

    While a reload is under way either may be; so it may be for a worker that was stopped
    (``stops``, from and until) and has not heard of a reload. One that no target saw looks blocked
    as well when its worker was killed (``kills``).
    """
    instants = list(kills)
    windows = list(stops)
    wrong = []
    for guest in guests:
        since = _since(guest, windows)
        due = {guest.host in one.hosts for one in _in_force(lists, since, guest.ended_at)}
        if guest.how == "blocked" and _meets_a_kill(guest, instants):
            continue
        if (guest.how == "blocked") not in due:
            wrong.append(f"guest {guest.host} was {guest.how} from {guest.begun_at:.3f} on")
    if len(wrong) > _SHOWN:
        wrong = [*wrong[:_SHOWN], f"{len(wrong) - _SHOWN} more guests like these"]
    return wrong


def judge_shown(
    shown: Iterable[Shown], served: Sequence[Served], stops: Iterable[tuple[float, float]]
) -> list[str]:
    """Clients that were shown a certificate that no config had then; as `judge_guests`."""
    windows = list(stops)
    wrong = []
    for one in shown:
        due = {version.version for version in _in_force(served, _since(one, windows), one.ended_at)}
        if one.version not in due:
            wrong.append(
                f"certificate {one.version} was shown from {one.begun_at:.3f} to"
                f" {one.ended_at:.3f}, not one of {sorted(due)}"
            )
    if len(wrong) > _SHOWN:
        wrong = [*wrong[:_SHOWN], f"{len(wrong) - _SHOWN} more certificates like these"]
    return wrong


def _since(seen: Guest | Shown, stops: Sequence[tuple[float, float]]) -> float:
    """From when on a config may still have been in force for this client's worker."""
    since = seen.begun_at
    for begun, ended in stops:
        if begun <= seen.ended_at and seen.begun_at <= ended + AWAKE_S:
            since = min(since, begun)
    return since


def _in_force(lists: Sequence[_Since], since: float, until: float) -> list[_Since]:
    found = []
    for one, following in zip(lists, [*lists[1:], None], strict=True):
        is_over = following is not None and following.done_at < since
        if one.begun_at <= until and not is_over:
            found.append(one)
    return found


def by_worker(account: Account) -> dict[int, int]:
    """Long connections that go on, by the incarnation that holds them."""
    found: dict[int, int] = {}
    for unique_id in account.open_ids:
        if (known := parse_id(unique_id)) is not None:
            found[known[0]] = found.get(known[0], 0) + 1
    return found


def judge_spread(account: Account, ages_s: Mapping[int, float], old_s: float) -> list[str]:
    """Workers that are at least ``old_s`` old and hold none of the long connections."""
    held = by_worker(account)
    empty = [one for one, age_s in ages_s.items() if age_s >= old_s and one not in held]
    return [f"worker {one} holds none of {account.open} long connections" for one in empty]


def judge_stop(account: Account, status: int, said: str) -> list[str]:
    """The numbers that the full stop printed, and ours."""
    wrong = [] if status == 0 else [f"proxyctl ended with {status}"]
    found = STOPPED.fullmatch(said)
    if found is None:
        return [*wrong, f"the stop printed {said!r}"]
    drained, cut = int(found[1]), int(found[2])
    were_cut = account.outcomes.get("cut", 0)
    if cut != were_cut:
        wrong.append(f"the stop counts {cut} cut, {were_cut} were")
    if not account.late_long_ends <= drained <= account.ended_after_stop:
        wrong.append(
            f"the stop counts {drained} drained, not {account.late_long_ends} to"
            f" {account.ended_after_stop}"
        )
    return wrong
