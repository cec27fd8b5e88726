"""Workers that ended unasked."""

from __future__ import annotations

from supervisor.restart_log import Restart, RestartLog


def test_the_last_are_kept_and_all_are_counted() -> None:
    """200 stay for `status`, with what each of them had counted; the counters know all."""
    log = RestartLog()
    for number in range(250):
        kind = "killed" if number % 2 else "hung"
        log.note(Restart(slot=0, kind=kind, reason="", incarnation=number, accepted=number))
    assert log.counts == {"killed": 125, "hung": 125}
    assert [one.incarnation for one in log.last] == list(range(50, 250))
    assert [one.accepted for one in log.last] == list(range(50, 250))
