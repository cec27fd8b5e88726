"""Memory of thousands of routes in huge pages."""

from __future__ import annotations

import mmap
from pathlib import Path

from shared.messages import Prepare
from shared.plan import Endpoints, ListenerPlan
from tests.helpers.routes import LISTENER, route
from worker.access import Access
from worker.held import HeldSockets
from worker.huge_pages import HUGE, MOST_REFUSED, HugePages
from worker.limits import private_limits
from worker.preparing import MANY_ROUTES, Preparing
from worker.tls_contexts import Contexts

LINE = "{:012x}-{:012x} {} 00000000 00:00 0 {}\n"


def test_memory_is_there_as_before() -> None:
    """What is mapped later is collapsed where the kernel can, and keeps its bytes."""
    pages = HugePages()
    memory = mmap.mmap(-1, 4 * HUGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.write(bytes(range(256)) * (4 * HUGE // 256))
    assert len(list(pages.collapse())) > 0
    assert memory[:] == bytes(range(256)) * (4 * HUGE // 256)


def test_what_was_there_before_is_left_alone(tmp_path: Path) -> None:
    """So are files, other people's memory, and what is no whole page; four refusals end it."""
    maps, base = tmp_path / "maps", 1 << 46  # nothing is mapped there: each is refused
    maps.write_text(LINE.format(base, base + 8 * HUGE, "rw-p", ""))
    pages = HugePages(maps)
    assert list(pages.collapse()) == []
    more = base + 16 * HUGE
    with maps.open("a") as file:
        file.write(LINE.format(more + 1, more + 2 * HUGE + 1, "rw-p", "[heap]"))
        file.write(LINE.format(more + 4 * HUGE, more + 8 * HUGE, "rw-s", ""))
        file.write(f"{more + 8 * HUGE:012x}-{more + 9 * HUGE:012x} rw-p 00000000 00:1f 7 /file\n")
        file.write(LINE.format(more + 9 * HUGE, more + 10 * HUGE - 1, "rw-p", ""))
    assert len(list(pages.collapse())) == 1
    with maps.open("a") as file:
        file.write(LINE.format(more + 20 * HUGE, more + 40 * HUGE, "rw-p", ""))
    assert len(list(pages.collapse())) == MOST_REFUSED - 1


def test_without_proc_nothing_happens(tmp_path: Path) -> None:
    """A system may have none."""
    assert list(HugePages(tmp_path / "maps").collapse()) == []


def test_thousands_of_routes_are_collapsed_before_they_serve() -> None:
    """A slice of it at a time, so that others come first; then the generation is prepared."""
    limits = private_limits()
    held = HeldSockets(lambda _: False)
    preparing = Preparing(limits, Contexts(), Access("", print), held)
    for count, is_many in ((MANY_ROUTES - 1, False), (MANY_ROUTES, True)):
        listener = ListenerPlan(id=LISTENER, name="l", host="127.0.0.1", port=1)
        endpoints = Endpoints(addresses={})
        preparing.begin(
            Prepare(generation=1, listeners=[listener], routes=count, endpoints=endpoints)
        )
        preparing.add_routes([route(f"r{n}", n, f"d{n}.example") for n in range(count)])
        slices = 0
        # What the kernel refuses is no slice; whatever it does, an end must come.
        while not preparing.build_ahead():
            slices += 1
            assert slices < 10_000
        assert is_many or not slices
