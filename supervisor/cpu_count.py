"""How many CPUs this process may use: its affinity, then the quota of its control group."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Final

_CGROUP_ROOT: Final = Path("/sys/fs/cgroup")
_OWN_CGROUP: Final = Path("/proc/self/cgroup")


def usable_cpus() -> int:
    """At least 1. A part of a CPU counts as one: half a CPU too few would stay unused."""
    count = len(os.sched_getaffinity(0))
    quota = cgroup_quota(_OWN_CGROUP, _CGROUP_ROOT)
    return count if quota is None else max(1, min(count, math.ceil(quota)))


def cgroup_quota(own: Path, root: Path) -> float | None:
    """CPUs that ``cpu.max`` allows (cgroup v2), the least of the group and those around it.

    ``own`` is the text of /proc/self/cgroup, ``root`` where the hierarchy is mounted. None: no
    limit, or no such hierarchy. In a container the own group is often mounted as the root, and the
    path within is not there: then the root's file counts.
    """
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return None
    paths = [line.removeprefix("0::") for line in lines if line.startswith("0::")]
    if not paths:
        return None
    group = root / paths[0].strip("/")
    quotas = [_quota(folder) for folder in (group, *group.parents) if folder.is_relative_to(root)]
    return min((quota for quota in quotas if quota is not None), default=None)


def _quota(folder: Path) -> float | None:
    """``cpu.max`` holds "max 100000" or "150000 100000": microseconds in each period."""
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None  # no such file in this group, or not of this kind
