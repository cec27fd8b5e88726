"""Passwords: checked on threads, few at once, remembered for a while."""

from __future__ import annotations

import asyncio
import signal
import threading
from base64 import b64encode
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import bcrypt
import pytest
import uvloop

from shared.plan import AuthPlan
from supervisor.users_file import auth_plan
from tests.helpers.waiting import wait_until
from worker.basic_auth import (
    BUSY,
    MAX_CHECKS,
    MAX_REMEMBERED,
    MAX_WAITING,
    PENDING,
    REFUSED,
    REMEMBERED_S,
    BasicAuth,
    Verdict,
)

T = TypeVar("T")

DEADLINE_S = 20.0
LONG = "x" * 80


def hashed(password: str, cost: int = 4) -> str:
    """A hash as the library makes it."""
    return bcrypt.hashpw(password.encode()[:72], bcrypt.gensalt(cost)).decode()


STAFF = auth_plan(
    "staff",
    [("alice", hashed("secret")), ("bob", hashed("grün")), ("carol", hashed(LONG))],
)
# The same people with other passwords: what a reload brings.
CHANGED = auth_plan("staff", [("alice", hashed("new")), ("bob", hashed("grün"))])


def field(user: str, password: str) -> bytes:
    """What a client sends."""
    return b"Basic " + b64encode(f"{user}:{password}".encode())


class Clock:
    """Time that passes when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Door:
    """A worker's checks on a loop of their own, and what came of them, in order."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.auth = BasicAuth(asyncio.get_running_loop(), self.clock)
        self.told: list[tuple[str | None, bool]] = []
        self.threads: set[int] = set()
        self._news = asyncio.Event()

    def ask(self, user: str, password: str, plan: AuthPlan = STAFF) -> Verdict:
        """What is said at once."""
        return self.auth.check(plan, field(user, password), self.tell)

    def tell(self, user: str | None, is_busy: bool) -> None:
        """Called when a check is done."""
        self.told.append((user, is_busy))
        self.threads.add(threading.get_ident())
        self._news.set()

    async def outcome(
        self, user: str, password: str, plan: AuthPlan = STAFF
    ) -> tuple[str | None, bool] | Verdict:
        """What is said in the end: at once, or by the callback."""
        seen = len(self.told)
        verdict = self.ask(user, password, plan)
        if verdict != PENDING:
            return verdict
        assert len(self.told) == seen, "called before check returned"
        await self.until(seen + 1)
        return self.told[-1]

    async def until(self, count: int) -> None:
        """Wait for so many callbacks in all."""
        async with asyncio.timeout(DEADLINE_S):
            while len(self.told) < count:
                self._news.clear()
                await self._news.wait()


def run(play: Coroutine[Any, Any, T]) -> T:
    """On a loop as a worker has it."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(play)


def on_loop(scene: Callable[[Door], Awaitable[None]]) -> None:
    """Play it, and see that threads end and nothing was reported to the loop."""
    reports: list[Any] = []
    before = set(threading.enumerate())

    async def play() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
        door = Door()
        try:
            await scene(door)
        finally:
            door.auth.close()

    run(play())
    wait_until(lambda: set(threading.enumerate()) <= before, "the end of the threads")
    assert reports == []


def granted(user: str) -> Verdict:
    """What is said of someone who is remembered."""
    return Verdict(user)


def test_right_and_wrong_passwords() -> None:
    """Each is told on the loop's thread; nobody without the password gets in."""

    async def scene(door: Door) -> None:
        assert await door.outcome("alice", "secret") == ("alice", False)
        assert await door.outcome("bob", "grün") == ("bob", False)
        for user, password in (
            ("alice", "Secret"),
            ("alice", ""),
            ("alice", "grün"),
            ("Alice", "secret"),
            ("bob", "gru\u0308n"),
            ("eve", "secret"),
            ("eve", ""),
        ):
            assert await door.outcome(user, password) == (None, False), user
        assert door.threads == {threading.get_ident()}

    on_loop(scene)


def test_other_forms_are_refused_at_once() -> None:
    """No field, another scheme, a broken one: no check is spent on them."""

    async def scene(door: Door) -> None:
        for value in (b"", b"Bearer x", b"Basic x", b"Basic " + b64encode(b"alice")):
            assert door.auth.check(STAFF, value, door.tell) is REFUSED
        assert door.told == []

    on_loop(scene)


def test_long_passwords() -> None:
    """bcrypt reads 72 bytes, so programs that hash with it take no more, and neither do we."""

    async def scene(door: Door) -> None:
        assert await door.outcome("carol", LONG) == ("carol", False)
        assert await door.outcome("carol", LONG[:72]) == ("carol", False)
        assert await door.outcome("carol", LONG[:71]) == (None, False)
        assert await door.outcome("alice", "secret" + LONG) == (None, False)

    on_loop(scene)


def test_what_was_right_is_remembered_for_a_minute() -> None:
    """From the check on, not from the last use; failures never are."""

    async def scene(door: Door) -> None:
        await door.outcome("alice", "secret")
        for _ in range(3):
            assert door.ask("alice", "secret") == granted("alice")
        assert door.auth.check(STAFF, b"basic  " + field("alice", "secret")[6:], door.tell) == (
            granted("alice")
        )
        door.clock.now += REMEMBERED_S - 1
        assert door.ask("alice", "secret") == granted("alice")
        door.clock.now += 1
        assert await door.outcome("alice", "secret") == ("alice", False)
        assert door.ask("alice", "secret") == granted("alice")
        for _ in range(2):
            assert await door.outcome("alice", "wrong") == (None, False)

    on_loop(scene)


def test_another_users_file_is_another_memory() -> None:
    """After a reload nobody comes in by what the old file said, and the old plan still knows."""

    async def scene(door: Door) -> None:
        await door.outcome("alice", "secret")
        await door.outcome("bob", "grün")
        assert await door.outcome("alice", "secret", CHANGED) == (None, False)
        assert await door.outcome("alice", "new", CHANGED) == ("alice", False)
        assert await door.outcome("bob", "grün", CHANGED) == ("bob", False)
        assert await door.outcome("bob", "grün", auth_plan("", [])) == (None, False)
        assert door.ask("alice", "secret") == granted("alice")
        same_users = auth_plan("another realm", STAFF.users, allow_plain=True)
        assert door.ask("alice", "secret", same_users) == granted("alice")

    on_loop(scene)


def test_no_more_checks_at_once_than_two() -> None:
    """Further ones are told to come again, whoever they are; then there is room again."""

    async def scene(door: Door) -> None:
        for number in range(MAX_CHECKS):
            assert door.ask("eve", f"guess {number}") is PENDING
        for number in range(5):
            assert door.ask("eve", f"other {number}") is BUSY
        assert door.ask("alice", "secret") is BUSY
        await door.until(MAX_CHECKS)
        assert door.told == [(None, False)] * MAX_CHECKS
        assert await door.outcome("alice", "secret") == ("alice", False)
        # Who is remembered needs no check.
        for number in range(MAX_CHECKS):
            assert door.ask("eve", f"more {number}") is PENDING
        assert door.ask("alice", "secret") == granted("alice")
        await door.until(2 * MAX_CHECKS + 1)

    on_loop(scene)


def test_equal_credentials_share_a_check() -> None:
    """A page that loads twenty files at once is no flood; all are told, up to a limit."""

    async def scene(door: Door) -> None:
        for password in ("secret", "wrong"):
            seen = len(door.told)
            verdicts = [door.ask("alice", password) for _ in range(MAX_WAITING)]
            assert verdicts == [PENDING] * MAX_WAITING
            assert door.ask("alice", password) is BUSY
            assert door.ask("alice", password, CHANGED) is PENDING  # another check
            await door.until(seen + MAX_WAITING + 1)
            user = "alice" if password == "secret" else None
            assert sorted(map(str, door.told[seen:])) == sorted(
                [str((user, False))] * MAX_WAITING + [str((None, False))]
            )

    on_loop(scene)


def test_memory_is_bounded() -> None:
    """The oldest goes first; what is over goes by itself."""
    plan = auth_plan("", [(f"user{n}", STAFF.users[0][1]) for n in range(MAX_REMEMBERED + 2)])

    async def scene(door: Door) -> None:
        last = MAX_REMEMBERED + 1
        for number in range(last):
            if number == MAX_REMEMBERED:
                assert door.ask("user0", "secret", plan) == granted("user0")
            assert await door.outcome(f"user{number}", "secret", plan) == (f"user{number}", False)
        assert door.ask("user1", "secret", plan) == granted("user1")
        assert await door.outcome("user0", "secret", plan) == ("user0", False)
        assert await door.outcome("user1", "secret", plan) == ("user1", False)
        assert door.ask(f"user{last - 1}", "secret", plan) == granted(f"user{last - 1}")
        door.clock.now += REMEMBERED_S
        await door.outcome(f"user{last}", "secret", plan)
        assert len(door.auth._remembered) == 1

    on_loop(scene)


def test_nothing_secret_is_kept() -> None:
    """What is remembered shows no password, and another worker would remember it otherwise."""

    async def scene(door: Door) -> None:
        other = Door()
        try:
            await door.outcome("bob", "grün")
            await other.outcome("bob", "grün")
            assert "bob" in repr(vars(door.auth))
            assert "grün" not in repr(vars(door.auth))
            assert door.auth._remembered.keys().isdisjoint(other.auth._remembered)
        finally:
            other.auth.close()

    on_loop(scene)


def test_the_loop_turns_while_a_check_runs() -> None:
    """The check holds neither the loop's thread nor the interpreter's lock."""
    slow = auth_plan("", [("alice", hashed("secret", 11))])

    async def scene(door: Door) -> None:
        turns = 0
        assert door.ask("alice", "secret", slow) is PENDING
        async with asyncio.timeout(DEADLINE_S):
            while not door.told:
                turns += 1
                await asyncio.sleep(0)
        assert door.told == [("alice", False)]
        assert turns > 20  # with the lock held it would be a handful

    on_loop(scene)


def test_threads_leave_signals_to_the_loop() -> None:
    """And give way to traffic where CPUs are short."""

    async def scene(door: Door) -> None:
        await door.outcome("alice", "secret")
        (thread,) = (one for one in threading.enumerate() if one.name.startswith("basic-auth"))
        blocked, niceness = thread_facts(thread)
        assert {signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD} <= blocked
        assert niceness > thread_facts(threading.main_thread())[1] or niceness == 19

    on_loop(scene)


def thread_facts(thread: threading.Thread) -> tuple[set[int], int]:
    """Blocked signals, niceness (proc(5))."""
    task = Path(f"/proc/self/task/{thread.native_id}")
    (blocked,) = (
        int(line.split()[1], 16)
        for line in (task / "status").read_text().splitlines()
        if line.startswith("SigBlk")
    )
    niceness = (task / "stat").read_text().rpartition(")")[2].split()[16]
    return {number for number in range(1, 65) if blocked >> number - 1 & 1}, int(niceness)


def test_a_failed_check_is_no_answer() -> None:
    """A hash that the library cannot read (no file with one is accepted) is told as such."""
    broken = AuthPlan(realm="", users=(("alice", "$2b$04$short"),), digest="00")
    reports: list[dict[str, Any]] = []

    async def scene(door: Door) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
        assert await door.outcome("alice", "secret", broken) == (None, True)
        assert await door.outcome("alice", "secret") == ("alice", False)

    on_loop(scene)
    assert reports == [{"message": "a password could not be checked: ValueError"}]


def test_one_bad_callback_keeps_the_others() -> None:
    """What it raises goes to the loop's handler; everyone else is told."""
    reports: list[dict[str, Any]] = []

    def fail(user: str | None, is_busy: bool) -> None:
        raise KeyError("gone")

    async def scene(door: Door) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
        assert door.auth.check(STAFF, field("alice", "secret"), fail) is PENDING
        assert await door.outcome("alice", "secret") == ("alice", False)

    on_loop(scene)
    assert [type(report["exception"]) for report in reports] == [KeyError]


def test_close_waits_for_nobody() -> None:
    """Nobody is told any more, nothing is begun any more, and the threads end by themselves."""
    slow = auth_plan("", [("alice", hashed("secret", 10))])
    doors: list[Door] = []

    async def scene(door: Door) -> None:
        doors.append(door)
        assert door.ask("alice", "secret", slow) is PENDING
        assert door.ask("eve", "secret", slow) is PENDING
        door.auth.close()
        assert door.ask("alice", "secret", slow) is BUSY

    on_loop(scene)  # closes it once more
    assert doors[0].told == []


def test_a_check_that_outlives_the_loop(caplog: pytest.LogCaptureFixture) -> None:
    """The worker's loop is over before the check is: the thread ends without an error."""
    slow = auth_plan("", [("alice", hashed("secret", 11))])
    told: list[object] = []

    async def begin() -> BasicAuth:
        auth = BasicAuth(asyncio.get_running_loop())
        verdict = auth.check(slow, field("alice", "secret"), lambda *said: told.append(said))
        assert verdict is PENDING
        return auth

    auth = run(begin())
    auth._pool.shutdown(wait=True)
    auth.close()
    assert told == []
    assert caplog.records == []  # what a callback on the thread raises is logged
