"""The control socket's client: answers that come, come late, come damaged, or never."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zmq

from shared.messages import Reply, Request, decode_request, encode
from shared.runtime_files import CONTROL_SOCKET
from supervisor.cli import client, stopping
from supervisor.runtime_dir import RuntimeDir

Answer = Callable[[Request], bytes | None]


@contextmanager
def supervisor(directory: Path, answer: Answer) -> Iterator[RuntimeDir]:
    """Holds the lock and answers one request, as a supervisor does; None is no answer.

    A ping before it is answered, too.
    """
    held = RuntimeDir(directory)
    held.open()
    context = zmq.Context()
    router = context.socket(zmq.ROUTER)
    router.setsockopt(zmq.RCVTIMEO, 20_000)
    router.bind(f"ipc://{directory / CONTROL_SOCKET}")

    def serve() -> None:
        peer, _, raw = router.recv_multipart()
        if decode_request(raw).verb == "ping":
            router.send_multipart([peer, b"", encode(Reply(exit_code=0))])
            peer, _, raw = router.recv_multipart()
        reply = answer(decode_request(raw))
        if reply is not None:
            router.send_multipart([peer, b"", reply])

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield held
    finally:
        thread.join()
        held.close()
        router.close(linger=2000)
        context.term()


def test_a_request_and_its_reply(tmp_path: Path) -> None:
    """Verb and arguments arrive, and the reply comes back whole."""
    asked: list[Request] = []

    def answer(request: Request) -> bytes:
        asked.append(request)
        return encode(Reply(exit_code=4, data={"n": 1}))

    with supervisor(tmp_path, answer):
        reply = client.ask(tmp_path, "status", {"a": [1, "x"]}, 20)
    assert reply == Reply(exit_code=4, data={"n": 1})
    assert asked == [Request(verb="status", arguments={"a": [1, "x"]})]


def test_no_answer_in_time(tmp_path: Path) -> None:
    """Status 5 when a supervisor lives and stays silent."""
    with supervisor(tmp_path, lambda _: None):
        reply = client.ask(tmp_path, "reload", {}, 0.3)
    assert reply.exit_code == 5
    assert "reload" in reply.errors[0].message


def test_a_supervisor_that_dies_meanwhile(tmp_path: Path) -> None:
    """The wait ends when the lock is free, even without a timeout."""
    held: list[RuntimeDir] = []

    def die(_: Request) -> None:
        held[0].close()

    with supervisor(tmp_path, die) as runtime:
        held.append(runtime)
        reply = client.ask(tmp_path, "status", {}, None)
    assert reply.exit_code == 3
    assert "ended" in reply.errors[0].message


@pytest.mark.parametrize("raw", [b"", b"\xff\xff", b"\x81\xa1x\x01", b"not msgpack at all"])
def test_an_answer_that_cannot_be_read(raw: bytes, tmp_path: Path) -> None:
    """Status 1 and a message instead of a traceback."""
    with supervisor(tmp_path, lambda _: raw):
        reply = client.ask(tmp_path, "status", {}, 20)
    assert reply.exit_code == 1
    assert reply.errors[0].code == "bad_answer"


def test_nobody_there(tmp_path: Path) -> None:
    """Status 3 without waiting, also when a lock file was left behind."""
    assert client.ask(tmp_path, "status", {}, None).exit_code == 3
    runtime = RuntimeDir(tmp_path)
    runtime.open()
    runtime.close()
    assert client.ask(tmp_path, "status", {}, None).exit_code == 3


def test_stop_waits_until_the_lock_is_free(tmp_path: Path) -> None:
    """The answer alone is not the end: `stop` returns when the process has let go."""
    held: list[RuntimeDir] = []

    def answer(request: Request) -> bytes:
        assert request.arguments == {"now": False, "timeout_s": 10.0}
        threading.Timer(0.3, held[0].close).start()
        return encode(Reply(exit_code=0, data={"drained": 2, "cut": 1}))

    with supervisor(tmp_path, answer) as runtime:
        held.append(runtime)
        reply = stopping.stop(tmp_path, 10.0, False)
        assert runtime._lock_fd == -1
    assert reply.exit_code == 0
    assert reply.data == {"drained": 2, "cut": 1}


def test_our_own_pid_is_the_holder(tmp_path: Path) -> None:
    """The test's stand-in really holds the lock that the client looks at."""
    from supervisor.runtime_dir import running_pid

    with supervisor(tmp_path, lambda _: encode(Reply(exit_code=0))):
        assert running_pid(tmp_path) == os.getpid()
        assert client.ask(tmp_path, "status", {}, 20).exit_code == 0
