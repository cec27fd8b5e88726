"""Ticket keys: how they are derived, and that OpenSSL has what was set."""

from __future__ import annotations

import hashlib
import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from worker import ticket_keys
from worker.ssl_objects import pointer_in
from worker.ticket_keys import KEYS_BYTES, SCOPE_BYTES, TicketKeys, derive

SECRET = bytes(range(32))


@pytest.fixture
def keys() -> TicketKeys:
    """Access to the keys in this process."""
    found = TicketKeys()
    assert found.available, found.reason
    return found


def server() -> ssl.SSLContext:
    """A server context as it comes."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)


def test_derivation_is_that_of_rfc_5869() -> None:
    """Another implementation of HKDF with SHA-512 gives the same 80 bytes."""
    theirs = HKDF(hashes.SHA512(), KEYS_BYTES, b"proxyctl session tickets", b"identity")
    assert derive(SECRET, b"identity") == theirs.derive(SECRET)


def test_identities_and_secrets_have_keys_of_their_own() -> None:
    """Name, MAC key and cipher key all differ where identity or secret do."""
    every = [derive(SECRET, b"a"), derive(SECRET, b"b"), derive(bytes(32), b"a")]
    assert {len(one) for one in every} == {KEYS_BYTES}
    for part in (slice(0, 16), slice(16, 48), slice(48, 80)):
        assert len({one[part] for one in every}) == len(every)


def test_a_context_has_the_keys_that_it_was_given(keys: TicketKeys) -> None:
    """What is set is got, and other contexts keep what they have."""
    one, other = server(), server()
    before = keys.get(other)
    keys.set(one, derive(SECRET, b"a"))
    assert keys.get(one) == derive(SECRET, b"a")
    assert keys.get(other) == before
    with pytest.raises(ValueError, match="79 bytes"):
        keys.set(one, bytes(KEYS_BYTES - 1))
    assert keys.get(one) == derive(SECRET, b"a")


def test_a_confined_context_keeps_no_sessions(keys: TicketKeys) -> None:
    """The cache that OpenSSL switches on for servers is off afterwards."""
    context = server()
    assert keys.keeps_sessions(context)
    keys.confine(context, hashlib.sha256(b"scope").digest())
    assert not keys.keeps_sessions(context)
    with pytest.raises(ssl.SSLError):
        keys.confine(context, bytes(SCOPE_BYTES + 1))


def test_a_python_with_ssl_built_in_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the module has no file there are no keys to set, only a reason."""
    monkeypatch.delattr("_ssl.__file__")
    keys = TicketKeys()
    assert not keys.available
    assert "built in" in keys.reason


def test_another_layout_of_contexts_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a context does not begin with its pointer, nothing is read through what is there."""
    its_type = object.__basicsize__ - 8
    monkeypatch.setattr(ticket_keys, "pointer_in", lambda one: pointer_in(one, its_type))
    keys = TicketKeys()
    assert not keys.available
    assert "SSL_CTX" in keys.reason


def test_two_libraries_are_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With two files of one name mapped, it is not certain whose contexts these are."""
    maps = Path("/proc/self/maps").read_text()
    copy = tmp_path / "maps"
    copy.write_text(maps + "7f00-7fff r-xp 00000000 08:01 1    /opt/other/libssl.so.1.1\n")
    monkeypatch.setattr(ticket_keys, "MAPS", copy)
    keys = TicketKeys()
    assert not keys.available
    assert "/opt/other/libssl.so.1.1" in keys.reason
