"""Files of users: what may stand in them, and how faults are told."""

from __future__ import annotations

import os
from pathlib import Path

import bcrypt
import pytest

from supervisor.users_file import (
    MAX_FILE_BYTES,
    MAX_PROBLEMS,
    MAX_USERS,
    UsersFileError,
    auth_plan,
    parse_users,
    read_users,
)

# The same in each process: they are part of the tests' names.
HASH = bcrypt.hashpw(b"secret", b"$2b$04$abcdefghijklmnopqrstuu").decode()
OTHER = bcrypt.hashpw(b"other", b"$2b$05$abcdefghijklmnopqrstuu").decode()
NAME = "users"


def refusal(text: str | bytes) -> str:
    """What is said of a file with this content."""
    data = text.encode() if isinstance(text, str) else text
    with pytest.raises(UsersFileError) as caught:
        parse_users(data, NAME)
    return str(caught.value)


def test_a_file_as_it_is_found() -> None:
    """Comments, blank lines, CRLF, a byte order mark and third columns do not count."""
    text = f"\ufeff# people\r\n\r\nbob:{OTHER}\r\nalice:{HASH}:since May\n#eve:x\nJörg Ä.:{HASH} \n"
    assert parse_users(text.encode(), NAME) == (("Jörg Ä.", HASH), ("alice", HASH), ("bob", OTHER))


@pytest.mark.parametrize("data", [b"", b"\n\n", b"# nobody\n", b"\xef\xbb\xbf"])
def test_empty_files(data: bytes) -> None:
    """Nobody is in them."""
    assert parse_users(data, NAME) == ()


@pytest.mark.parametrize("version", ["2a", "2b", "2y"])
@pytest.mark.parametrize("cost", [4, 5])
def test_what_bcrypt_writes_is_taken(version: str, cost: int) -> None:
    """Under each letter that means the same algorithm; the library takes it as well."""
    for number in range(64):  # the last digit has bits to spare: see that all that occur are taken
        made = bcrypt.hashpw(b"%d" % number, bcrypt.gensalt(4)).decode() if cost == 4 else HASH
        hashed = f"${version}{made[3:]}"
        assert parse_users(f"a:{hashed}".encode(), NAME) == (("a", hashed),)
        if cost == 4:
            assert bcrypt.checkpw(b"%d" % number, hashed.encode())
    assert parse_users(f"a:{OTHER}".encode(), NAME)[0][1].startswith("$2b$05$")


@pytest.mark.parametrize(
    ("hashed", "kind"),
    [
        ("$apr1$r31.....$HqJZimcKQFAMYayBlzkrA/", "hashed with MD5 (apr1)"),
        ("$1$abcdefgh$G//4keteveJp0qb8z2DxG/", "hashed with MD5 (md5-crypt)"),
        ("{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", "hashed with SHA-1"),
        ("{SSHA}gVK8WC9YyFT1gMsQHTGCgT3sSv5zYWx0", "hashed with SHA-1"),
        ("{CRYPT}rqXexS6ZhobKA", "hashed with crypt"),
        ("rqXexS6ZhobKA", "plain text, or hashed with crypt (DES)"),
        ("$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc8", "hashed with SHA-256"),
        ("$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjlO", "hashed with SHA-512"),
        ("$argon2id$v=19$m=65536,t=3,p=4$c2FsdA$aGFzaA", "hashed with Argon2"),
        ("$y$j9T$F5Jx5fExrKuPp53xLKQ..1$X3DX6M94c7o.9agCG9G31", "hashed with yescrypt"),
        ("$7$CU..../....2Q9obwLhin8qvQl6sisAO/$E1HizYWxBmnI", "hashed with scrypt"),
        (f"$2x{HASH[3:]}", "hashed with a bcrypt that was at fault"),
        ("5ebe2294ecd0e0f08eab7690d2a6ee69", "hashed with MD5"),
        ("e5e9fa1ba31ecd1ae84f75caaa474f3a663f05f4", "hashed with SHA-1"),
        (HASH[:-1], "a damaged bcrypt hash"),
        (HASH + "x", "a damaged bcrypt hash"),
        (HASH[:28] + "z" + HASH[29:], "a damaged bcrypt hash"),  # bits behind the salt
        (HASH[:-1] + "z", "a damaged bcrypt hash"),  # and behind the hash
        ("", "missing"),
        ("correct horse", "plain text"),
        ("{PLAIN}horse", "plain text"),
        ("\N{SNOWMAN}", "plain text"),
    ],
)
def test_other_hashes_are_refused_by_name(hashed: str, kind: str) -> None:
    """With the line, what to do, and nothing of the hash."""
    said = refusal(f"# x\nalice:{HASH}\nbob:{hashed}\n")
    assert said.startswith("users:3: error: ")
    assert kind in said
    assert "'bob'" in said
    assert "htpasswd -B" in said
    assert not hashed or hashed not in said


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("horse", "no colon"),
        (f":{HASH}", "is no name of a user"),
        (f" bob:{HASH}", "is no name of a user"),
        (f"bob :{HASH}", "is no name of a user"),
        (f"b\x07b:{HASH}", "is no name of a user"),
        (f"{'ä' * 128}:{HASH}", "has 256 bytes, 255 at most"),
        (f"alice:{HASH}", "'alice' stands in line 1 already"),
        (f"bob:{HASH.replace('$04$', '$03$')}", "4 to 17, not 03"),
        (f"bob:{HASH.replace('$04$', '$18$')}", "4 to 17, not 18"),
        (f"bob:{HASH.replace('$04$', '$31$')}", "4 to 17, not 31"),
    ],
)
def test_lines_that_are_wrong(row: str, reason: str) -> None:
    """Each is told with its line, and never shown: it may be a password."""
    said = refusal(f"alice:{HASH}\n\n{row}")
    assert said.startswith("users:3: error: ")
    assert reason in said
    assert "horse" not in said
    assert HASH[7:] not in said


def test_all_faults_at_once() -> None:
    """Up to a number of them that can be read."""
    with pytest.raises(UsersFileError) as caught:
        parse_users(b"alice\n" * (MAX_PROBLEMS + 5), NAME)
    problems = caught.value.problems
    assert [problem.line for problem in problems] == [*range(1, MAX_PROBLEMS + 2)]
    assert problems[-1].message == "and 5 more wrong lines below"


def test_no_text() -> None:
    """A file in another encoding is told with the line of the first such byte."""
    said = refusal(f"alice:{HASH}\n".encode() + b"b\xf6b:x\n")
    assert said.startswith("users:2: error: byte 0xf6 is no UTF-8")


def test_too_many_users() -> None:
    """The most are taken, one more is not."""
    rows = [f"user{number}:{HASH}\n" for number in range(MAX_USERS + 1)]
    assert len(parse_users("".join(rows[1:]).encode(), NAME)) == MAX_USERS
    assert f"more than {MAX_USERS} users" in refusal("".join(rows))


def test_files(tmp_path: Path) -> None:
    """One that is there, and what cannot be one."""
    path = tmp_path / "users"
    path.write_text(f"bob:{OTHER}\nalice:{HASH}\n")
    assert read_users(path) == (("alice", HASH), ("bob", OTHER))
    with path.open("ab") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for wrong, reason in (
        (path, "is larger than 4 MiB"),
        (fifo, "is no regular file"),
        (tmp_path, "is a directory"),
        (tmp_path / "none", "No such file"),
    ):
        with pytest.raises(UsersFileError, match=reason) as caught:
            read_users(wrong)
        assert str(caught.value).startswith(f"{wrong}: error: ")


def test_the_plan_shows_no_hash() -> None:
    """Its digest is that of the users, in whatever order they stand; its repr shows none."""
    plan = auth_plan("staff", [("bob", OTHER), ("alice", HASH)])
    again = auth_plan("other", [("alice", HASH), ("bob", OTHER)], allow_plain=True)
    changed = auth_plan("staff", [("alice", OTHER), ("bob", OTHER)])
    assert plan.users == (("alice", HASH), ("bob", OTHER))
    assert not plan.allow_plain
    assert again.allow_plain
    assert plan.digest == again.digest != changed.digest
    assert auth_plan("staff", []).digest != plan.digest
    assert repr(plan) == "AuthPlan('staff')"
    assert HASH not in repr([plan]) + str(plan)
