"""Hold a data plane's loop, so that what is sent meanwhile is there at once when it goes on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.data_plane_harness import Plane
from tests.data_plane_sockets import TIMEOUT_S, in_thread


@contextmanager
def held(plane: Plane) -> Iterator[None]:
    """Within the block no event of any socket is looked at."""
    is_held, may_go_on = threading.Event(), threading.Event()

    def hold() -> None:
        is_held.set()
        assert may_go_on.wait(TIMEOUT_S)

    with in_thread(lambda: plane.call(hold)):
        try:
            assert is_held.wait(TIMEOUT_S)
            yield
        finally:
            may_go_on.set()
