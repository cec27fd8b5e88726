"""Passwords of Basic authentication, checked where they hold up nobody else.

A bcrypt check is meant to be slow: 60 ms at cost 10, a quarter of a second at 12. It runs on a
thread, without the interpreter's lock; two at once are all that a worker does, so that a flood of
wrong passwords cannot take its CPUs, and whoever comes beyond that is to come again (503). What
was right is remembered for a minute under a digest that only this worker can make: neither
passwords nor their hashes can be read out of it.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from hashlib import blake2b
from typing import Final

import bcrypt
from msgspec import Struct

from shared.http.basic import parse_basic
from shared.plan import AuthPlan

MAX_CHECKS: Final = 2  # at once in a worker
MAX_WAITING: Final = 100  # requests for the outcome of one check; a page with all that it loads
REMEMBERED_S: Final = 60.0  # from the check
MAX_REMEMBERED: Final = 1000  # the oldest goes; about 300 KiB
# More than this bcrypt does not see: hashes of longer passwords, by whatever program, are of it.
PASSWORD_BYTES: Final = 72

_NICENESS: Final = 5  # of the threads: traffic goes first where CPUs are short
_COST_AT: Final = slice(4, 6)  # in a hash, $2b$12$...
_NO_USERS: Final = ("", "$2b$10$")  # the cost where there is no user to take it from
_DECOY: Final = "." * 22 + "." * 31  # a salt and a hash that no password is known for

Done = Callable[[str | None, bool], None]


class Verdict(Struct, frozen=True):
    """What can be said of credentials at once. All of it false: refused (401).

    ``user``: who it is, "" if that is not known.
    """

    user: str = ""
    is_busy: bool = False  # too many checks already: 503
    is_pending: bool = False  # the callback will tell


REFUSED: Final = Verdict()
BUSY: Final = Verdict(is_busy=True)
PENDING: Final = Verdict(is_pending=True)


class BasicAuth:
    """One for each worker; all but the checks themselves happens on the loop's thread.

    ``clock``: seconds, monotonic; the loop's own if None.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float] | None = None
    ) -> None:
        self._loop = loop
        self._clock = clock or loop.time
        self._secret = os.urandom(32)
        self._remembered: dict[bytes, tuple[float, Verdict]] = {}  # in the order of their end
        self._running: dict[bytes, list[Done]] = {}
        self._is_closed = False
        # It starts a thread when it is first asked, and none where no route asks for a password.
        self._pool = ThreadPoolExecutor(MAX_CHECKS, "basic-auth", initializer=_begin_thread)

    def check(self, plan: AuthPlan, value: bytes, done: Done) -> Verdict:
        """Who sends this value of Authorization (b"" where there is no such field).

        ``done(user, is_busy)`` is called for PENDING alone, once, on the loop's thread and never
        before this returns: with the user's name; with None where name or password is wrong (401);
        with None and True where it could not be found out (503). The client may have gone by then,
        so it must be harmless to call; after `close` it is not called any more. Requests with
        equal credentials share one check.
        """
        pair = parse_basic(value)
        if pair is None:
            return REFUSED
        user, password = pair
        key = self._key(plan.digest, user, password)
        known = self._remembered.get(key)
        if known is not None and self._clock() < known[0]:
            return known[1]
        waiting = self._running.get(key)
        if waiting is not None:
            if len(waiting) >= MAX_WAITING:
                return BUSY
            waiting.append(done)
            return PENDING
        if len(self._running) >= MAX_CHECKS or self._is_closed:
            return BUSY
        self._running[key] = [done]
        future = self._pool.submit(is_right, plan, user, password)
        future.add_done_callback(partial(self._on_thread_done, key, user))
        return PENDING

    def close(self) -> None:
        """Begin no more checks, forget who waits for one, wait for none."""
        self._is_closed = True
        self._running.clear()
        self._remembered.clear()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _key(self, digest: str, user: str, password: str) -> bytes:
        # Neither part has a NUL: a digest is hexadecimal, `parse_basic` takes no control bytes.
        text = f"{digest}\0{user}\0{password}"
        return blake2b(text.encode(), key=self._secret, digest_size=32).digest()

    def _on_thread_done(self, key: bytes, user: str, future: Future[bool]) -> None:
        """On the thread of the check."""
        try:
            self._loop.call_soon_threadsafe(self._on_checked, key, user, future)
        except RuntimeError:
            if not self._loop.is_closed():  # the worker ends: nobody is left to be told
                raise

    def _on_checked(self, key: bytes, user: str, future: Future[bool]) -> None:
        waiting = self._running.pop(key, None)
        if waiting is None:
            return  # closed meanwhile
        error = future.exception()
        if error is not None:
            # Its text stays out of the log: the library's own, it might show what it was given.
            message = f"a password could not be checked: {type(error).__name__}"
            self._loop.call_exception_handler({"message": message})
        is_granted = error is None and future.result()
        if is_granted:
            self._remember(key, user)
        for done in waiting:
            # Each in a step of its own: where one fails, the others are told nonetheless.
            self._loop.call_soon(done, user if is_granted else None, error is not None)

    def _remember(self, key: bytes, user: str) -> None:
        now = self._clock()
        known = self._remembered
        while known:
            oldest = next(iter(known))
            if len(known) < MAX_REMEMBERED and now < known[oldest][0]:
                break
            del known[oldest]
        known[key] = now + REMEMBERED_S, Verdict(user)


def is_right(plan: AuthPlan, user: str, password: str) -> bool:
    """Whether this is the user's password. Blocks for as long as one bcrypt check takes.

    An unknown user takes as long as a known one. ValueError for a hash that is none.
    """
    false = decoy(plan.users, plan.digest, user)
    hashed = dict(plan.users).get(user)
    is_equal = bcrypt.checkpw(password.encode()[:PASSWORD_BYTES], (hashed or false).encode())
    return is_equal and hashed is not None


def decoy(users: Sequence[tuple[str, str]], digest: str, user: str) -> str:
    """A hash to check an unknown user's password against, for the time that it takes.

    Its cost is that of one of the users: always the same one for a name, so that unknown names
    have costs like known ones, and keep them.
    """
    name = blake2b(f"{digest}\0{user}".encode(), digest_size=8).digest()
    real = users[int.from_bytes(name, "big") % len(users)] if users else _NO_USERS
    return f"$2b${real[1][_COST_AT]}${_DECOY}"


def _begin_thread() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # they are the loop's
    os.nice(_NICENESS)  # of this thread alone: Linux has it by thread (nice(2), setpriority(2))
