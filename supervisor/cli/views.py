"""The data of each reply as text for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from supervisor.cli.output import latency, moment, size, span, table
from supervisor.facts import WARN_DAYS
from supervisor.output import plural

SHOWN_RESTARTS: Final = 5  # the last ones; `--json` has more
_SHOWN_ENTRIES: Final = 3  # of a list in a cell; `--json` has more


def nothing(_data: dict[str, Any]) -> str:
    """For a command that has already printed what there is to print."""
    return ""


def valid(data: dict[str, Any]) -> str:
    """``valid: 4 listeners, 12 routes``."""
    return f"valid: {plural(data['listeners'], 'listener')}, {plural(data['routes'], 'route')}"


def stopped(data: dict[str, Any]) -> str:
    """``stopped: 214 connections drained, 3 cut at the deadline``."""
    if data.get("drained") is None:
        return "stopped"
    drained = plural(data["drained"], "connection")
    text = f"stopped: {drained} drained, {data.get('cut', 0)} cut at the deadline"
    if "orphans" in data:
        text += f"; {plural(len(data['orphans']), 'worker')} had no supervisor"
    return text


def reloaded(data: dict[str, Any]) -> str:
    """``reload ok in 0.8 s, generation 12: +1 route, ~2, -1; 214 connections kept, 3 draining``."""
    head = f"reload ok in {data['seconds']:.1f} s, generation {data['generation']}"
    connections = data["connections"]
    kept = plural(connections["kept"], "connection")
    return f"{head}: {data['summary']}; {kept} kept, {connections['draining']} draining"


def status(data: dict[str, Any]) -> str:
    """A compact overview: supervisor, workers, last reload, then tables of what there is."""
    supervisor = data["supervisor"]
    totals = data.get("totals", {})
    uptime = span(supervisor["uptime_s"])
    lines = [
        f"proxyctl     {supervisor['version']}, pid {supervisor['pid']}, up {uptime}",
        *(["stopping     a stop has begun"] if data.get("stopping") else []),
        f"config       {supervisor['config']}",
        f"generation   {data['generation']}{_last_reload(data.get('last_reload', {}))}",
        f"workers      {_workers(data)}",
        *_orphans(data.get("orphans", [])),
        f"connections  {data['connections']} now, {totals.get('accepted', 0)} accepted",
        *_certificates(data.get("certificates", [])),
        *_losses(totals),
    ]
    for text in _tables(data, totals):
        lines += ["", text]
    return "\n".join(lines)


def _orphans(pids: list[int]) -> list[str]:
    """``orphans      2 workers of an earlier run (pid 41, 42) ...``; nothing as a rule."""
    if not pids:
        return []
    workers = f"{plural(len(pids), 'worker')} of an earlier run (pid {', '.join(map(str, pids))})"
    return [f"orphans      {workers} without a supervisor; TERM drains each"]


def _certificates(certificates: list[dict[str, Any]]) -> list[str]:
    """``certificates 3, 1 expires within 21 days``; nothing where there are none."""
    names = {one["certificate"] for one in certificates}
    if not names:
        return []
    soon = {one["certificate"] for one in certificates if one["days_left"] < WARN_DAYS}
    verb = "expires" if len(soon) == 1 else "expire"
    more = f", {len(soon)} {verb} within {WARN_DAYS} days" if soon else ""
    return [f"certificates {len(names)}{more}"]


def _losses(totals: dict[str, Any]) -> list[str]:
    """A line for each thing that went missing; none as a rule."""
    lines = []
    killed = totals.get("killed", {})
    if killed.get("workers"):
        held = killed["accepted"] - killed["ended"]
        workers = plural(killed["workers"], "worker")
        lines.append(f"killed       {workers} by force, with {plural(held, 'connection')} open")
    if full := totals.get("limit_table_full"):
        lines.append(f"limits       the table was full, {plural(full, 'connection')} not counted")
    access, other = totals.get("access_lines_dropped", 0), totals.get("log_lines_dropped", 0)
    if access or other:
        lines.append(f"lines lost   {access} of the access log, {other} of the log")
    return lines


def _tables(data: dict[str, Any], totals: dict[str, Any]) -> Iterator[str]:
    soon = [one for one in data.get("certificates", []) if one["days_left"] < WARN_DAYS]
    if soon:
        rows = [
            [one["certificate"], one["route"], moment(one["expires"]), one["days_left"]]
            for one in sorted(soon, key=lambda one: float(one["expires"]))
        ]
        yield table(["CERTIFICATE", "ROUTE", "EXPIRES", "DAYS LEFT"], rows)
    if routes := totals.get("routes", {}):
        yield _counts_table("ROUTE", routes, with_failures=False)
        yield from _requests_table({name: one.get("http") for name, one in routes.items()})
    if draining := data.get("draining"):
        rows = [[one["route"], one["connections"]] for one in draining]
        yield table(["DRAINING ROUTE", "CONNECTIONS"], rows)
    if workers := data.get("draining_workers"):
        rows = [[one["slot"], one["pid"], one["connections"]] for one in workers]
        yield table(["DRAINING WORKER", "PID", "CONNECTIONS"], rows)
    if targets := totals.get("targets", {}):
        yield _counts_table("TARGET", targets, with_failures=True)
    if ends := totals.get("ends", {}):
        ordered = sorted(ends.items(), key=lambda entry: (-entry[1], entry[0]))
        yield table(["ENDED AS", "COUNT"], ordered)
    if restarts := data.get("restarts"):
        rows = [
            [moment(one["time"]), one["slot"], one["pid"] or "-", one["kind"], one["reason"]]
            for one in restarts[-SHOWN_RESTARTS:]
        ]
        yield table(["RESTARTED", "SLOT", "PID", "AS", "REASON"], rows)


def _workers(data: dict[str, Any]) -> str:
    """``2 of 2 ready, 1 draining``."""
    counts = dict(data.get("workers", {}))
    wanted, ready = counts.pop("wanted", 0), counts.pop("ready", 0)
    others = [f"{count} {state}" for state, count in counts.items() if count]
    return ", ".join([f"{ready} of {wanted} ready", *others])


def _last_reload(last: dict[str, Any]) -> str:
    if not last.get("result"):
        return ""
    at = moment(last["time"])
    if last["ok"]:
        return f" (the last reload was ok, {at}: {last['summary']})"
    messages = [problem.get("message", "") for problem in last.get("errors", [])]
    more = f" and {len(messages) - 1} more" if len(messages) > 1 else ""
    return f" (the last reload was refused, {at}: {''.join(messages[:1])}{more})"


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


def _requests_table(routes: dict[str, dict[str, Any] | None]) -> Iterator[str]:
    """The routes that had requests; ``routes``: by name, what is said of their requests."""
    rows: list[list[object]] = [
        [
            name,
            http["requests"],
            round(http["per_second"], 1),
            f"{http['error_rate']:.2%}",
            *(latency(http[key]) for key in ("p50_s", "p95_s", "p99_s")),
        ]
        for name, http in routes.items()
        if http and http["requests"]
    ]
    if rows:
        yield table(["HTTP ROUTE", "REQUESTS", "PER S", "5XX", "P50", "P95", "P99"], rows)


def routes(data: dict[str, Any]) -> str:
    """One line per route, in the order of the file; removed ones that drain come last.

    Below it one line for each that had HTTP requests.
    """
    listed = data.get("routes", [])
    rows: list[list[object]] = [
        [
            route["name"],
            route["state"].replace("_", " "),
            _entries(route["ports"]),
            _entries(route["domains"]),
            route["connections"],
            route["total"],
            size(route["received"]),
            size(route["sent"]),
        ]
        for route in listed
    ]
    header = ["ROUTE", "STATE", "PORTS", "DOMAINS", "NOW", "TOTAL", "RECEIVED", "SENT"]
    requests = _requests_table({route["name"]: route.get("http") for route in listed})
    return "\n\n".join([table(header, rows), *requests])


def _entries(entries: list[str]) -> str:
    """``443, 8000-8010, 9000 and 2 more``; - for none."""
    shown = ", ".join(entries[:_SHOWN_ENTRIES])
    more = len(entries) - _SHOWN_ENTRIES
    return f"{shown} and {more} more" if more > 0 else shown or "-"


def workers(data: dict[str, Any]) -> str:
    """One line per worker; those that drain stand beside their successors."""
    rows: list[list[object]] = [
        [
            worker.get("slot", 0),
            worker.get("pid") or "-",
            worker.get("state", "?"),
            worker.get("generation", 0),
            worker.get("connections", 0),
            worker.get("accepted", 0),
            span(worker.get("age_s", 0.0)),
            f"{worker.get('lag_s', 0.0) * 1000:.1f} ms",
            worker.get("restarts", 0),
        ]
        for worker in data.get("workers", [])
    ]
    header = ["SLOT", "PID", "STATE", "GENERATION", "CONNECTIONS", "ACCEPTED", "AGE", "LOOP LAG"]
    return table([*header, "RESTARTS"], rows)


def resized(data: dict[str, Any]) -> str:
    """``workers: 3 wanted, 3 ready, 1 draining``."""
    counts = {"ready": data["ready"]}
    counts |= {state: data[state] for state in ("starting", "silent", "draining", "failed")}
    others = [f"{count} {state}" for state, count in counts.items() if count or state == "ready"]
    return ", ".join([f"workers: {data['wanted']} wanted", *others])
