"""Names of the files in the runtime directory, as both processes and the CLI know them."""

from __future__ import annotations

from typing import Final

LOCK_FILE: Final = "supervisor.lock"  # held by flock while a supervisor runs; names its pid
CONTROL_SOCKET: Final = "control.sock"  # ROUTER for the CLI
WORKERS_SOCKET: Final = "workers-{run}.sock"  # ROUTER for the workers of one run
STATS_SOCKET: Final = "stats-{run}.sock"  # PULL for their counters
ORPHAN_LOCK: Final = "orphan-{pid}.lock"  # held by a worker that lost its supervisor
ORPHAN_PATTERN: Final = "orphan-*.lock"

# struct sockaddr_un has 108 bytes for the path, its final NUL included (unix(7)).
IPC_PATH_MAX_BYTES: Final = 107
