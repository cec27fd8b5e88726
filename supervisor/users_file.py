"""Files of users and hashed passwords, as `htpasswd -B` writes them: read with the config.

One ``user:hash`` a line; what follows a second colon, empty lines and lines that begin with ``#``
do not count. Passwords are hashed with bcrypt and with nothing else: what is older is guessed too
fast, and is refused by its name. No message shows a password, a hash or a line of the file.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from io import StringIO
from pathlib import Path
from typing import Final

from shared.errors import Problem
from shared.plan import AuthPlan
from shared.units import short
from supervisor.config_read import ReadError, read_file

MAX_USERS: Final = 10_000  # more belong into a directory service
MAX_FILE_BYTES: Final = 4 << 20  # so many users with long names and comments
MAX_USER_BYTES: Final = 255  # as htpasswd has it
MAX_COST: Final = 17  # as htpasswd has it; a check takes seconds
MIN_COST: Final = 4  # of bcrypt itself
MAX_PROBLEMS: Final = 20  # lines of a file that are shown as wrong

HINT: Final = "write it with `htpasswd -B`"

# Version, cost, 16 bytes of salt, 23 of the hash; the last digit of either has bits to spare,
# which are 0. $2a$, $2b$ and $2y$ are the same algorithm: the letter tells who had which bug.
_BCRYPT: Final = re.compile(
    r"\$2[aby]\$([0-9]{2})\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{30}[.CGKOSWaeimquy26]", re.ASCII
)
_KINDS: Final = (
    ("$apr1$", "MD5 (apr1)"),
    ("$1$", "MD5 (md5-crypt)"),
    ("$5$", "SHA-256 (crypt)"),
    ("$6$", "SHA-512 (crypt)"),
    ("$2$", "the first bcrypt ($2$)"),
    ("$2x$", "a bcrypt that was at fault ($2x$)"),
    ("$argon2", "Argon2"),
    ("$y$", "yescrypt"),
    ("$gy$", "yescrypt"),
    ("$7$", "scrypt"),
    ("$scrypt$", "scrypt"),
    ("{sha}", "SHA-1"),
    ("{ssha}", "SHA-1"),
    ("{md5}", "MD5"),
    ("{smd5}", "MD5"),
    ("{crypt}", "crypt"),
)
_HEX: Final = re.compile(r"[0-9a-fA-F]+", re.ASCII)
_HEX_KINDS: Final = {32: "MD5", 40: "SHA-1", 64: "SHA-256", 128: "SHA-512"}
_DES: Final = re.compile(r"[./0-9A-Za-z]{13}", re.ASCII)


class UsersFileError(ValueError):
    """The file cannot be used. ``problems`` has each fault with its line; the text has them all."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(problem.text() for problem in problems))
        self.problems = problems


def read_users(path: Path) -> tuple[tuple[str, str], ...]:
    """(user, hash) of each user, sorted by name. An empty file has none, and lets nobody in.

    Blocks while the file is being written, for half a second at most. UsersFileError where it
    cannot be read, or a line is wrong.
    """
    name = str(path)
    try:
        data = read_file(path, MAX_FILE_BYTES)
    except ReadError as error:
        raise UsersFileError([_problem(name, 0, error.reason, error.hint, "file")]) from None
    if len(data) > MAX_FILE_BYTES:
        reason = f"is larger than {MAX_FILE_BYTES >> 20} MiB"
        raise UsersFileError([_problem(name, 0, reason, code="file")])
    return parse_users(data, name)


def parse_users(data: bytes, name: str) -> tuple[tuple[str, str], ...]:
    """As `read_users`, of the bytes of a file; ``name`` stands for it in messages."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = data.count(b"\n", 0, exc.start) + 1
        message = f"byte 0x{data[exc.start]:02x} is no UTF-8; is this a text file?"
        raise UsersFileError([_problem(name, line, message, code="file")]) from None
    users: dict[str, str] = {}
    lines: dict[str, int] = {}
    wrong: list[Problem] = []
    hidden = 0
    for number, row in enumerate(StringIO(text), 1):
        entry = row.rstrip()
        if not entry or entry.startswith("#"):
            continue
        try:
            user, hashed = _parse(entry, lines)
        except ReadError as error:
            if len(wrong) < MAX_PROBLEMS:
                wrong.append(_problem(name, number, error.reason, error.hint))
            else:
                hidden += 1
            continue
        users[user] = hashed
        lines[user] = number
    if len(users) > MAX_USERS:
        wrong.append(_problem(name, 0, f"has more than {MAX_USERS} users", code="file"))
    if hidden:
        wrong.append(_problem(name, wrong[-1].line + 1, f"and {hidden} more wrong lines below"))
    if wrong:
        raise UsersFileError(wrong)
    return tuple(sorted(users.items()))


def auth_plan(
    realm: str, users: Iterable[tuple[str, str]], *, allow_plain: bool = False
) -> AuthPlan:
    """What a worker needs of it. ``users`` as `read_users` gives them."""
    pairs = tuple(sorted(users))
    text = "\n".join(f"{user}:{hashed}" for user, hashed in pairs)
    return AuthPlan(
        realm=realm,
        users=pairs,
        allow_plain=allow_plain,
        digest=hashlib.sha256(text.encode()).hexdigest(),
    )


def _parse(entry: str, lines: dict[str, int]) -> tuple[str, str]:
    """User and hash of a line. ``lines``: where each name stood already. ReadError: it is wrong."""
    user, colon, rest = entry.partition(":")
    if not colon:
        raise ReadError("no colon; write user:hash", HINT)
    if not user or user != user.strip() or not user.isprintable():
        raise ReadError(f"{short(user)} is no name of a user; it is text without blanks around it")
    size = len(user.encode())
    if size > MAX_USER_BYTES:
        raise ReadError(f"the name of a user has {size} bytes, {MAX_USER_BYTES} at most")
    if user in lines:
        raise ReadError(f"{short(user)} stands in line {lines[user]} already", "remove one of them")
    hashed = rest.partition(":")[0].strip()
    match = _BCRYPT.fullmatch(hashed)
    if match is None:
        raise ReadError(f"the password of {short(user)} {_fault(hashed)}", HINT)
    if not MIN_COST <= int(match[1]) <= MAX_COST:
        reason = f"the cost of a bcrypt hash is {MIN_COST} to {MAX_COST}, not {match[1]}"
        raise ReadError(f"{short(user)}: {reason}", HINT)
    return user, hashed


def _fault(hashed: str) -> str:
    """What stands in the place of a bcrypt hash, without a character of it."""
    if not hashed:
        return "is missing"
    if hashed.startswith(("$2a$", "$2b$", "$2y$")):
        return "is a damaged bcrypt hash"
    for prefix, kind in _KINDS:
        if hashed.lower().startswith(prefix):
            return f"is hashed with {kind}; only bcrypt is taken"
    if len(hashed) in _HEX_KINDS and _HEX.fullmatch(hashed) is not None:
        return f"is hashed with {_HEX_KINDS[len(hashed)]}; only bcrypt is taken"
    if _DES.fullmatch(hashed) is not None:
        return "is plain text, or hashed with crypt (DES); only bcrypt is taken"
    return "is plain text, or hashed with something unknown; only bcrypt is taken"


def _problem(name: str, line: int, message: str, hint: str = "", code: str = "value") -> Problem:
    return Problem(message=message, code=code, file=name, line=line, hint=hint)
