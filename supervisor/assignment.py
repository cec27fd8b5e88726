"""Which worker polls which listener (design section 2).

A listener has one socket per slot; the socket's index is the slot's number. Polling one from two
workers for a while is harmless, polling it from none is the fault: so a change first gives, and
takes away only once the new owner has said that it polls.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

Share = dict[int, frozenset[int]]  # worker's key: socket indexes


def spread(slots: int, owners: Mapping[int, int]) -> Share:
    """Share the socket indexes 0..slots-1 among workers.

    ``owners`` maps a worker's key to its slot; at most one worker per slot. A worker has its own
    slot's index; indexes without one go, each, to the worker with the fewest so far.
    """
    share: dict[int, set[int]] = {key: {slot} for key, slot in owners.items() if slot < slots}
    for key in owners:
        share.setdefault(key, set())
    if share:
        for index in sorted(set(range(slots)) - set(owners.values())):
            share[min(share, key=lambda key: (len(share[key]), key))].add(index)
    return {key: frozenset(indexes) for key, indexes in share.items()}


def union(slots: int, current: Mapping[int, Iterable[int]], target: Share) -> Share:
    """What each worker of ``target`` polls while a change is under way: old and new.

    A socket that nobody of them polls so far is polled by all until the change is through: should
    its new owner hang as well, it does not wait for that to be found.
    """
    polled = {index for key in target for index in current.get(key, ())}
    lost = frozenset(range(slots)) - polled
    return {
        key: indexes | lost | frozenset(current.get(key, ())) for key, indexes in target.items()
    }


def steered(slots: int, owners: Mapping[int, int]) -> frozenset[int]:
    """The socket indexes that new connections are sent to, for even shares; empty: to all.

    ``owners`` as for `spread`. Each worker has one socket of its own, so these are as many as
    there are workers.
    """
    own = frozenset(slot for slot in owners.values() if slot < slots)
    return own if len(own) < slots else frozenset()
