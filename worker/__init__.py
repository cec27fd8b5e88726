"""The data plane: one process that accepts, routes and relays."""
