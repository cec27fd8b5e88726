"""What an operator meets when commands come at odd moments, or with odd numbers."""

from __future__ import annotations

import signal

import pytest

from tests.conftest import StartProxyctl
from tests.helpers.ports import free_port
from tests.helpers.processes import config_of
from tests.helpers.sockets import EchoServer, connect, exchange, is_refused
from tests.helpers.waiting import wait_until


def test_a_reload_during_a_stop_is_refused_and_opens_no_port(
    proxyctl: StartProxyctl, echo: EchoServer
) -> None:
    """The ports are closed and stay so: what was dialled at a port opened anew would be lost."""
    port, other = free_port(), free_port()
    running = proxyctl(config_of({"a": (port, echo.address)}))
    with connect(port) as client:
        assert exchange(client, b"x") == b"x"
        running.signal(signal.SIGTERM)
        wait_until(lambda: is_refused(port), "the port is closed")
        running.write(config_of({"a": (port, echo.address), "b": (other, echo.address)}))
        code, document = running.run("reload")
        assert code == 1
        assert [each["message"] for each in document["errors"]] == ["proxyctl stops"]
        assert document["data"]["summary"] == "kept generation 1"
        assert is_refused(port)
        assert is_refused(other)
        assert exchange(client, b"y") == b"y"
    assert running.wait() == 0
    assert "reload failed" not in running.log()


@pytest.mark.parametrize("count", ["0", "1025", "9" * 40])
def test_numbers_of_workers_that_make_no_sense_are_wrong_usage(
    proxyctl: StartProxyctl, echo: EchoServer, count: str
) -> None:
    """Also those that no message has room for."""
    running = proxyctl(config_of({"a": (free_port(), echo.address)}), workers=1)
    for action in ("add", "remove"):
        code, document = running.run("workers", action, count)
        assert code == 2
        assert [each["code"] for each in document["errors"]] == ["usage"]
    assert len(running.ready_pids()) == 1
