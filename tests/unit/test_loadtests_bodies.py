"""Large bodies by hand: a small run of it, and what it calls wrong."""

from __future__ import annotations

import signal
import socket

import pytest
from msgspec import structs

from loadtests.bodies import MOST_RISE_KIB, Result, main
from loadtests.body_wire import BLOCK_BYTES, Body, Reader, made, send_body
from tests.data_plane_sockets import in_thread

GOOD = Result(
    scheme="http", what="up, length", seconds=1.0, at_client=Body(5, "a"), at_target=Body(5, "a"),
    first_kib=10, most_kib=10 + MOST_RISE_KIB,
)  # fmt: skip


def test_a_small_run(capsys: pytest.CaptureFixture[str]) -> None:
    """Four bodies plain and four with TLS arrive as they were sent."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert main(["--gib", "0.005"]) == 0
    finally:
        signal.signal(signal.SIGTERM, before)
    *lines, verdict = capsys.readouterr().out.splitlines()
    assert verdict == "PASS"
    assert [line.split()[0] for line in lines] == ["http"] * 4 + ["https"] * 4
    assert all(" same " in line for line in lines)


@pytest.mark.parametrize(
    "wrong",
    [
        structs.replace(GOOD, at_target=Body(5, "b")),
        structs.replace(GOOD, at_target=Body(4, "a")),
        structs.replace(GOOD, most_kib=GOOD.most_kib + 1),
    ],
)
def test_what_is_wrong(wrong: Result) -> None:
    """Another hash, another size, or a worker that has grown."""
    assert GOOD.is_good
    assert not wrong.is_good


@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_the_wire_of_both_ends(framing: str) -> None:
    """What one sends the other reads, and it is what is made of that size."""
    size = 2 * BLOCK_BYTES + 17
    ours, theirs = socket.socketpair()
    with ours, theirs:
        is_whole = framing == "length"
        fields = {"content-length": str(size)} if is_whole else {"transfer-encoding": "chunked"}
        with in_thread(lambda: send_body(ours, size, "length" if is_whole else "chunks") and None):
            assert Reader(theirs).body(fields) == made(size)


def test_no_two_blocks_are_alike() -> None:
    """Or a body with a block in the place of another would look the same."""
    ours, theirs = socket.socketpair()
    with ours, theirs, in_thread(lambda: send_body(ours, 3 * BLOCK_BYTES, "length") and None):
        received = b""
        while len(received) < 3 * BLOCK_BYTES:
            received += theirs.recv(BLOCK_BYTES)
    blocks = {received[at : at + BLOCK_BYTES] for at in range(0, len(received), BLOCK_BYTES)}
    assert len(blocks) == 3
