"""One password: hashes of any bcrypt, and the time that unknown users take."""

from __future__ import annotations

from string import ascii_lowercase, ascii_uppercase
from string import digits as DIGITS

import bcrypt
import pytest

from supervisor.users_file import auth_plan, parse_users
from worker.basic_auth import decoy, is_right

HASH = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()
STAFF = auth_plan("staff", [("alice", HASH)])


@pytest.mark.parametrize(
    ("password", "foreign"),
    [
        ("U*U", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"),
        ("U*U*U", "$2a$05$XXXXXXXXXXXXXXXXXXXXXOAcXxm9kjPGEMsLznoKqmqw7tc8WCx4a"),
        ("", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.7uG0VCzI2bS7j6ymqJi9CdcdxiRTWNy"),
        (
            f"{DIGITS}{ascii_lowercase}{ascii_uppercase}{DIGITS}chars after 72 are ignored",
            "$2a$05$abcdefghijklmnopqrstuu5s2v8.iXieOjg/.AySBTTZIIVFJeBui",
        ),
    ],
)
def test_hashes_of_other_programs(password: str, foreign: str) -> None:
    """Those with which crypt_blowfish, which `htpasswd` has, tests itself (its wrapper.c)."""
    for letter in "aby":
        users = parse_users(f"alice:{foreign.replace('2a', f'2{letter}')}".encode(), "f")
        assert is_right(auth_plan("", users), "alice", password)
        assert not is_right(auth_plan("", users), "alice", "x" + password)


@pytest.mark.parametrize("count", [0, 1, 2, 50])
def test_unknown_users_take_as_long_as_known_ones(count: int) -> None:
    """The hash that is tried for them has a cost that the file has, the same one each time."""
    users = [(f"user{n}", HASH.replace("$04$", f"${4 + n % 9:02}$")) for n in range(count)]
    plan = auth_plan("", users)
    costs = {hashed_with[4:6] for _, hashed_with in users} or {"10"}
    found = set()
    for number in range(400):
        false = decoy(plan.users, plan.digest, f"eve{number}")
        assert parse_users(f"a:{false}".encode(), "f")  # well formed: the check runs to its end
        assert decoy(plan.users, plan.digest, f"eve{number}") == false
        found.add(false[4:6])
    assert found == costs


def test_unknown_users_are_never_let_in() -> None:
    """Nor is an unknown user let in with what others have, or with none."""
    assert not is_right(STAFF, "eve", "secret")
    assert not is_right(STAFF, "eve", "")
    assert is_right(STAFF, "alice", "secret")
    assert not is_right(auth_plan("", []), "alice", "secret")
