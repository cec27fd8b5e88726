"""The data of each reply as text for people."""

from __future__ import annotations

from typing import Any, Final

from supervisor.cli.output import size, span, table
from supervisor.output import plural

SHOWN_ROUTES: Final = 20  # by name after a reload; thousands may have changed


def nothing(_data: dict[str, Any]) -> str:
    """For a command that has already printed what there is to print."""
    return ""


def valid(data: dict[str, Any]) -> str:
    """``valid: 4 listeners, 12 routes``."""
    return f"valid: {plural(data['listeners'], 'listener')}, {plural(data['routes'], 'route')}"


def stopped(data: dict[str, Any]) -> str:
    """``stopped: 214 connections drained, 3 cut at the deadline``."""
    if "orphans" in data:
        return f"stopped: {plural(len(data['orphans']), 'orphaned worker')} drained"
    if data.get("drained") is None:
        return "stopped"
    drained = plural(data["drained"], "connection")
    return f"stopped: {drained} drained, {data.get('cut', 0)} cut at the deadline"


def reloaded(data: dict[str, Any]) -> str:
    """``reload ok in 0.8 s, generation 12: +1 route, ~2, -1``, and the routes by name."""
    changes = data["routes"]
    marks = (("+", "added"), ("~", "changed"), ("-", "removed"))
    names = [f"  {mark} {name}" for mark, key in marks for name in changes[key]]
    if len(names) > SHOWN_ROUTES:
        names = [*names[:SHOWN_ROUTES], f"  and {len(names) - SHOWN_ROUTES} more"]
    seconds, generation = data["seconds"], data["generation"]
    head = f"reload ok in {seconds:.1f} s, generation {generation}: {data['summary']}"
    return "\n".join([head, *names])


def status(data: dict[str, Any]) -> str:
    """A compact overview: supervisor, workers, last reload, then a line per route and target."""
    supervisor = data["supervisor"]
    totals = data.get("totals", {})
    uptime = span(supervisor["uptime_s"])
    lines = [
        f"proxyctl     {supervisor['version']}, pid {supervisor['pid']}, up {uptime}",
        f"config       {supervisor['config']}",
        f"generation   {data['generation']}{_last_reload(data.get('last_reload', {}))}",
        f"workers      {_workers(data)}",
        f"connections  {data['connections']} now, {totals.get('accepted', 0)} accepted",
    ]
    routes = totals.get("routes", {})
    if routes:
        lines += ["", _counts_table("ROUTE", routes, with_failures=False)]
    targets = totals.get("targets", {})
    if targets:
        lines += ["", _counts_table("TARGET", targets, with_failures=True)]
    ends = totals.get("ends", {})
    if ends:
        ordered = sorted(ends.items(), key=lambda entry: (-entry[1], entry[0]))
        lines += ["", table(["ENDED AS", "COUNT"], ordered)]
    return "\n".join(lines)


def _workers(data: dict[str, Any]) -> str:
    """``2 of 2 ready, 1 draining``."""
    counts = dict(data.get("workers", {}))
    wanted, ready = counts.pop("wanted", 0), counts.pop("ready", 0)
    others = [f"{count} {state}" for state, count in counts.items() if count]
    return ", ".join([f"{ready} of {wanted} ready", *others])


def _last_reload(last: dict[str, Any]) -> str:
    if last.get("ok", True):
        return ""
    messages = [problem.get("message", "") for problem in last.get("errors", [])]
    more = f" and {len(messages) - 1} more" if len(messages) > 1 else ""
    return f" (the last reload was refused: {''.join(messages[:1])}{more})"


def _counts_table(title: str, entries: dict[str, Any], *, with_failures: bool) -> str:
    header = [title, "NOW", "TOTAL", "RECEIVED", "SENT"]
    rows: list[list[object]] = []
    for name, counts in entries.items():
        row: list[object] = [
            name,
            counts.get("active", 0),
            counts.get("total", 0),
            size(counts.get("received", 0)),
            size(counts.get("sent", 0)),
        ]
        if with_failures:
            row.append(sum(counts.get("connect_failures", {}).values()))
        rows.append(row)
    return table([*header, "FAILED DIALS"] if with_failures else header, rows)


def workers(data: dict[str, Any]) -> str:
    """One line per slot."""
    rows: list[list[object]] = [
        [
            worker.get("slot", 0),
            worker.get("pid") or "-",
            worker.get("state", "?"),
            worker.get("generation", 0),
            worker.get("connections", 0),
            span(worker.get("age_s", 0.0)),
            f"{worker.get('lag_s', 0.0) * 1000:.1f} ms",
            worker.get("restarts", 0),
        ]
        for worker in data.get("workers", [])
    ]
    header = ["SLOT", "PID", "STATE", "GENERATION", "CONNECTIONS", "AGE", "LOOP LAG", "RESTARTS"]
    return table(header, rows)
