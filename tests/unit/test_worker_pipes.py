"""The pool of pipes: its cap, its spares, and that no byte ever moves to another connection."""

from __future__ import annotations

import os
import resource

from worker.pipes import MOST_SPARE, PipePool


def open_descriptors() -> set[str]:
    """Numbers of the open descriptors of this process that still exist."""
    return {fd for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")}


def test_the_cap_is_kept() -> None:
    """Beyond the cap there is None; a pipe that came back is lent again."""
    pool = PipePool(most=2)
    first, second = pool.take(), pool.take()
    assert first is not None
    assert second is not None
    assert pool.take() is None
    assert pool.lent == 2
    pool.give_back(first)
    assert pool.take() is first
    pool.give_back(first)
    pool.give_back(second)
    assert pool.lent == 0
    pool.close()


def test_a_pipe_that_holds_bytes_is_closed() -> None:
    """Its bytes are never read by the next one."""
    pool = PipePool()
    pipe = pool.take()
    assert pipe is not None
    pipe.held = os.write(pipe.write_fd, b"left over")
    pool.give_back(pipe)
    after = pool.take()
    assert after is not None
    assert after is not pipe
    assert after.held == 0
    pool.give_back(after)
    pool.close()


def test_spare_pipes_are_few_and_all_descriptors_come_back() -> None:
    """More than MOST_SPARE are closed at once, the rest with the pool."""
    before = open_descriptors()
    pool = PipePool(most=MOST_SPARE + 10)
    lent = [pool.take() for _ in range(MOST_SPARE + 10)]
    for pipe in lent:
        assert pipe is not None
        pool.give_back(pipe)
    assert len(open_descriptors() - before) == 2 * MOST_SPARE
    pool.close()
    assert open_descriptors() == before


def test_without_descriptors_there_is_no_pipe_and_no_error() -> None:
    """At the descriptor limit a direction copies instead; nothing counts as lent."""
    pool = PipePool()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        assert pool.take() is None
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert pool.lent == 0
    pipe = pool.take()
    assert pipe is not None
    pool.give_back(pipe)
    pool.close()
