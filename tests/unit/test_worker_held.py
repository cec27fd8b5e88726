"""Listening descriptors that come before, between and after the messages that they belong to."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from worker.held import HeldSockets, Key


class Site:
    """A worker's descriptors; ``in_use`` are the listeners that it has made of some."""

    def __init__(self) -> None:
        self.in_use: set[int] = set()
        self.held = HeldSockets(self.in_use.__contains__)

    def lend(self, key: Key, generation: int) -> int:
        """A descriptor comes; returns it."""
        with socket.socket() as one:
            fd = one.detach()
        self.held.add(key, fd, generation)
        return fd


def is_open(fd: int) -> bool:
    """Whether there is such a descriptor."""
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


@pytest.fixture
def site() -> Iterator[Site]:
    """Closed at the end."""
    one = Site()
    yield one
    one.held.close()


def test_abort_closes_what_was_lent_for_it_and_no_more(site: Site) -> None:
    """What has come for the next generation meanwhile stays, and what a listener was made of."""
    site.in_use.add(3)
    fds = [site.lend((1, 0), 5), site.lend((2, 0), 6)]
    site.held.abort(5)
    assert [is_open(fd) for fd in fds] == [False, True]
    assert (1, 0) not in site.held
    assert (2, 0) in site.held


def test_a_socket_that_comes_again_is_of_the_later_generation(site: Site) -> None:
    """Its first copy is closed, and the abort of the generation that it came for spares it."""
    first, again = site.lend((1, 0), 5), site.lend((1, 0), 6)
    assert not is_open(first) or first == again
    site.held.abort(5)
    assert is_open(again)
    assert site.held[1, 0].fileno() == again


def test_what_comes_after_its_abort_is_closed(site: Site) -> None:
    """A descriptor that was still under way is not kept for a generation that will not be."""
    site.held.abort(5)
    assert not is_open(site.lend((1, 0), 5))
    assert is_open(site.lend((1, 0), 6))


def test_a_lower_number_may_follow_a_higher_one_that_was_aborted(site: Site) -> None:
    """A new worker that took part in a refused reload starts on what is committed."""
    site.held.abort(6)
    assert is_open(site.lend((1, 0), 5))


def test_commit_closes_what_was_left_over(site: Site) -> None:
    """Lent for an older generation and never used; what is used or lent for a later one stays."""
    used, left_over, later = (site.lend((id_, 0), 4 + id_) for id_ in (1, 0, 3))
    site.in_use.add(1)
    site.held.committed(6)
    assert [is_open(fd) for fd in (used, left_over, later)] == [True, False, True]
    assert not is_open(site.lend((0, 0), 5))


def test_another_copy_of_what_serves_is_closed(site: Site) -> None:
    """The socket that is polled stays the one that it was."""
    serving = site.lend((1, 0), 5)
    site.in_use.add(1)
    assert not is_open(site.lend((1, 0), 6))
    assert site.held[1, 0].fileno() == serving


def test_retire_closes_every_socket_of_a_listener(site: Site) -> None:
    """Those of others stay."""
    fds = [site.lend((1, 0), 5), site.lend((1, 1), 5), site.lend((2, 0), 5)]
    site.held.retire(1)
    assert [is_open(fd) for fd in fds] == [False, False, True]
