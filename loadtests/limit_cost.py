"""What the limits over all workers cost one connection, by the number of workers' tables.

    python -m loadtests.limit_cost

Every table holds the client, which is the dearest case: the look goes through all of them. The
memory is real and shared, the workers are not there, so no other CPU writes to it meanwhile.
"""

from __future__ import annotations

import mmap
import sys
import time
import timeit
from typing import Final

from shared.limit_layout import rows_for
from shared.plan import RatePlan, SecurityPlan
from supervisor.limit_tables import LimitTables
from worker.gate import Gate
from worker.limits import NOT_COUNTED, Limits

WORKERS: Final = (2, 8, 16)
ROUNDS: Final = 7
CONNECTIONS: Final = 20_000
CLIENT: Final = "192.0.2.1"

LIMITS: Final = {
    "max_connections": SecurityPlan(max_connections=1_000_000),
    "max_connections_per_ip": SecurityPlan(max_connections_per_ip=500_000),
    "connection_rate_per_ip": SecurityPlan(
        connection_rate_per_ip=RatePlan(connections=1_000_000, period_s=60.0)
    ),
    "all three": SecurityPlan(
        max_connections=1_000_000,
        max_connections_per_ip=500_000,
        connection_rate_per_ip=RatePlan(connections=1_000_000, period_s=60.0),
    ),
}


def cost_us(plan: SecurityPlan, workers: int) -> float:
    """Microseconds to admit a connection and to let it go, the best of several rounds."""
    tables = LimitTables(rows_for(workers))
    gates = []
    for row in range(workers):
        tables.open_row(row)
        limits = Limits(mmap.mmap(tables.fd, 0), row)
        gate = Gate("", plan, [], limits)
        gate.enter(CLIENT, time.monotonic())
        gates.append((gate, limits))
    gate, limits = gates[0]
    now = time.monotonic()

    def one() -> None:
        cell = gate.enter(CLIENT, now)
        limits.open[limits.row] = 1
        if cell > NOT_COUNTED:
            limits.cells[cell] -= 1
        limits.open[limits.row] = 0

    best = min(timeit.repeat(one, number=CONNECTIONS, repeat=ROUNDS)) / CONNECTIONS * 1e6
    tables.close()
    return best


def costs() -> dict[str, dict[int, float]]:
    """Microseconds a connection, by limit and number of workers."""
    return {
        name: {count: cost_us(plan, count) for count in WORKERS} for name, plan in LIMITS.items()
    }


def table(found: dict[str, dict[int, float]]) -> str:
    """One line per limit."""
    head = ["us a connection".ljust(28), *(f"{count} workers".rjust(12) for count in WORKERS)]
    rows = [
        [name.ljust(28), *(f"{row[count]:.2f}".rjust(12) for count in WORKERS)]
        for name, row in found.items()
    ]
    return "\n".join(" ".join(cells) for cells in (head, *rows))


def main() -> int:
    """Print the table."""
    print(table(costs()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
