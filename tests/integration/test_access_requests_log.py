"""Lines about requests in a real file, beside those about connections."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from shared.access_format import REQUEST_FIELDS, RequestEntry
from shared.http.head import Fields, Request
from shared.plan import AccessPlan
from tests.helpers.access_lines import PEER, entry
from worker.access import Access
from worker.access_log import LINES_AT_ONCE, AccessLog

LINES = 10 * LINES_AT_ONCE + 5


def request_entry(number: int) -> RequestEntry:
    """The number stands in the path."""
    request = Request("GET", f"/{number}", None, "a.example", "a.example", is_11=True)
    request.fields = Fields(((b"user-agent", b"test"),))
    return entry(number), request, 200, f"{number:032x}", None


def opened(path: Path, kind: str) -> Access:
    """An access log that is on."""
    access = Access("0-1-", lambda *_: None)
    access.prepare(AccessPlan(file=str(path), format=kind))
    access.commit()
    return access


@pytest.mark.parametrize("kind", ["json", "combined", "ecs", "{method} {path} {status}"])
def test_every_request_has_its_line_in_order(tmp_path: Path, kind: str) -> None:
    """None is lost at the end, however many a batch has, and all are counted."""
    path = tmp_path / "access.log"
    access = opened(path, kind)
    for number in range(LINES):
        access.request(request_entry(number), time.monotonic())
    access.close()
    lines = path.read_text().splitlines()
    assert (len(lines), access.lines, access.dropped) == (LINES, LINES, 0)
    for number, line in enumerate(lines):
        assert f" /{number} " in line or f'"/{number}"' in line
        assert "200" in line


def test_requests_and_connections_share_the_file(tmp_path: Path) -> None:
    """Each line has the fields of its kind, in the order in which things ended."""
    path = tmp_path / "access.log"
    with_log = AccessLog(AccessPlan(file=str(path)), "0-1-", lambda *_: None)
    for number in range(LINES):
        one = entry(number) if number % 3 else request_entry(number)
        with_log.write(time.monotonic(), one)
    with_log.close(5.0)
    read = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["id"] for line in read] == [f"0-1-{number}" for number in range(LINES)]
    assert [set(REQUEST_FIELDS) <= set(line) for line in read] == [
        number % 3 == 0 for number in range(LINES)
    ]
    assert {line["peer"] for line in read} == {f"{PEER[0]}:{PEER[1]}"}


def test_requests_that_find_no_room_are_counted(tmp_path: Path) -> None:
    """After the end of the log nobody waits, and nothing is written."""
    path = tmp_path / "access.log"
    access = opened(path, "json")
    log = access._log
    assert log is not None
    log.close(5.0)
    access.request(request_entry(1), time.monotonic())
    assert (access.lines, access.dropped) == (0, 1)
    assert path.read_text() == ""
    access.close()
