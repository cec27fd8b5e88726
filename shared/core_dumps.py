"""No core dumps of a process that holds private keys: the file would hold them too."""

from __future__ import annotations

import resource


def forbid() -> None:
    """From now on; whoever may raise limits can allow them again for a process that is debugged."""
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, most))
