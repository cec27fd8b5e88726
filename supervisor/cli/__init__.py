"""The proxyctl command."""
