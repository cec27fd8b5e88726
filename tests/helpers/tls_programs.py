"""openssl, curl and redis-cli as TLS clients of tests."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final

from msgspec import Struct

from tests.helpers.certificates import Authority, Files
from tests.helpers.waiting import wait_until
from tests.programs import find_program

LIMIT_S: Final = 30.0


class Said(Struct, frozen=True):
    """What a program has printed, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """All of it."""
        return self.out + self.err


def run(name: str, *arguments: str | Path, given: bytes | None = None) -> Said:
    """Run a program to its end."""
    program = find_program(name)
    assert program is not None, f"{name} is not installed"
    done = subprocess.run(
        [program, *(str(one) for one in arguments)],
        input=given,
        stdin=subprocess.DEVNULL if given is None else None,
        capture_output=True,
        timeout=LIMIT_S,
        check=False,
        env={**os.environ, "no_proxy": "*", "NO_PROXY": "*"},
    )
    return Said(done.returncode, done.stdout.decode(), done.stderr.decode())


def s_client(
    port: int,
    root: Authority,
    *arguments: str | Path,
    name: str = "a.example",
    given: bytes = b"",
) -> Said:
    """`openssl s_client`: it sends ``given``, and ends with that."""
    return run(
        "openssl",
        *("s_client", "-connect", f"127.0.0.1:{port}", "-servername", name),
        *("-CAfile", root.cert, "-verify_return_error", *arguments),
        given=given,
    )


class Talk:
    """`openssl s_client` that is spoken to, line by line; a line of R or K is a command to it."""

    def __init__(self, port: int, root: Authority, directory: Path, *arguments: str) -> None:
        program = find_program("openssl")
        assert program is not None
        self._path = directory / "s_client"
        with self._path.open("wb") as output:
            self._process = subprocess.Popen(
                [
                    *(program, "s_client", "-connect", f"127.0.0.1:{port}"),
                    *("-servername", "a.example", "-CAfile", str(root.cert), *arguments),
                ],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
            )

    def __enter__(self) -> Talk:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(LIMIT_S)
        if self._process.stdin is not None:
            self._process.stdin.close()

    def said(self) -> str:
        """All that it has printed so far."""
        return self._path.read_text(errors="replace")

    def wait_for(self, *words: str) -> str:
        """Wait until it has printed one of these; all that it has printed then."""

        def look() -> str:
            said = self.said()
            return said if any(word in said for word in words) else ""

        try:
            return wait_until(look, f"one of {words}")
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.said()}") from None

    def say(self, line: str) -> None:
        """Give it a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())
        self._process.stdin.flush()

    def end(self) -> int:
        """Its exit code, once the other side has ended the connection."""
        return self._process.wait(LIMIT_S)


def curl(port: int, root: Authority, name: str, *arguments: str | Path) -> Said:
    """curl of ``https://name:port/``, which it finds on 127.0.0.1."""
    return run(
        "curl",
        *("--silent", "--show-error", "--http1.1", "--max-time", "20", "--noproxy", "*"),
        *("--resolve", f"{name}:{port}:127.0.0.1", "--cacert", root.cert, *arguments),
        f"https://{name}:{port}/",
    )


def shown(files: Files) -> tuple[str, ...]:
    """Arguments of curl for a client's certificate."""
    return ("--cert", str(files.cert), "--key", str(files.key))
