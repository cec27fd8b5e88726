"""The data plane: one process that accepts, routes and relays."""

from shared import source_only

source_only.heed(__path__)
