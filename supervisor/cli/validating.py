"""`proxyctl validate`: check a config file as `start` and `reload` would, and bind nothing."""

from __future__ import annotations

import sys
from pathlib import Path

from shared.config import Config
from shared.errors import ConfigError
from shared.messages import Reply
from supervisor.cli.client import FAILED, OK
from supervisor.config_file import MAX_FILE_BYTES, Loaded, load, load_bytes
from supervisor.config_listeners import addresses, enabled_routes, overrides_by_port, port_keys


def validate(file: str, strict: bool) -> Reply:
    """Check ``file``, or standard input as YAML for "-". With ``strict`` a warning fails too."""
    try:
        loaded = _load(file)
    except ConfigError as error:
        return Reply(exit_code=FAILED, errors=error.problems)
    data = {
        "listeners": count_listeners(loaded.config),
        "routes": len(enabled_routes(loaded.config)),
    }
    if strict and loaded.warnings:
        return Reply(exit_code=FAILED, data=data, errors=loaded.warnings)
    return Reply(exit_code=OK, data=data, warnings=loaded.warnings)


def _load(file: str) -> Loaded:
    if file != "-":
        return load(Path(file))
    return load_bytes(sys.stdin.buffer.read(MAX_FILE_BYTES + 1), "<stdin>", "yaml")


def count_listeners(config: Config) -> int:
    """How many addresses the config listens on: each port on each of its IP addresses."""
    overrides = overrides_by_port(config)
    served = {
        str(address)
        for _, route in enabled_routes(config)
        for key in port_keys(route.match.ports)
        for address in addresses(config, key, overrides.get(key))
    }
    return len(served)
