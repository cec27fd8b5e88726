"""The header guard: a PROXY header of a stranger never passes, whatever the pieces it comes in."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shared.proxy_protocol import V1_PREFIX, V2_SIGNATURE, encode_v1, encode_v2
from worker.header_guard import HeaderGuard, Verdict

SOURCE, DESTINATION = bytes([192, 0, 2, 1]), bytes([198, 51, 100, 2])
HEADERS = {
    V1_PREFIX: encode_v1(SOURCE, 1, DESTINATION, 2),
    V2_SIGNATURE: encode_v2(SOURCE, 1, DESTINATION, 2),
}


def test_a_header_is_rejected_at_every_split() -> None:
    """Held while it may still become one, rejected with the last byte of the signature."""
    for signature, header in HEADERS.items():
        for split in range(1, len(header)):
            guard = HeaderGuard()
            first = guard.feed(header[:split])
            if split >= len(signature):
                assert first is Verdict.REJECT
                continue
            assert first is Verdict.HOLD
            assert guard.held
            assert guard.feed(header[split:]) is Verdict.REJECT


def test_a_header_is_rejected_byte_by_byte() -> None:
    """The byte that would complete the signature never passes, even after all before it did."""
    for signature, header in HEADERS.items():
        guard, passed = HeaderGuard(), b""
        for index in range(len(signature) - 1):
            assert guard.feed(header[index : index + 1]) is Verdict.HOLD
            passed += guard.release()
            assert not guard.held
        assert passed == signature[:-1]
        assert guard.feed(signature[-1:]) is Verdict.REJECT


def test_other_bytes_pass_at_every_split() -> None:
    """What begins like a signature and goes on otherwise passes whole, in order, once."""
    for payload in (b"PROX", b"PROXIED request", b"\r\n\r\n\0\r\nQUIT\r", b"\r\n\r\nGET /", b"x"):
        whole = payload + b"?"
        for split in range(1, len(whole)):
            guard = HeaderGuard()
            verdict = guard.feed(whole[:split])
            if verdict is Verdict.HOLD:
                verdict = guard.feed(whole[split:])
                assert guard.release() == whole
            else:
                assert guard.release() == whole[:split]
            assert verdict is Verdict.PASS
            assert guard.release() == b""


@given(st.binary(min_size=1, max_size=30), st.lists(st.booleans(), min_size=30, max_size=30))
def test_any_stream_is_released_in_order_or_rejected(data: bytes, releases: list[bool]) -> None:
    """Byte by byte with releases at any time: what comes out is what went in, or a rejection."""
    guard, out = HeaderGuard(), b""
    for index, wants_release in enumerate(releases[: len(data)]):
        verdict = guard.feed(data[index : index + 1])
        if verdict is Verdict.REJECT:
            assert data.startswith((V1_PREFIX, V2_SIGNATURE))
            assert not out.startswith((V1_PREFIX, V2_SIGNATURE))
            return
        if verdict is Verdict.PASS:
            assert out + guard.release() == data[: index + 1]
            return
        if wants_release:
            out += guard.release()
            assert data.startswith(out)
